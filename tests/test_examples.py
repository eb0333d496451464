"""The commands of `examples/`: an error that a user causes is one line, with exit code 2."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cases
import command
import demo
import evaluate
import experiments
import jax
import numpy as np
import pytest

import policy_core as pc

ROOT = Path(__file__).parent.parent
KEY = jax.random.key(0)


def run(main: Any, monkeypatch: Any, capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["example.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended, jax.numpy_dtype_promotion("standard"):  # as gymnax needs it
        command.run(main)
    return ended.value.code, *capsys.readouterr()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    small = {"actor": pc.MLP((4,)), "critic": None}
    cartpole = pc.Box(low=-3.0, high=3.0, shape=(4,)), pc.Discrete(2)
    for name, (seen, acts) in {
        "right": cartpole,
        "sees-more": (pc.Box(shape=(5,)), cartpole[1]),
        "acts-more": (cartpole[0], pc.Discrete(3)),
    }.items():
        config = cases.config(acts, observation_space=seen, **small)
        pc.save(folder / name, pc.init(config, key=KEY), self_test=False)
        if name == "right":
            keys = jax.random.split(KEY, (2, 3))
            many = jax.vmap(jax.vmap(lambda key: pc.init(config, key=key)))(keys)
            pc.save(folder / "many", many, self_test=False)
    (folder / "text").write_text("no policy\n" * 99)
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "No such file or directory"),
        (["text"], "not a policy file"),
        (["."], "Is a directory"),
        (["right", "--env", "CartPole-v0"], "gymnax has no 'CartPole-v0'; there are CartPole-v1"),
        (["right", "--env", "?"], "gymnax has no '?'; there are CartPole-v1, Pendulum-v1"),
        (["sees-more"], "the policy observes Box"),
        (["acts-more"], "the policy acts in Discrete(n=3, start=0), and CartPole-v1 has Discrete(n=2"),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated_is_said_in_one_line(arguments, message, folder, monkeypatch, capsys):
    file, *more = arguments
    code, out, error = run(evaluate.main, monkeypatch, capsys, folder / file, *more)
    assert (code, out) == (2, "")
    assert len(error.splitlines()) == 1
    assert error.startswith("example.py: ")
    assert message in error


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (
            demo.main,
            ["--env", "gim:CartPole-v1"],
            "--env: got the package 'gim', expected one of gymnax, gymn",
        ),
        (
            demo.main,
            ["--env", "gymnasium:CartPole-v9"],
            "--env: gymnasium:CartPole-v9: Environment version `v9`",
        ),
        (demo.main, ["--env", "Cartpole"], "gymnax has no 'Cartpole'; there are CartPole-v1"),
        (demo.main, ["--seeds", "0"], "argument --seeds: got 0, expected at least 1"),
        (demo.main, ["--updates", "many"], "argument --updates: invalid positive value: 'many'"),
        (evaluate.main, ["file", "--episodes", "-1"], "argument --episodes: got -1, expected at least 1"),
        (evaluate.main, [], "the following arguments are required: file"),
    ],
    ids=lambda value: value.__module__ if callable(value) else str(value),
)
def test_a_wrong_argument_is_named(main, arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, error = run(main, monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in error.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_said_in_one_line(folder, monkeypatch, capsys):
    code, _, error = run(demo.main, monkeypatch, capsys, "--out", folder / "text" / "inside")
    assert code == 2
    assert "Not a directory" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(("file", "count"), [("right", 1), ("many", 6)])
def test_a_file_plays_and_a_target_that_is_missed_is_no_error(file, count, folder, monkeypatch, capsys):
    short = [folder / file, "--episodes", "2", "--max-steps", "3"]
    code, out, error = run(evaluate.main, monkeypatch, capsys, *short, "--target", "4")
    assert (code, error) == (1, "")
    assert out.count("3.0") == count + 1
    assert "MISSED (3.0)" in out
    assert run(evaluate.main, monkeypatch, capsys, *short, "--target", "3")[0] == 0


@pytest.mark.parametrize("name", ["demo", "evaluate", "memory", "results"])
def test_missing_packages_are_named_before_anything_is_imported(name):
    """Of the command as it is called, in a process without two of them."""
    script = f"""
import importlib.util, runpy, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("optax", "rich") else found(name, *rest)
sys.argv = ["examples/{name}.py"]
sys.path.insert(0, "examples")
runpy.run_path("examples/{name}.py", run_name="__main__")
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (2, "")
    expected = f"examples/{name}.py: optax, rich cannot be imported; pip install -e '.[demo]', or make demo\n"
    assert result.stderr == expected


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_demo_passes_the_environment_on():
    for environment, extras in (("gymnasium:CartPole-v1", {"demo", "gymnasium"}), ("Catch-bsuite", {"demo"})):
        command = ["make", "--no-print-directory", "--dry-run", "VENV=nowhere", "demo", f"ENV={environment}"]
        lines = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert lines[-1] == f"nowhere/bin/python examples/demo.py --env {environment}"
        assert {
            extra for extra in ("demo", "gymnasium") if any(f".[{extra}]" in line for line in lines)
        } == extras


def test_every_command_is_run_so():
    commands = [path for path in (ROOT / "examples").glob("*.py") if "__main__" in path.read_text()]
    assert {path.stem for path in commands} >= {"demo", "evaluate", "memory", "results"}
    assert [path.stem for path in commands if "command.run(main)" not in path.read_text()] == []


@pytest.mark.parametrize("name", ["results", "memory"])
def test_a_page_tells_every_task(name: str) -> None:
    """It is written once everything is trained, so it must not fail then."""
    module = importlib.import_module(name)
    found = [
        experiments.Result(task, np.array([1024]), np.zeros((2, 1)), np.full((2, 3), 7.5), 1.25, 60.0)
        for task in module.TASKS.values()
    ]
    write = module.page if name == "results" else module.section
    text = write(found, "curves.png")
    for task in module.TASKS.values():
        assert f"| {task.title} | {task.what} | 1,024 |" in text
        if name == "results":
            assert all(f"`{field}={type(value).__name__}(" in text for field, value in task.fields.items())
