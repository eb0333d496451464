"""The benchmark of tasks: what a worker prints, what is planned, and the page from a small made-up file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ppo
import pytest

from benchmarks import hosts
from benchmarks.tasks import __main__ as command
from benchmarks.tasks import page, settings
from benchmarks.tasks.record import Seed
from benchmarks.tasks.settings import CONTESTANTS, LERAX, OURS, PLAIN, PUREJAXRL, REJAX, SAME, SB3, TASKS

ROOT = Path(__file__).parent.parent


def line(contestant: str, task: str, seed: int, final: float | None, seconds: float = 2.0) -> dict[str, Any]:
    """What a worker prints for a seed, made up."""
    return {
        "contestant": contestant,
        "task": task,
        "seed": seed,
        "steps": TASKS[task].steps,
        "final": final,
        "curve": [None, 1.0 if final is None else final / 2, final],
        "seconds": seconds,
        "compile": 5.0,
        "versions": {"python": "3.12", "jax": "0.11"},
        "machine": "a processor",
    }


def worker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The worker as the benchmark starts it."""
    paths = (str(ROOT), str(ROOT / "adapters"), str(ROOT / "examples"))
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.tasks.worker", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_our_worker_prints_what_the_page_reads():
    pytest.importorskip("gymnax", reason="gymnax is not installed: make test-more")
    done = worker("--contestant", OURS, "--task", "Catch-bsuite", "--seeds", "3", "4", "--steps", "2048")
    assert done.returncode == 0, done.stderr
    found = [json.loads(text) for text in done.stdout.splitlines()]
    assert [record["seed"] for record in found] == [3, 4]
    assert set(line(OURS, "Catch-bsuite", 0, 0.0)) <= set(found[0])
    for record in found:
        assert record["steps"] == 2048
        assert -1 <= record["final"] <= 1
        assert record["compile"] > 0 < record["seconds"]
        assert record["versions"]["jax"] == jax.__version__
    assert found[0]["curve"] != found[1]["curve"]
    cells, missing = page.read(found)
    assert len(cells["Catch-bsuite", OURS].finals) == 2
    assert not missing


def test_a_contestant_that_is_not_installed_is_a_line_and_a_point_of_the_page(tmp_path, capsys):
    done = worker("--contestant", PUREJAXRL, "--task", "CartPole-v1", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["contestant"] == PUREJAXRL
    assert "not installed" in told["missing"] or "--purejaxrl" in told["missing"]

    parser: Any = type("Options", (), {"contestant": [PUREJAXRL], "task": None, "seeds": 1})
    runner = command.Runner(tmp_path / "runs.jsonl", parser)
    runner.add(told)
    runner.add(told)
    assert command.lines(tmp_path / "runs.jsonl") == [told]  # once
    assert f"{PUREJAXRL} is left out" in capsys.readouterr().out

    text = page.page([line(OURS, "CartPole-v1", 0, 500.0), told], "tasks.png")
    assert f"- {PUREJAXRL}: {told['missing']}." in text
    later = [line(OURS, "CartPole-v1", 0, 500.0), told, line(PUREJAXRL, "CartPole-v1", 0, 400.0)]
    assert told["missing"] not in page.page(later, "tasks.png")


def test_the_page_has_what_the_file_has_and_hides_no_defeat():
    lines = [line(OURS, "CartPole-v1", seed, 300.0 + 2 * seed, 4.0) for seed in range(3)]
    lines += [line(REJAX, "CartPole-v1", seed, 400.0 + 2 * seed, 2.0) for seed in range(3)]
    lines += [line(OURS, "Pendulum-v1", seed, -150.0 - seed, 1.0) for seed in range(2)]
    lines += [line(SB3, "Pendulum-v1", seed, -400.0 - seed, 9.0) for seed in range(2)]
    slow = [line(OURS, "CartPole-v1", 0, 300.0, 6.0), line(REJAX, "CartPole-v1", 0, 150.0, 2.0)]
    assert "- policy_core on CartPole-v1: rejax, 3.0 (reached in 4.0 s)\n" in page.page(slow, "tasks.png")
    lines += [line(PLAIN, "Pendulum-v1", 0, None)]
    text = page.page(lines, "tasks.png")
    assert "| CartPole-v1 | 204,800 | 302 (1; 3) |  | **402** (1; 3) |  |" in text
    assert "| **-150** (0; 2) | nan (1, of 1 no episode ended) |  | -400 (0; 2) |" in text
    assert (
        "Below by more than that:\n\n- policy_core on CartPole-v1: rejax, by 61.2 standard errors\n\nProc"
        in text
    )
    assert "in 1 of 2 cases,\n" in text
    assert "return:\n\n- policy_core on CartPole-v1: rejax, 2.0 (not reached)\n\n" in text
    assert "| CartPole-v1 | 4.0 + 5 |  | 2.0 + 5 |  |" in text
    assert "- rejax, RepeatPrevious: its PPO has no memory." in text
    assert "- rejax, Acrobot-v1, Catch-bsuite" in text  # not run
    assert "- policy_core, CartPole-v1: only 3 of 10 seeds were run." in text
    assert "- Lerax, CartPole-v1" in text
    assert "| rejax | CartPole-v1 | configs/gymnax/cartpole.yaml | 5 |" in text
    assert "its car | 4 |" not in text
    afar = {**line(REJAX, "CartPole-v1", 0, 150.0, 2.0), "machine": "another"}
    moved = page.page([line(OURS, "CartPole-v1", 0, 300.0, 6.0), afar], "tasks.png")
    assert "| CartPole-v1 | 6.0 + 5 | 2.0 + 5 (elsewhere) |" in moved
    assert "the other's final return:\n\n- nowhere\n" in moved
    for name in ("policy_core, rejax", "a processor; python 3.12, jax 0.11"):
        assert name in text


def test_the_section_is_replaced_and_the_rest_of_the_page_kept(tmp_path):
    pytest.importorskip("matplotlib")
    file, picture = tmp_path / "results.md", tmp_path / "tasks.png"
    file.write_text("# Results\n\nfirst\n\n## The defaults\n\nkept\n")
    for final in (100.0, 200.0):
        page.write([line(OURS, "CartPole-v1", seed, final) for seed in range(2)], file, picture)
    text = file.read_text()
    assert text.startswith("# Results\n\nfirst\n\n## The defaults\n\nkept\n\n## Against other trainers\n")
    assert text.count("## Against") == 1
    assert "**200** (0; 2)" in text
    assert picture.stat().st_size > 10_000
    with pytest.raises(ValueError, match="got no seed, expected some"):
        page.write([], file, picture)


def test_finals_are_of_the_last_tenth_or_of_the_last_that_ended():
    returned, episodes = np.zeros(20), np.zeros(20, int)
    returned[18], episodes[18] = 6.0, 3
    returned[10], episodes[10] = 5.0, 1
    assert Seed(0, 1, returned, episodes, 1.0, 1.0).final() == 2.0
    episodes[18] = 0
    assert Seed(0, 1, returned, episodes, 1.0, 1.0).final() == 5.0
    episodes[10] = 0
    assert Seed(0, 1, returned, episodes, 1.0, 1.0).final() is None
    assert Seed(0, 1, returned, episodes, 1.0, 1.0).curve() == [None] * 20


def test_only_what_is_missing_is_planned(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(line(REJAX, "CartPole-v1", 1, 1.0)) + "\n")
    options: Any = type("Options", (), {"contestant": [REJAX, OURS], "task": ["CartPole-v1"], "seeds": 3})
    jobs = command.Runner(path, options).jobs
    assert jobs == [(OURS, "CartPole-v1", (0, 1, 2)), (REJAX, "CartPole-v1", (0, 2))]
    everything = list(command.plan(list(CONTESTANTS), list(TASKS)))
    for contestant in CONTESTANTS:
        for task in TASKS:
            setting = settings.of(contestant, task)
            seeds = [seed for job in everything if job[:2] == (contestant, task) for seed in job.seeds]
            left_out = isinstance(setting, settings.LeftOut)
            assert seeds == [] if left_out else seeds == list(range(setting.seeds or TASKS[task].seeds))
    same = settings.of(SAME, "Breakout-MinAtar")
    assert isinstance(same, settings.Setting)
    hyper = ppo.Hyperparameters(**same.fields)
    assert (hyper.learning_rate, hyper.num_envs, hyper.num_epochs, same.config) == (5e-3, 64, 4, "relu")
    assert (hyper.discount, hyper.entropy_coefficient, hyper.clip_range) == (0.99, 0.01, 0.2)
    for contestant in (OURS, PLAIN):
        setting = settings.of(contestant, "Pendulum-v1")
        assert isinstance(setting, settings.Setting)
        assert settings.epochs(contestant, setting) == ppo.Hyperparameters(**setting.fields).num_epochs
    with pytest.raises(KeyError, match="got 'x' on 'CartPole-v1'"):
        settings.of("x", "CartPole-v1")


def test_repeat_previous_is_worth_1_to_who_remembers_and_less_to_others():
    gymnax = pytest.importorskip("gymnax", reason="gymnax is not installed: make test-more")
    assert gymnax
    from benchmarks.tasks import environments

    env, params = environments.make("RepeatPrevious")

    def episode(key: jax.Array, lag: int) -> Any:
        observation, state = env.reset(key, params)

        def step(carry: Any, _: None) -> Any:
            state, seen = carry
            observation, state, reward, terminated, truncated, _info = env.step(key, state, seen[lag], params)
            seen = jnp.concatenate([jnp.argmax(observation)[None], seen[:-1]])
            return (state, seen), (reward, terminated | truncated)

        start = state, jnp.concatenate([jnp.argmax(observation)[None], jnp.zeros(4, int)])
        _, (reward, done) = jax.lax.scan(step, start, None, environments.CARDS)
        return reward.sum(), done

    keys = jax.random.split(jax.random.key(0), 50)
    for lag, expected, within in ((4, 1.0, 1e-5), (0, -0.5, 0.1), (3, -0.5, 0.1)):
        total, done = jax.vmap(lambda key, lag=lag: episode(key, lag))(keys)
        assert float(total.mean()) == pytest.approx(expected, abs=within)
        assert bool(done[:, -1].all())
        assert not bool(done[:, :-1].any())


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a first line that names Python")
def test_a_run_keeps_what_is_done_and_names_what_failed_or_was_ended(tmp_path, capsys):
    script, path = tmp_path / "python", tmp_path / "runs.jsonl"
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys, time\n"
        "task, first = sys.argv[sys.argv.index('--task') + 1], int(sys.argv[sys.argv.index('--seeds') + 1])\n"
        f"line = {line(LERAX, 'CartPole-v1', 0, 20.0)!r}\n"
        "print('not a line of JSON')\n"
        "print(json.dumps({**line, 'task': task, 'seed': first}), flush=True)\n"
        "if task == 'Acrobot-v1': sys.exit('the reason')\n"
        "if task == 'Pendulum-v1': time.sleep(60)\n"
    )
    script.chmod(0o755)
    options: Any = type(
        "Options",
        (),
        {
            "contestant": [LERAX], "task": ["CartPole-v1", "Acrobot-v1", "Pendulum-v1"], "seeds": 2, "steps": None,
            "cores": 1, "budget": 1e9, "stop": 8.0, "purejaxrl": None, "lerax": script,
        },
    )  # fmt: skip
    runner = command.Runner(path, options)
    runner.run()
    assert {(record["task"], record["seed"]) for record in command.lines(path)} == {
        ("CartPole-v1", 0), ("Acrobot-v1", 0), ("Pendulum-v1", 0),
    }  # fmt: skip
    assert runner.failed == ["Lerax on Acrobot-v1: the reason"]
    assert runner.unfinished == [(LERAX, "Pendulum-v1", (1,))]
    assert "the reason" in capsys.readouterr().err
    again = command.Runner(path, options)
    assert [job.seeds for job in again.jobs] == [(1,)] * 3
    options.budget = -1.0
    again.run()
    assert len(again.unfinished) == 3
    options.cores = 10_000
    with pytest.raises(SystemExit, match="--cores: got 10000, expected at most"):
        command.Runner(path, options).run()


# IN THE TRAINERS OF OTHERS -----------------------------------------------------------------------


def in_host(host: str, network: str, seed: int, final: float) -> dict[str, Any]:
    """A line of the file of `benchmarks.hosts`, made up."""
    return {
        "host": host,
        "network": network,
        "seed": seed,
        "final": final,
        "seconds": 1.5,
        "versions": {"jax": "0.11"},
    }


def test_the_section_of_trainers_has_differences_with_their_errors():
    lines = [in_host(REJAX, hosts.OWN, seed, 400.0 + 2 * seed) for seed in range(3)]
    lines += [in_host(REJAX, hosts.ALIKE, seed, 300.0 + 2 * seed) for seed in range(3)]
    lines += [in_host(REJAX, hosts.DEFAULTS, 0, 100.0), in_host(PUREJAXRL, hosts.OWN, 0, 1.0)]
    text = hosts.page(lines)
    row = next(x for x in text.splitlines() if x.startswith("| PPO of 0.1.3"))
    assert row.endswith("| 402.0 (1.2; 3) | 302.0 (1.2; 3) | -100.0 (1.6) |  |  | 1.50, 1.50, 1.50 |")
    assert "| 1.0" not in text
    assert "- PureJaxRL: jax 0.11\n- rejax: jax 0.11\n" in text
    with pytest.raises(ValueError, match="got no seed, expected some"):
        hosts.page([])


def test_a_seed_is_trained_in_rejax_with_our_network(monkeypatch, tmp_path):
    pytest.importorskip("rejax", reason="rejax is not installed: make test-more")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        monkeypatch.setattr(hosts, "TASK", TASKS["CartPole-v1"]._replace(steps=1000))
        monkeypatch.setattr(
            sys, "argv", ["hosts", "--host", REJAX, "--seeds", "1", "--runs", str(tmp_path / "runs")]
        )
        hosts.main()
        hosts.main()  # nothing is missing
    found = command.lines(tmp_path / "runs")
    assert [line["network"] for line in found] == [hosts.OWN, hosts.ALIKE, hosts.DEFAULTS]
    assert len({line["final"] for line in found}) == 3
    assert all(9 < line["final"] < 100 for line in found)
