"""Where the CPU time of `examples/ppo.py` goes, an environment step: rollout, advantages and update.

Beside it are the PPO of rejax, where it is installed, and the script of PureJaxRL from a checkout, all with
towers of 64 x 64 and equal numbers of environments, steps, epochs and minibatches. They take turns. It is the
CPU time of all threads after compilation: an update is what as many epochs more cost, a rollout is the rest.
In the last column our time is divided by theirs.

    python -m benchmarks.training --task CartPole-v1 --purejaxrl FOLDER
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from policy_core_adapters import gymnax

import policy_core as pc
from benchmarks.table import aligned
from benchmarks.tasks import environments, flax_peers

sys.path.append(str(Path(__file__).parent.parent / "examples"))
import ppo


class Size(NamedTuple):
    """Of a rollout and what is made of it."""

    num_envs: int
    num_steps: int
    num_epochs: int
    num_minibatches: int
    num_updates: int

    @property
    def steps(self) -> int:
        """Of the environments, in all."""
        return self.num_envs * self.num_steps * self.num_updates


SIZES = {
    "CartPole-v1": (Size(4, 128, 4, 4, 100), Size(32, 32, 10, 4, 50), Size(64, 64, 4, 8, 12)),
    "Breakout-MinAtar": (Size(64, 64, 4, 8, 6), Size(64, 128, 4, 8, 3)),
}
RATE = 2.5e-4
Whole = Callable[[jax.Array], Any]


def ours(task: str, size: Size, encoder: Any = None) -> Whole:
    """`examples/ppo.py`, with towers of 64 x 64, or of 64 behind an encoder."""
    env = gymnax.make(task)
    towers = pc.MLP((64, 64) if encoder is None else (64,))
    config = pc.ActorCriticConfig(
        observation_space=env.observation_space,
        action_space=env.action_space,
        encoder=encoder,
        actor=towers,
        critic=towers,
    )
    hyper = ppo.Hyperparameters(
        **size._asdict(), learning_rate=RATE, discount=0.99, gae_lambda=0.95, entropy_coefficient=0.01
    )
    init, update = ppo.make_train(config, env, hyper)
    return lambda key: jax.lax.scan(lambda runner, _: update(runner), init(key), None, size.num_updates)


def of_rejax(task: str, size: Size) -> Whole:
    """`rejax.PPO`, without evaluations."""
    import rejax as peer  # pyright: ignore[reportMissingImports]

    env, params = environments.make(task)
    fields = size._asdict()
    updates = fields.pop("num_updates")
    algo = peer.PPO.create(
        env=environments.Legacy(env),
        env_params=params,
        agent_kwargs={"activation": "tanh"},
        learning_rate=RATE,
        max_grad_norm=0.5,
        **fields,
    )

    def whole(key: jax.Array) -> Any:
        return jax.lax.scan(lambda s, _: (algo.train_iteration(s), None), algo.init_state(key), None, updates)

    return whole


def of_purejaxrl(folder: Path) -> Callable[[str, Size], Whole]:
    """The `ppo.py` in a checkout."""
    make_train = flax_peers.script(folder, "ppo")

    def made(task: str, size: Size) -> Whole:
        fields = {
            "NUM_ENVS": size.num_envs, "NUM_STEPS": size.num_steps, "UPDATE_EPOCHS": size.num_epochs,
            "NUM_MINIBATCHES": size.num_minibatches, "TOTAL_TIMESTEPS": size.steps, "LR": RATE,
            "GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5,
            "MAX_GRAD_NORM": 0.5, "ACTIVATION": "tanh", "ENV_NAME": task, "ANNEAL_LR": True,
        }  # fmt: skip
        whole: Whole = make_train(fields)
        return whole

    return made


def of_advantages(size: Size) -> Whole:
    """The advantages of our rollouts, each of them new."""
    shape = size.num_steps, size.num_envs
    nothing: dict[str, Any] = dict.fromkeys(ppo.Transition._fields)

    def one(value: jax.Array, _: None) -> Any:
        fields = {**nothing, "value": value, "reward": value + 1, "sign": value, "done": value > 0}
        advantage = ppo.advantages(ppo.Hyperparameters(), ppo.Transition(**fields), value[0])
        return advantage / 100, None

    return lambda key: jax.lax.scan(one, jax.random.normal(key, shape), None, size.num_updates)


def measured(programs: dict[Any, Any], rounds: int) -> dict[Any, float]:
    """CPU seconds of each program: medians of rounds in which they take turns."""
    seconds: dict[Any, list[float]] = {name: [] for name in programs}
    for i in range(-1, rounds):
        for name, program in programs.items():
            start = time.process_time()
            jax.block_until_ready(program(jax.random.PRNGKey(abs(i))))
            if i >= 0:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def rows(task: str, size: Size, contestants: dict[str, Callable[[str, Size], Whole]], rounds: int) -> Any:
    """Microseconds an environment step, part by part, of each contestant."""
    wholes = {("", "advantages"): of_advantages(size)}
    for name, make in contestants.items():
        wholes[name, "once"] = make(task, size)
        wholes[name, "twice"] = make(task, size._replace(num_epochs=2 * size.num_epochs))
    programs = {name: jax.jit(whole).lower(jax.random.PRNGKey(0)).compile() for name, whole in wholes.items()}
    found = {name: seconds / size.steps * 1e6 for name, seconds in measured(programs, rounds).items()}
    for name in contestants:
        whole, advantages = found[name, "once"], found["", "advantages"]
        update = found[name, "twice"] - whole
        rollout = whole - update
        parts = (
            [f"{rollout - advantages:.2f}", f"{advantages:.2f}"] if "ours" in name else [f"{rollout:.2f}", ""]
        )
        ratio = found["ours", "once"] / whole
        shape = f"{size.num_envs} x {size.num_steps}, {size.num_epochs} x {size.num_minibatches}"
        yield [shape, name, *parts, f"{update:.2f}", f"{whole:.2f}", f"{ratio:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=SIZES, default="CartPole-v1")
    parser.add_argument("--sizes", type=int, nargs="*", help="which of the sizes of the task; all by default")
    parser.add_argument("--purejaxrl", type=Path, help="the folder of a checkout of PureJaxRL")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    contestants: dict[str, Callable[[str, Size], Whole]] = {"ours": ours}
    if options.task == "Breakout-MinAtar":
        contestants["ours, MinAtarCNN"] = lambda task, size: ours(task, size, pc.MinAtarCNN())
    if importlib.util.find_spec("rejax"):
        contestants["rejax"] = of_rejax
    if options.purejaxrl:
        contestants["PureJaxRL"] = of_purejaxrl(options.purejaxrl)
    header = "envs x steps, epochs x minibatches", "", "rollout", "advantages", "update", "whole", "ours / it"
    sizes = SIZES[options.task]
    for i in range(len(sizes)) if options.sizes is None else options.sizes:
        print(f"{options.task}, microseconds of CPU time an environment step")
        print(aligned(header, list(rows(options.task, sizes[i], contestants, options.rounds))), flush=True)


if __name__ == "__main__":
    main()
