"""Policies of Stable-Baselines3: files that it wrote, against what it computed; see fixtures/make_sb3.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elsewhere import check, names, unpacked
from policy_core_adapters.imports import sb3

import policy_core as pc
from policy_core.errors import FileError

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

NAMES = [name.removesuffix(".npz") for name in names("sb3", ".npz")]
FOLDER = unpacked("sb3")
EXAMPLE = Path(__file__).parent.parent / "examples" / "sb3_cartpole.zip"


def channels_last(space: Any, x: np.ndarray) -> np.ndarray:
    """The observations as the policy has them: images that a CNN sees with their channels last."""
    image = isinstance(space, pc.Box) and x.shape[1:] != space.shape
    return np.moveaxis(x, 1, -1) if image else x


def observations(space: Any, found: Any) -> Any:
    if isinstance(space, pc.Dict):
        return {name: channels_last(part, found[f"x/{name}"]) for name, part in space.spaces}
    return channels_last(space, found["x"])


def masks_of(space: Any, found: Any) -> Any:
    """Masks as the policy has them: for a MultiDiscrete, SB3 has its rows beside each other."""
    if "mask" not in found or isinstance(space, pc.Discrete):
        return found.get("mask")
    return tuple(np.split(found["mask"], np.cumsum(space.nvec)[:-1], axis=1))


def files(name: str) -> tuple[Path, Path | None]:
    """The zip, and the statistics if there are any."""
    statistics = FOLDER / f"{name}.vecnormalize.pkl"
    path = EXAMPLE if name == "cartpole" else FOLDER / f"{name}.zip"
    return path, statistics if statistics.exists() else None


@pytest.mark.parametrize("name", NAMES)
def test_a_file_acts_as_its_library_did(name, tmp_path):
    found = sb3.load(*files(name))
    expected = dict(np.load(FOLDER / f"{name}.npz"))
    config = found.policy[1]
    x = observations(config.observation_space, expected)
    check(found, expected, x, masks_of(config.action_space, expected), tmp_path)
    assert found.metadata["version"] == str(expected["version"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_extractor", r"^features_extractor_class: Doubled is not of Stable-Baselines3; read its code, make a config"),
        ("own_policy", r"^policy_class: OwnPolicy is no actor-critic of Stable-Baselines3; if it computes"),
    ],
)  # fmt: skip
def test_what_is_the_users_own_is_refused_by_its_name(name, message):
    with pytest.raises(FileError, match=message):
        sb3.load(FOLDER / f"{name}.zip")
    assert sb3.leaves(FOLDER / f"{name}.zip")["action_net.weight"].shape == (2, 4)


def test_statistics_of_another_observation_are_refused():
    def load(name, statistics):
        return sb3.load(FOLDER / f"{name}.zip", FOLDER / f"{statistics}.vecnormalize.pkl")

    with pytest.raises(FileError, match=r"^vecnormalize: statistics of shape \(4,\) for the space Box"):
        load("old_vecnormalize", "a2c_box_vecnormalize")
    with pytest.raises(FileError, match=r"^vecnormalize: there are no statistics of the observation"):
        load("old_vecnormalize", "multi_input")
    with pytest.raises(FileError, match=r"^vecnormalize: statistics of shape \(4,\) for the space Box.* no"):
        load("cnn_stacked", "a2c_box_vecnormalize")
    with pytest.raises(FileError, match=r"^vecnormalize: it normalizes \['image', 'pose'\]"):
        load("multi_input_separate", "a2c_box_vecnormalize")


def test_the_weights_say_what_is_shared():
    """Extractors that were trained apart differ; a shared one is in the file three times."""
    assert sb3.load(FOLDER / "multi_input_separate.zip").policy[1].encoder_sharing == "separate"
    found = sb3.load(FOLDER / "cnn_stacked.zip")
    assert found.policy[1].encoder_sharing == "shared"
    assert (
        found.report["vf_features_extractor.cnn.0.weight"] == "not needed: another name of one that is shared"
    )
    assert found.policy[1].observation_space == pc.Box(low=0, high=255, shape=(44, 52, 2), dtype="uint8")
