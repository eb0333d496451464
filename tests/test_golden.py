"""Golden files of version 1: every class as it was when the format was frozen, and fingerprints on record.

`python tests/test_golden.py` writes what is not there yet, and never a file anew: a change that cannot read
one of these cannot read people's files.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import opened
from cases import CONFIGS, OBSERVATION, SMALL, as_frozen, classes_of
from policy_core_adapters import numpy_runner

import policy_core as pc
from policy_core.configs.registry import CONFIGS as CLASSES

FOLDER = Path(__file__).parent / "golden" / "v1"
RECORD = FOLDER / "fingerprints.json"
BOX = pc.Box(low=-1.0, high=2.0, shape=(2,))
OWN = {
    "minatar": pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(10, 10, 1)),
        action_space=pc.Discrete(2),
        encoder=pc.MinAtarCNN(filters=1, size=2),
        **SMALL,
    ),
    "environment actions": pc.env_actions.InEnvActions(
        pc.ActorCriticConfig(observation_space=OBSERVATION, action_space=BOX, box_head=pc.BetaHead(), **SMALL)
    ),
}
OTHERS = {
    "the defaults": pc.ActorCriticConfig(observation_space=OBSERVATION, action_space=pc.Discrete(2)),
    "nature": pc.ActorCriticConfig(
        observation_space=pc.Box(low=0, high=255, shape=(84, 84, 4), dtype="uint8"),
        action_space=pc.Discrete(6),
        encoder=pc.NatureCNN(),
    ),
}
RECORDED = {name: as_frozen(config) for name, config in {**CONFIGS, **OWN, **OTHERS}.items()}
FILES = [
    "act nested", "parts", "heads of parts", "memory with a skip", "normalized value", "squashed",
    "privileged critic", "two-hot value", "symlog values", "attention of the actor", "HL-Gauss values",
    "layer norm", "image", "autoregressive", "two memories", *OWN,
]  # fmt: skip
# A NatureCNN has 75,000 numbers at least; a Graph belongs to a distribution.
NOT_IN_FILES = {"policy_core/NatureCNN", "policy_core/Graph"}


def _path(name: str) -> Path:
    return FOLDER / f"{name.replace(' ', '-')}.msgpack"


def test_every_class_is_in_a_golden_file():
    there = {name for name, cls in CLASSES.items() if cls.__module__.startswith("policy_core.")}
    found = set().union(*(classes_of(RECORDED[name]) for name in FILES))
    assert there - found == NOT_IN_FILES


def test_every_fingerprint_is_the_one_on_record():
    assert {name: pc.fingerprint(config).hex() for name, config in RECORDED.items()} == json.loads(
        RECORD.read_text()
    )


@pytest.mark.parametrize("name", FILES)
def test_a_golden_file_is_read_acts_the_same_and_is_written_the_same(name):
    data, config = _path(name).read_bytes(), RECORDED[name]
    policy = pc.load(_path(name), config)
    assert pc.load(_path(name))[1] == config
    found = pc.verify(_path(name), tolerance=1e-4)
    assert found.observations > 0
    assert found.deviation <= 1e-4
    again, before = opened(pc.to_bytes(policy, metadata={"golden": name}, self_test=False)), opened(data)
    assert again["config"] == before["config"]
    assert again["fingerprint"] == before["fingerprint"] == pc.fingerprint(config)
    assert again["leaves"] == before["leaves"]
    numpy_runner.load(_path(name), mask_functions={"others": lambda *_: None})


def _made(config: Any) -> Any:
    """A policy whose params are all at work, also those that `init` makes zero."""
    params, _ = pc.init(config, key=jax.random.key(0))
    rng = np.random.default_rng(0)

    def moved(path: Any, x: Any) -> Any:
        if "normalize" in jax.tree_util.keystr(path) or "statistics" in jax.tree_util.keystr(path):
            return x  # sums, which not any number can be
        return jnp.asarray(x + 0.1 * rng.standard_normal(x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(moved, params), config


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if not _path(name).exists():
            pc.save(_path(name), _made(RECORDED[name]), metadata={"golden": name})
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    new = {name: pc.fingerprint(config).hex() for name, config in RECORDED.items()}
    RECORD.write_text(json.dumps({**new, **known}, indent=1) + "\n")


if __name__ == "__main__":
    main()
