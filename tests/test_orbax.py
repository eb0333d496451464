"""Orbax checkpoints: any topology, one config, and nothing read before it is compared."""

import doctest
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from cases import config
from policy_core_adapters import orbax

import policy_core as pc

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]

CONFIG = config(pc.Discrete(3), memory=pc.GRU(4), normalize=pc.Normalize(), temperature=1.0)
MEMBERS = 8


def population() -> Any:
    """Of numbers that no compiler rounds: this process and the other one have the same."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: pc.init(CONFIG, key=jax.random.key(0)))
    return jax.tree.map(lambda x: jnp.asarray(random.normal(size=(MEMBERS, *x.shape)), x.dtype), shapes)


def by_member(devices: Any) -> Any:
    mesh = jax.sharding.Mesh(np.array(devices), ("population",))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("population"))


def write(folder: str) -> None:
    """A step of a population that is split over all devices, and the state of its optimizer."""
    pop = jax.device_put(population(), by_member(jax.devices()))
    state = jax.jit(jax.vmap(optax.adam(1e-3).init))(pop)
    with ocp.CheckpointManager(folder) as manager:
        orbax.save(manager, 3, pop, extra={"optimizer": state, "returns": jnp.arange(8.0)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by a process of eight devices; this one has two."""
    path = tmp_path_factory.mktemp("orbax") / "run"
    script = f"import jax, test_orbax; assert jax.device_count() == 8; test_orbax.write({str(path)!r})"
    env = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return path


def assert_bitwise(got: Any, expected: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("devices", [1, 2])
def test_eight_devices_come_back_on_fewer_bit_for_bit(folder: Path, devices: int) -> None:
    sharding = by_member(jax.devices()[:devices])
    with ocp.CheckpointManager(folder) as manager:
        restored = orbax.restore(manager, 3, CONFIG, sharding=sharding)
    assert_bitwise(restored, population())
    assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {sharding}


def test_the_config_is_rebuilt_if_none_is_given(folder: Path) -> None:
    with ocp.CheckpointManager(folder) as manager:
        restored = orbax.restore(manager, 3)
    assert restored[1] == CONFIG
    assert_bitwise(restored, population())
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(restored)} == {1}


@pytest.mark.parametrize("member", [0, 5, -1])
def test_one_member_is_a_policy_of_its_own(folder: Path, tmp_path: Path, member: int) -> None:
    with ocp.CheckpointManager(folder) as manager:
        policy = orbax.restore(manager, 3, CONFIG, member=member)
    assert_bitwise(policy, jax.tree.map(lambda x: x[member], population()))
    assert pc.to_bytes(policy) == pc.to_bytes(jax.tree.map(lambda x: x[member], population()))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(policy))


def test_another_config_is_refused_before_an_array_is_read(folder: Path, tmp_path: Path) -> None:
    """The shapes are equal, so Orbax would not notice; there is nothing left to read here."""
    without = tmp_path / "without"
    shutil.copytree(folder, without)
    shutil.rmtree(without / "3" / "params")
    relu = config(
        pc.Discrete(3), memory=pc.GRU(4), normalize=pc.Normalize(), temperature=1.0,
        actor=pc.MLP((8,), activation="relu"),
    )  # fmt: skip
    with ocp.CheckpointManager(without) as manager:
        with pytest.raises(pc.errors.FingerprintError) as error:
            orbax.restore(manager, 3, relu)
        with pytest.raises(Exception, match="params") as missing:  # it is what comes next
            orbax.restore(manager, 3, CONFIG)
    assert not isinstance(missing.value, pc.errors.PolicyError)
    assert str(error.value).startswith(f"step 3 of {without}: the file holds a policy of another config\n")
    assert "\n  actor.activation  'tanh'       'relu'\n" in str(error.value)


def test_what_was_saved_beside_it_comes_back(folder: Path) -> None:
    state = jax.jit(jax.vmap(optax.adam(1e-3).init))(population())
    like = {"optimizer": state, "returns": jnp.zeros(8)}
    with ocp.CheckpointManager(folder) as manager:
        extra = orbax.restore_extra(manager, 3, like)
    assert_bitwise(extra, {"optimizer": state, "returns": jnp.arange(8.0)})


def test_a_new_step_of_one_policy(tmp_path: Path) -> None:
    policy = pc.init(CONFIG, key=jax.random.key(1))
    with ocp.CheckpointManager(tmp_path) as manager:
        assert orbax.save(manager, 0, policy)
        manager.wait_until_finished()
        assert_bitwise(orbax.restore(manager, 0), policy)
        with pytest.raises(IndexError, match="member: got 0, but step 0 holds one policy"):
            orbax.restore(manager, 0, member=0)
        with pytest.raises(pc.errors.FileError, match="nothing was saved beside the policy"):
            orbax.restore_extra(manager, 0, {})
        with pytest.raises(FileNotFoundError):
            orbax.restore(manager, 7)


def test_what_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with ocp.CheckpointManager(folder) as manager:
        for member in (8, -9):
            with pytest.raises(IndexError, match=f"member: got {member}, expected one of the 8 of step 3"):
                orbax.restore(manager, 3, member=member)
    with ocp.CheckpointManager(tmp_path / "other") as manager:
        manager.save(0, args=ocp.args.Composite(params=ocp.args.StandardSave({"x": jnp.ones(2)})))
        manager.wait_until_finished()
        with pytest.raises(pc.errors.FileError, match="no item 'policy_core'"):
            orbax.restore(manager, 0)


def test_a_damaged_header_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (path,) = (path for path in (copy / "3" / "policy_core").iterdir() if path.name == "metadata")
    header = json.loads(path.read_text())
    damages = {
        "version": (2, "got version 2"),
        "fingerprint": ("00" * 32, "fingerprint is not that of the config"),
        "config": ("kw==", "step 3 of"),
        "batch": (None, "is damaged"),
    }
    for name, (value, match) in damages.items():
        path.write_text(json.dumps({**header, name: value}))
        with ocp.CheckpointManager(copy) as manager, pytest.raises(pc.errors.FileError, match=match):
            orbax.restore(manager, 3)


def test_params_of_another_config_are_not_saved(tmp_path: Path) -> None:
    params, _ = pc.init(CONFIG, key=jax.random.key(0))
    with ocp.CheckpointManager(tmp_path) as manager:
        with pytest.raises(pc.errors.StructureError):
            orbax.save(manager, 0, (params, config(pc.Discrete(4))))
        with pytest.raises(pc.errors.FileError, match="config: got tuple, expected the config of a policy"):
            orbax.save(manager, 0, (params, (params, CONFIG)))
        assert manager.all_steps() == []


def on_a_host(folder: str) -> None:
    """One of two processes, of two devices each: save, and restore all ways that there are."""
    sharding = by_member(jax.devices())
    full = jax.tree.map(np.asarray, population())
    pop = jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda i: x[i]), full)
    assert not jax.tree.leaves(pop)[0].is_fully_addressable
    with ocp.CheckpointManager(folder) as manager:
        assert orbax.save(manager, 0, pop)
        manager.wait_until_finished()
        again = orbax.restore(manager, 0, CONFIG, sharding=sharding)
        assert {leaf.sharding for leaf in jax.tree.leaves(again)} == {sharding}
        assert_bitwise(pc.population.gather(again), full)
        assert_bitwise(orbax.restore(manager, 0), full)  # on a device of each process
        assert_bitwise(orbax.restore(manager, 0, member=6), jax.tree.map(lambda x: x[6], full))


def test_two_processes_save_and_restore_one_population(tmp_path: Path) -> None:
    """On the loopback address; ended by their ids when time is up. This process reads it, too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder = str(tmp_path / "run")
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    env = {
        **os.environ,
        "XLA_FLAGS": " ".join([*flags, "--xla_force_host_platform_device_count=2"]),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    script = (
        "import jax; jax.config.update('jax_cpu_collectives_implementation', 'gloo');"
        "jax.distributed.initialize('127.0.0.1:{port}', 2, {rank}); import test_orbax;"
        "test_orbax.on_a_host({folder!r}); jax.distributed.shutdown()"
    )
    logs = [tmp_path / f"{rank}.log" for rank in range(2)]
    started = []
    try:
        for rank, log in enumerate(logs):
            code = script.format(port=port, rank=rank, folder=folder)
            with log.open("w") as out:
                started.append(
                    subprocess.Popen([sys.executable, "-c", code], env=env, stdout=out, stderr=out)
                )
        end = time.monotonic() + 60
        for process, log in zip(started, logs, strict=True):
            assert process.wait(max(end - time.monotonic(), 0.1)) == 0, log.read_text()[-3000:]
    finally:
        for process in started:
            process.kill()
            process.wait()
    with ocp.CheckpointManager(folder) as manager:
        assert_bitwise(orbax.restore(manager, 0, CONFIG), population())


def test_the_examples_of_its_docstrings_run() -> None:
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder(exclude_empty=True).find(orbax, globs={}):
        runner.run(example)
    assert runner.summarize() == doctest.TestResults(failed=0, attempted=runner.tries)
    assert runner.tries > 0
