"""Agents of different spaces in one game: MPE simple tag of JaxMARL, three hunters and their prey.

Each agent has a policy of its own. Those of equal configs are one population, so that a set of agents is
as many programs as it has configs, and `ppo.py` trains each against the others as they were before the
update. The set is saved in one folder and played from it. Needs the extra `multi-agent`.
"""

import command

# isort: split
import argparse
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ppo
from policy_core_adapters.environment import Environment, Step
from policy_core_adapters.gymnax import space_of
from rich.console import Console
from rich.progress import track
from rich.table import Table

import policy_core as pc

HYPER = ppo.Hyperparameters(
    num_envs=32, num_steps=52, num_epochs=4, learning_rate=3e-3, discount=0.95, entropy_coefficient=0.01,
)  # fmt: skip
EPISODES = 512
console = Console()

Groups = list[tuple[tuple[str, ...], Any]]  # the names, and their policies as one population
Names = list[tuple[str, ...]]


def make_game() -> Any:
    """The game; episodes end after 26 steps, by time only."""
    if importlib.util.find_spec("jaxmarl") is None:
        raise command.UserError("jaxmarl cannot be imported; pip install -e '.[multi-agent]'")
    return importlib.import_module("jaxmarl").make("MPE_simple_tag_v3")


def make_policies(game: Any, key: jax.Array) -> dict[str, Any]:
    """A policy for each agent."""
    configs = {
        name: pc.ActorCriticConfig(
            observation_space=space_of(game.observation_space(name)),
            action_space=space_of(game.action_space(name)),
            value_head=pc.RegressionHead(scale=10.0),  # a catch is worth 10
        )
        for name in game.agents
    }
    keys = jax.random.split(key, len(configs))
    return {name: pc.init(config, key=k) for (name, config), k in zip(configs.items(), keys, strict=True)}


def choose(names: Names, populations: list[Any], observations: Any, key: jax.Array) -> list[jax.Array]:
    """The actions of all agents: an array `[agent]` for each group."""

    def act(policy: Any, observation: Any, key: jax.Array) -> Any:
        return pc.act(policy, pc.reset(policy), observation, key=key)[1]

    keys = jax.random.split(key, len(names))
    return [
        jax.vmap(act)(population, together(group, observations), jax.random.split(k, len(group)))
        for group, population, k in zip(names, populations, keys, strict=True)
    ]


def together(group: tuple[str, ...], values: dict[str, Any]) -> jax.Array:
    """What the agents of a group have, as one array."""
    return jnp.stack([values[name] for name in group])


def advance(game: Any, names: Names, state: Any, actions: list[jax.Array], key: jax.Array) -> Any:
    """One step of the game, which does not start again at the end."""
    by_name = {
        name: action
        for group, chosen in zip(names, actions, strict=True)
        for name, action in zip(group, chosen, strict=True)
    }
    observations, state, rewards, dones, _ = game.step_env(key, state, by_name)
    return observations, state, rewards, dones["__all__"]


def view(game: Any, names: Names, populations: list[Any], g: int, i: jax.Array) -> Environment:
    """The game as agent i of group g sees it, while the policies play all others."""
    _, config = populations[g]

    def of_agent(values: dict[str, Any]) -> jax.Array:
        return together(names[g], values)[i]

    def reset(key: jax.Array) -> tuple[jax.Array, Any]:
        observations, state = game.reset(key)
        return of_agent(observations), (state, observations)

    def step(key: jax.Array, state: Any, action: Any) -> Step:
        act_key, step_key, reset_key = jax.random.split(key, 3)
        before, observations = state
        actions = choose(names, populations, observations, act_key)
        actions[g] = actions[g].at[i].set(action)
        final, after, rewards, ended = advance(game, names, before, actions, step_key)
        first, fresh = game.reset(reset_key)
        after, seen = jax.tree.map(lambda a, b: jnp.where(ended, a, b), (fresh, first), (after, final))
        return Step(
            of_agent(seen), (after, seen), of_agent(rewards), jnp.array(False), ended, of_agent(final)
        )

    return Environment(config.observation_space, config.action_space, reset, step)


def train(game: Any, groups: Groups, hyper: ppo.Hyperparameters, key: jax.Array) -> tuple[Groups, np.ndarray]:
    """The trained groups, and the mean return of each agent `[update, agent]` while they trained."""
    names, populations = [names for names, _ in groups], [population for _, population in groups]

    def trainer(populations: list[Any], g: int, i: jax.Array) -> Any:
        return ppo.make_train(populations[g][1], view(game, names, populations, g, i), hyper)

    def start(g: int, policy: Any, i: jax.Array, key: jax.Array) -> ppo.Runner:
        runner: ppo.Runner = trainer(populations, g, i)[0](key)
        return runner._replace(policy=policy)

    @jax.jit
    def update(runners: list[ppo.Runner]) -> tuple[list[ppo.Runner], jax.Array]:
        now = [runner.policy for runner in runners]
        results = [
            jax.vmap(lambda runner, i, g=g: trainer(now, g, i)[1](runner))(runner, jnp.arange(len(names[g])))
            for g, runner in enumerate(runners)
        ]
        returned = jnp.concatenate([jnp.nanmean(returned, (1, 2)) for _, returned in results])
        return [runner for runner, _ in results], returned

    runners = [
        jax.jit(jax.vmap(lambda policy, i, key, g=g: start(g, policy, i, key)))(
            population, jnp.arange(len(names[g])), jax.random.split(jax.random.fold_in(key, g), len(names[g]))
        )
        for g, population in enumerate(populations)
    ]
    curve = []
    for _ in track(range(hyper.num_updates), "training", console=console):
        runners, returned = update(runners)
        curve.append(np.asarray(returned))
    trained = [runner.policy for runner in runners]
    return list(zip(names, trained, strict=True)), np.stack(curve)


def play(game: Any, groups: Groups, key: jax.Array, episodes: int = EPISODES) -> dict[str, float]:
    """The mean return of each agent."""
    names, populations = [names for names, _ in groups], [population for _, population in groups]

    def episode(key: jax.Array) -> Any:
        def step(carry: Any, key: jax.Array) -> Any:
            observations, state = carry
            act_key, step_key = jax.random.split(key)
            actions = choose(names, populations, observations, act_key)
            observations, state, rewards, _ = advance(game, names, state, actions, step_key)
            return (observations, state), rewards

        reset_key, key = jax.random.split(key)
        _, rewards = jax.lax.scan(step, game.reset(reset_key), jax.random.split(key, game.max_steps + 1))
        return jax.tree.map(jnp.sum, rewards)

    returns = jax.jit(jax.vmap(episode))(jax.random.split(key, episodes))
    return {name: float(x.mean()) for name, x in returns.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=command.positive, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/multi_agent"), help="folder for the set")
    options = parser.parse_args()
    game = make_game()
    init_key, train_key, play_key = jax.random.split(jax.random.key(options.seed), 3)
    untrained = make_policies(game, init_key)
    groups = pc.population.groups(untrained)
    for names, population in groups.values():
        console.print(f"{', '.join(names)}: one population of {pc.population.size(population)}")

    hyper = HYPER._replace(num_updates=options.updates)
    trained, _ = train(game, list(groups.values()), hyper, train_key)
    by_config = {population[1]: (names, population) for names, population in trained}
    pc.files.save_all(options.out, pc.population.ungroup(by_config))
    loaded = pc.files.load_all(options.out, {name: config for name, (_, config) in untrained.items()})
    console.print(f"saved and loaded {len(loaded)} policies: {options.out}")

    hunters = [name for name in game.agents if name.startswith("adversary")]
    table = Table("hunters", "prey", title=f"catches in an episode, mean of {EPISODES}")
    table.add_column("catches", justify="right")
    catches = {}
    for hunt, of_hunters in (("untrained", untrained), ("trained", loaded)):
        for prey, of_prey in (("untrained", untrained), ("trained", loaded)):
            players = {name: (of_hunters if name in hunters else of_prey)[name] for name in game.agents}
            scores = play(game, list(pc.population.groups(players).values()), play_key)
            catches[hunt, prey] = scores[hunters[0]] / 10
            table.add_row(hunt, prey, f"{catches[hunt, prey]:.2f}")
    console.print(table)
    hunted = catches["trained", "untrained"] > 2 * catches["untrained", "untrained"]
    fled = catches["trained", "trained"] < catches["trained", "untrained"]
    console.print("hunters learned to catch" if hunted else "hunters MISSED", end=", ")
    console.print("prey learned to flee" if fled else "prey MISSED")
    return 0 if hunted and fled else 1


if __name__ == "__main__":
    command.run(main)
