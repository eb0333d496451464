"""Two processes of two devices each, on this machine, give what one process of four devices gives."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policy_core as pc

ROOT = Path(__file__).parent.parent
SECONDS = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(folder: Path, processes: int) -> list[Any]:
    """What each process found: (arrays, answers). All are ended, by their ids, when one fails or time is up."""
    folder.mkdir()
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    env = {**os.environ, "XLA_FLAGS": " ".join(flags), "PYTHONPATH": str(ROOT)}
    port, started = str(free_port()), []
    logs = [folder / f"{rank}.log" for rank in range(processes)]
    try:
        for rank, log in enumerate(logs):
            arguments = [str(folder), str(rank), str(processes), port]
            command = [sys.executable, str(ROOT / "tests/on_hosts.py"), *arguments]
            with log.open("w") as out:
                started.append(subprocess.Popen(command, env=env, cwd=folder, stdout=out, stderr=out))
        end = time.monotonic() + SECONDS
        while any(process.poll() is None for process in started):
            failed = any(process.poll() for process in started)
            if failed or time.monotonic() > end:
                why = "a process failed" if failed else f"not done after {SECONDS} seconds"
                pytest.fail("\n".join([why, *(log.read_text()[-3000:] for log in logs)]))
            time.sleep(0.05)
        assert [process.returncode for process in started] == [0] * processes, logs[0].read_text()
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()
    return [
        (dict(np.load(folder / f"{rank}.npz")), json.loads((folder / f"{rank}.json").read_text()))
        for rank in range(processes)
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any], Any]:
    folder = tmp_path_factory.mktemp("hosts")
    two, [one] = run(folder / "two", 2), run(folder / "one", 1)
    return folder / "two", two, one


def part(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(name): leaf for key, leaf in arrays.items() if key.startswith(name + "[")} or {
        "": arrays[name]
    }


def assert_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 0) -> None:
    assert set(got) == set(expected)
    for name, leaf in got.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_two_processes_train_and_exploit_as_one_does(runs: Any) -> None:
    _, two, (one, alone) = runs
    assert [found["devices"] for _, found in (*two, (one, alone))] == [4, 4, 4]
    assert [found["local"] for _, found in (*two, (one, alone))] == [2, 2, 4]
    for arrays, found in two:
        assert_close(arrays, one, 1e-6)
        assert found["numpy"]
        assert found["keys"]
    assert_close(two[0][0], two[1][0])  # every process has the same bits


def test_members_cross_processes(runs: Any) -> None:
    _, two, _ = runs
    arrays, _ = two[0]
    source = arrays["source"]
    assert source.tolist() != list(range(8))
    worst = np.argsort(arrays["returns"])[:2]
    assert set(np.flatnonzero(source != np.arange(8))) == set(worst)
    assert any(source[i] // 4 != i // 4 for i in worst)  # from the devices of the other one
    before, full = part(arrays, "before"), part(arrays, "full")
    assert_close(full, {name: leaf[source] for name, leaf in before.items()})
    assert_close(part(arrays, "member"), {name: leaf[7] for name, leaf in full.items()})
    replaced = {name: leaf[[5, *range(1, 8)]] for name, leaf in full.items()}
    assert_close(part(arrays, "replaced"), replaced)


def test_what_one_process_saves_all_load_and_go_on_with(runs: Any) -> None:
    folder, two, _ = runs
    for arrays, _ in two:
        assert_close(part(arrays, "loaded"), part(arrays, "full"))
        assert_close(part(arrays, "further"), part(arrays, "straight"))
    assert pc.verify(folder / "population").deviation < 1e-5
    saved = pc.load_extra(folder / "population", np.zeros(8, np.float32))
    np.testing.assert_array_equal(saved, two[0][0]["rates"])


def test_an_array_of_several_processes_is_not_saved(runs: Any) -> None:
    folder, two, (_, alone) = runs
    gather = "spans 2 processes; call policy_core.population.gather on all of them, and save"
    for _, found in two:
        assert found["save"].startswith(f"FileError: params: the leaf 'actor/head/bias' {gather}")
        assert found["extra"].startswith(f"FileError: extra: the leaf '' {gather}")
    assert alone["save"] == alone["extra"] == "no error"
    assert not (folder / "global").exists()


def test_other_configs_on_other_processes_are_named(runs: Any) -> None:
    _, two, (_, alone) = runs
    for _, found in two:
        first, *table = found["configs"].splitlines()
        assert first == "FingerprintError: config: process 1 has another config than process 0"
        rows = [["field", "process", "1", "process", "0"], ["activation", "'relu'", "'tanh'"]]
        assert [line.split() for line in table] == rows
    assert alone["configs"] == "no error"
