"""PPO of rejax, and the scripts of PureJaxRL as they are in a checkout.

What newer packages took away is given back here, and nothing of the trainers is changed:

- gymnax 1.0: `step` returns six values; both are given environments whose `step` returns five.
- flax: `GRUCell` asks for its number of features, and `initialize_carry` became a method.
- `wrappers.py` of PureJaxRL imports brax and navix, which its gymnax scripts do not use; where they are not
  installed, empty modules stand in for them.
"""

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.tasks import environments, jitted
from benchmarks.tasks.record import Seed
from benchmarks.tasks.settings import Setting, Task


def rejax(
    task: Task, setting: Setting, seeds: list[int], agent: Mapping[str, Any] | None = None
) -> Iterator[Seed]:
    """`rejax.PPO` by its iterations, without the evaluations between them, which cost time of their own.

    With an agent its actor and critic take the place of rejax's own.
    """
    import rejax as peer  # pyright: ignore[reportMissingImports]

    env, params = environments.make(task.name)
    fields = {**setting.fields, "total_timesteps": task.steps}
    algo = peer.PPO.create(env=environments.Legacy(env), env_params=params, **fields)
    algo = algo.replace(**agent) if agent else algo
    rollout = algo.num_envs * algo.num_steps
    updates = -(-task.steps // rollout)

    def one(state: Any, _: None) -> Any:
        state = algo.train_iteration(state)
        # With normalized observations rejax wraps the environment, not its state.
        return state, (state.env_state.returned.sum(), state.env_state.episodes.sum())

    def whole(key: jax.Array) -> Any:
        return jax.lax.scan(one, algo.init_state(key), None, updates)

    def read(out: Any) -> tuple[np.ndarray, np.ndarray]:
        returned, episodes = (np.diff(np.asarray(x, float), prepend=0.0) for x in out[1])
        return returned, episodes

    yield from jitted.trained(whole, read, rollout * updates, seeds, key=jax.random.PRNGKey)


def purejaxrl(
    task: Task, setting: Setting, seeds: list[int], folder: Path, network: Any = None
) -> Iterator[Seed]:
    """`make_train` of `ppo.py`, or of `ppo_rnn.py` where the task needs a memory.

    A network takes the place of the one that `ppo.py` has.
    """
    fields: dict[str, Any] = {**setting.fields, "ENV_NAME": task.name}
    rollout = fields["NUM_ENVS"] * fields["NUM_STEPS"]
    updates = -(-task.steps // rollout)
    fields["TOTAL_TIMESTEPS"] = updates * rollout
    replaced = {"ActorCritic": lambda *_, **__: network} if network else {}
    whole = script(folder, "ppo_rnn" if task.name == "RepeatPrevious" else "ppo", replaced)(fields)

    def summed(key: jax.Array) -> Any:
        out = whole(key)
        metric = out.get("metrics", out.get("metric"))
        ended = metric["returned_episode"]
        total = jnp.sum(metric["returned_episode_returns"], axis=(1, 2), where=ended)
        return total, jnp.sum(ended, axis=(1, 2))

    def read(out: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(out[0], float), np.asarray(out[1])

    yield from jitted.trained(summed, read, rollout * updates, seeds, key=jax.random.PRNGKey)


def script(
    folder: Path, name: str, replaced: Mapping[str, Any] | None = None
) -> Callable[[dict[str, Any]], Any]:
    """`make_train` of a script of PureJaxRL, with other values of some of its names."""
    path = folder / "purejaxrl" / f"{name}.py"
    if not path.is_file():
        raise FileNotFoundError(f"--purejaxrl: got {str(folder)!r}, expected a checkout with {path.name}")
    sys.path.insert(0, str(path.parent))  # of wrappers.py
    for missing, names in (
        ("brax", {"envs": None}),
        ("brax.envs", {}),
        ("brax.envs.wrappers", {}),
        ("brax.envs.wrappers.training", {"EpisodeWrapper": None, "AutoResetWrapper": None}),
        ("navix", {}),
    ):
        top = missing.partition(".")[0]
        if top in sys.modules or importlib.util.find_spec(top) is None:
            stub = types.ModuleType(missing)
            vars(stub).update(names)
            sys.modules.setdefault(missing, stub)
    module: dict[str, Any] = {"__name__": name}
    exec(compile(path.read_text(), str(path), "exec"), module)

    def make(env_name: str) -> tuple[Any, Any]:
        env, params = environments.make(env_name)
        return environments.Legacy(env), params

    module["gymnax"] = types.SimpleNamespace(make=make)
    if name == "ppo_rnn":
        linen = module["nn"]

        def cell() -> Any:
            return linen.GRUCell(features=128)  # what its input has

        def carry(_: Any, batch: tuple[int, ...], size: int) -> jax.Array:
            return jnp.zeros((*batch, size))

        vars(cell)["initialize_carry"] = carry
        module["nn"] = types.SimpleNamespace(**{**vars(linen), "GRUCell": cell})
    module.update(replaced or {})
    found: Callable[[dict[str, Any]], Any] = module["make_train"]
    return found
