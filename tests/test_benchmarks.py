"""What the benchmarks and the examples share, and the comparison of the defaults: its schedule and its page."""

import json
import math
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policy_core as pc
from benchmarks.defaults import page, plan, prose, runs, schedule, settings, train
from benchmarks.table import section

PAGE = "# Page\n\nfirst\n\n## One\n\nof one\n\n### Deeper\n\nmore\n\n## Two\n\nof two\n"


def test_a_section_ends_at_the_next_heading_of_its_level():
    assert section(PAGE, "One") == "\n## One\n\nof one\n\n### Deeper\n\nmore\n"
    assert section(PAGE, "Two") == "\n## Two\n\nof two\n"
    assert section(PAGE, "Deeper") == section(PAGE, "Tw") == ""
    assert PAGE.replace(section(PAGE, "One"), "") == "# Page\n\nfirst\n\n## Two\n\nof two\n"


def test_params_as_of_equinox_are_uniform_and_nothing_else_is_redrawn():
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(4,)),
        action_space=pc.Box(low=-1.0, high=1.0, shape=(2,)),
        normalize=pc.Normalize(),
        **settings.NETWORKS[settings.LERAX_OWN],
    )
    before = config.init(key=jax.random.key(0))
    after = settings.as_equinox(before, jax.random.key(1))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    checked = 0
    for (path, old), new in zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True):
        name = path[-1].key
        if name not in ("kernel", "bias"):
            np.testing.assert_array_equal(old, new)
            continue
        layer = before
        for key in path[:-1]:
            layer = layer[key.key]
        bound = 1 / math.sqrt(layer["kernel"].shape[0])
        assert float(jnp.abs(new).max()) <= bound
        if new.size >= 64:
            assert float(jnp.std(new)) == pytest.approx(bound / math.sqrt(3), rel=0.2)
        checked += 1
    assert checked == 2 * (3 + 3 + 3)


# THE SCHEDULE --------------------------------------------------------------------------------

ONE, TWO = ("PureJaxRL, Catch", settings.DEFAULTS), ("PureJaxRL, Catch", settings.ORTHOGONAL)


def test_only_missing_seeds_are_trained_in_equal_parts_that_are_short_enough():
    line = json.dumps({"setting": ONE[0], "network": ONE[1], "first": 10, "seeds": 5})
    there = schedule.covered([line, line.replace("10", "30")])
    assert there == {ONE: {*range(10, 15), *range(30, 35)}}
    wanted = [schedule.Wanted((ONE,), range(40), start=10.0, seed=5.0)]
    found = schedule.batches(wanted, there, longest=50.0)  # 8 seeds at most
    assert [batch.seeds for batch in found] == [
        range(5), range(5, 10), range(15, 23), range(23, 30), range(35, 40),
    ]  # fmt: skip
    assert [batch.seconds for batch in found] == [35.0, 35.0, 50.0, 45.0, 35.0]
    assert schedule.batches(wanted, {ONE: set(range(40))}) == []


def test_a_seed_that_takes_longer_than_a_batch_may_is_a_batch():
    found = schedule.batches([schedule.Wanted((ONE,), range(2), start=10.0, seed=90.0)], {}, longest=60.0)
    assert [batch.seeds for batch in found] == [range(1), range(1, 2)]


def test_cells_of_one_program_are_trained_together_where_one_of_them_is_missing():
    wanted = [schedule.Wanted((ONE, TWO), range(4), "gpu", 60.0, 1000.0)]
    (batch,) = schedule.batches(wanted, {ONE: set(range(4)), TWO: {0, 1}})
    assert batch.cells == (ONE, TWO)
    assert batch.seeds == range(2, 4)
    (whole,) = schedule.batches(wanted, {})
    assert whole.seeds == range(4)  # no part of it is for a GPU, however long it takes


def test_the_most_important_batch_that_ends_in_time_is_next():
    waiting = [schedule.Batch((ONE,), range(1), device, s) for device, s in
               (("cpu", 50.0), ("gpu", 20.0), ("cpu", 30.0), ("cpu", 20.0))]  # fmt: skip
    assert schedule.next_batch(waiting, "cpu", 60.0) == 0
    assert schedule.next_batch(waiting, "cpu", 40.0) == 2
    assert schedule.next_batch(waiting, "cpu", 40.0, pace=1.5) == 3
    assert schedule.next_batch(waiting, "cpu", 10.0) is None
    assert schedule.next_batch(waiting, "gpu", 60.0) == 1
    assert schedule.pace_of([]) == 1.0
    assert schedule.pace_of([(10.0, 20.0), (60.0, 20.0), (30.0, 20.0)]) == 1.5


def test_the_plan_has_fifty_seeds_of_each_cell_and_one_network_in_each_program():
    for wanted in [*plan.on_cpus(), *plan.on_gpus()]:
        for setting, network in wanted.cells:
            assert network in settings.EVERYTHING[setting][1]
        train.varied([settings.EVERYTHING[setting][0].rule for setting, _ in wanted.cells])
    seeds = {cell: len(wanted.seeds) for wanted in plan.on_cpus() for cell in wanted.cells}
    small = (*settings.HOSTS, "rejax, Acrobot", "PureJaxRL, Catch", "ours, Pendulum")
    shapes = (settings.RELU, settings.SILU, settings.WIDER, settings.DEEPER, settings.TRUNK)
    assert all(seeds[setting, network] >= 50 for setting in small for network in (settings.DEFAULTS, *shapes))


def test_what_batches_print_is_kept_and_what_fails_or_takes_too_long_is_told(tmp_path, monkeypatch, capfd):
    line = json.dumps({"curves": [[1.0, 2.0], [1.0, 4.0]], "seconds": 0.5})
    what = {0: f"print({line!r})", 1: "raise SystemExit('this went wrong')", 2: "import time; time.sleep(60)"}
    monkeypatch.setattr(
        schedule, "command", lambda batch, steps: [sys.executable, "-c", what[batch.seeds.start]]
    )
    waiting = [schedule.Batch((ONE,), range(i, i + 1), "cpu", 0.1) for i in what]
    out = tmp_path / "runs.jsonl"
    out.write_text("before\n")
    begun = time.monotonic()
    assert schedule.train_all(waiting, out, cores=1, gpu_processes=0, budget=8.0) == 1
    assert time.monotonic() - begun < 40
    assert out.read_text() == f"before\n{line}\n"
    printed, errors = capfd.readouterr()
    assert "3.0 in 0.50 s" in printed
    assert "failed with 1" in printed
    assert "1 batches of 3 ended well, 1 failed, 0 were not begun" in printed
    assert "the time is over" in printed
    assert "this went wrong" in errors


def test_an_interruption_leaves_no_process_behind(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        schedule, "command", lambda batch, steps: [sys.executable, "-c", "import time; time.sleep(60)"]
    )
    spawn = schedule.spawn
    monkeypatch.setattr(schedule, "spawn", lambda *args: started.append(spawn(*args)) or started[-1])

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedule.time, "sleep", interrupted)
    waiting = [schedule.Batch((ONE,), range(1), "cpu", 0.1)]
    with pytest.raises(KeyboardInterrupt):
        schedule.train_all(waiting, tmp_path / "runs.jsonl", cores=1, gpu_processes=0, budget=60.0)
    (run,) = started
    assert run.process.returncode == -signal.SIGKILL


# ONE PROGRAM OF MANY RULES -------------------------------------------------------------------


def test_rules_that_differ_in_options_are_arrays_and_in_shapes_an_error():
    host = settings.HOSTS[0]
    names = [host, settings.arm(host, "gradient clipped"), settings.arm(host, "Adam's epsilon")]
    found = train.varied([settings.EVERYTHING[name][0].rule for name in names])
    assert set(found) == {"clip_entries", "adam_eps"}
    assert found["clip_entries"].tolist() == [False, True, False]
    np.testing.assert_allclose(found["adam_eps"], [1e-5, 1e-5, 1e-8])
    with pytest.raises(ValueError, match=r"rules: they differ in num_envs, num_steps.* one program"):
        train.varied([settings.PUREJAXRL, settings.REJAX])


def test_each_option_is_changed_alone_and_back():
    for host in settings.HOSTS:
        for option, values in settings.OPTIONS.items():
            before = settings.SETTINGS[host]
            after = settings.other(before, option)
            changed = {n for n in before.rule._fields if getattr(before.rule, n) != getattr(after.rule, n)}
            assert changed == set(values[0])
    all_of_rejax = settings.ARMS[settings.ALL_OF_REJAX].rule
    assert all_of_rejax[4:] == settings.REJAX[4:]
    assert all_of_rejax[:4] == settings.PUREJAXRL[:4]


@pytest.mark.parametrize("clip_entries", [False, True])
@pytest.mark.parametrize("annealed", [False, True])
def test_an_optimizer_of_traced_options_moves_as_that_of_constants(clip_entries, annealed):
    rule = settings.PUREJAXRL._replace(clip_entries=clip_entries, annealed=annealed, adam_eps=1e-3)
    params = {"a": jnp.array([1.0, -2.0, 3.0]), "b": jnp.ones(2)}

    def moved(rule):
        optimizer = train.make_optimizer(rule, 2, lambda params: {"a": True, "b": False})
        now, state = params, optimizer.init(params)
        for scale in (1.0, 0.1, 3.0):
            gradient = jax.tree.map(lambda x: scale * x, params)
            change, state = optimizer.update(gradient, state, now)
            now = jax.tree.map(jnp.add, now, change)
        return now

    names = ("clip_entries", "annealed", "adam_eps", "learning_rate")
    options = {name: jnp.asarray(getattr(rule, name)) for name in names}
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
        traced = jax.jit(lambda options: moved(rule._replace(**options)))(options)
        constant = moved(rule)
        other = moved(rule._replace(clip_entries=not clip_entries))
    np.testing.assert_allclose(traced["a"], constant["a"], rtol=1e-6)
    np.testing.assert_array_equal(traced["b"], params["b"])
    assert float(jnp.abs(other["a"] - constant["a"]).max()) > 1e-5


def test_networks_that_compute_different_things_are_no_program():
    space = {"observation_space": pc.Box(shape=(4,)), "action_space": pc.Discrete(2)}
    networks = (settings.DEFAULTS, settings.ORTHOGONAL, settings.REJAX_OWN, settings.RELU)
    *same, relu = [pc.ActorCriticConfig(**space, **settings.NETWORKS[name]) for name in networks]
    train.check_one_network(same)
    with pytest.raises(ValueError, match="compute different things"):
        train.check_one_network([*same, relu])


# THE PAGE ------------------------------------------------------------------------------------

CATCH, CARTPOLE = "PureJaxRL, Catch", "rejax, CartPole"
QUIET = {"device": "cpu", "processor": "quiet", "jax": "1.0", "compile": 1.0}
GPU = {**QUIET, "device": "gpu", "processor": "fast"}


def made_up(path, cells):
    """A file of runs: (setting, network, first seed, mean of the end, seconds, about).

    The two seeds of a batch end one above and one below; curves rise by a twentieth of the end.
    """
    lines = []
    for setting, network, first, end, seconds, about in cells:
        curves = [[(end + by) * (i + 1) / 20 for i in range(20)] for by in (-1.0, 1.0)]
        batch = {"setting": setting, "network": network, "first": first, "seeds": 2}
        lines.append(json.dumps({**batch, "seconds": seconds, "curves": curves, **about}))
    path.write_text("\n".join(lines))
    return path


def few_runs(path):
    return made_up(
        path,
        [
            (CATCH, settings.DEFAULTS, 0, 100.0, 1.0, QUIET),
            (CATCH, settings.DEFAULTS, 2, 100.0, 0.001, GPU),
            (CATCH, settings.WIDER, 0, 160.0, 2.0, QUIET),
            (CATCH, settings.RELU, 0, 160.0, 1.0, QUIET),
            (CATCH, settings.TRUNK, 1000, 160.0, 0.001, GPU),
            (CARTPOLE, settings.DEFAULTS, 0, 400.0, 3.0, {}),  # of another processor
            (CARTPOLE, settings.DEFAULTS, 2, 400.0, 1.0, QUIET),
            (CARTPOLE, settings.DEFAULTS, 4, 400.0, 1.0, QUIET),
            (CARTPOLE, settings.WIDER, 0, 402.0, 2.0, QUIET),
            (CARTPOLE, settings.RELU, 0, 300.0, 1.5, {}),
            (CARTPOLE, settings.ORTHOGONAL, 0, 350.0, 1.0, QUIET),
            (CARTPOLE, settings.LECUN, 0, 400.0, 1.0, QUIET),
        ],
    )


def test_runs_of_a_cell_are_one_and_times_are_those_of_equal_processors(tmp_path):
    cells = runs.read(few_runs(tmp_path / "runs.jsonl"))
    defaults = cells[CATCH, settings.DEFAULTS]
    assert defaults.curves.shape == (4, 20)
    assert defaults.seconds == {("quiet", "1.0"): (1.0, 2)}  # without those of the GPU
    assert cells[CATCH, settings.TRUNK].time_in(defaults) is None
    assert page.times(cells, settings.WIDER) == {CARTPOLE: 2.0, CATCH: 2.0}
    assert page.times(cells, settings.RELU) == {CARTPOLE: 0.5, CATCH: 1.0}
    wider = cells[CATCH, settings.WIDER]
    assert wider.mean.value == pytest.approx(160 * 39 / 40)  # the last two of twenty points
    assert wider.mean.error == pytest.approx(39 / 40)  # one above and one below
    assert page.at_equal_time(cells, CATCH, settings.WIDER).value == pytest.approx(160 * 19 / 40)
    assert page.at_equal_time(cells, CATCH, settings.RELU).value == pytest.approx(160 * 39 / 40)
    assert page.at_equal_time(cells, CATCH, settings.TRUNK) is None
    shorter = (settings.shorter(CATCH, settings.WIDER), settings.WIDER)
    annealed = {**cells, shorter: cells[CATCH, settings.DEFAULTS]}
    assert page.at_equal_time(annealed, CATCH, settings.WIDER).value == pytest.approx(100 * 39 / 40)
    assert "98 (1; 4) at 31 %, annealed |" in page.equal_time_table(annealed)


def test_of_a_seed_that_was_trained_twice_the_later_curve_counts(tmp_path):
    path = made_up(
        tmp_path / "runs.jsonl",
        [(CATCH, settings.DEFAULTS, first, end, 1.0, QUIET) for first, end in ((0, 10.0), (1, 20.0))],
    )
    cell = runs.read(path)[CATCH, settings.DEFAULTS]
    np.testing.assert_allclose(cell.curves[:, -1], [9.0, 19.0, 21.0])


def test_where_kernels_are_the_same_a_cell_is_that_of_both_networks(tmp_path):
    breakout = settings.SAME_KERNELS[0]
    path = made_up(tmp_path / "runs.jsonl", [(breakout, settings.ORTHOGONAL, 0, 10.0, 1.0, QUIET)])
    cells = runs.read(path)
    np.testing.assert_array_equal(
        cells[breakout, settings.DEFAULTS].curves, cells[breakout, settings.ORTHOGONAL].curves
    )
    assert "2 on quiet" in prose.machines(cells)  # counted once
    towers = [settings.NETWORKS[name]["actor"] for name in (settings.DEFAULTS, settings.ORTHOGONAL)]
    for inputs in (400, 64):  # of an image of Breakout, of a GRU
        one, other = (tower.init(inputs, key=jax.random.key(0), dtype="float32") for tower in towers)
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_is_not_a_cell_is_an_error_with_its_line(tmp_path):
    path = made_up(tmp_path / "runs.jsonl", [(CATCH, "a better one", 0, 1.0, 1.0, QUIET)])
    with pytest.raises(ValueError, match=r"runs\.jsonl, line 1: there is no 'a better one' in 'PureJaxRL, C"):
        runs.read(path)


def test_the_page_marks_what_is_sure_and_chooses_by_equal_time(tmp_path):
    cells = runs.read(few_runs(tmp_path / "runs.jsonl"))
    rows = {line.split(" | ")[0]: line for line in page.returns_table(cells).splitlines()}
    assert rows[f"| {settings.DEFAULTS}"].endswith("| 390 (0; 6) | 98 (1; 4) | 1.00 |")
    assert "| 392 (1; 2) | **156** (1; 2) | 2.00 |" in rows[f"| {settings.WIDER}"]
    assert "| *292* (1; 2) | **156** (1; 2) | 0.75 |" in rows[f"| {settings.RELU}"]
    assert rows[f"| {settings.TRUNK}"].endswith("|  | **156** (1; 2) |  |")
    (row,) = page.equal_time_table(cells).splitlines()[2:]  # nothing else takes longer
    assert row == f"| {settings.WIDER} | *191* (0; 2) at 50 % | *76* (0; 2) at 50 % |"
    assert page.verdicts(cells, settings.WIDER) == ([CATCH], [], [], [CARTPOLE, CATCH])
    assert page.better(cells) == {}  # relu is below in CartPole, and what is wider at equal time
    text = prose.text(cells, "The defaults", "defaults.png")
    assert "**The defaults stay as they are.**" in text
    assert (
        "`orthogonal`, the defaults are for sure above it in 1 of 1 settings (rejax, CartPole), below in 0 (none)"
        in " ".join(text.split())
    )
    assert "16 on quiet, jax 1.0; 4 on two shared cores, jax 0.10.2; 4 on fast, jax 1.0." in text
    assert f"- {settings.SILU}: PureJaxRL, CartPole; rejax, CartPole; Lerax, CartPole;" in prose.missing(
        cells
    )
    assert f"- {settings.WIDER}: PureJaxRL, CartPole; rejax, Acrobot;" in prose.missing(
        cells
    )  # others are there
    without = {key: cell for key, cell in cells.items() if key != (CARTPOLE, settings.RELU)}
    assert page.better(without) == {settings.RELU: 1}
    assert "**The defaults stay as they are.**" in prose.choice(without)
    assert f"this is true of {settings.RELU} (1 of 2)." in prose.choice(without)
    both = {**cells, (CARTPOLE, settings.RELU): cells[CARTPOLE, settings.DEFAULTS]}
    assert page.better(both) == {settings.RELU: 2}
    assert f"**{settings.RELU}** is above the defaults in a setting" in prose.choice(both)


def test_the_table_of_options_has_changes_with_their_errors(tmp_path):
    host, option = settings.HOSTS[1], "gradient clipped"
    ends = {settings.LECUN: (400.0, 360.0), settings.ORTHOGONAL: (350.0, 358.0)}
    rows = [
        (name, network, 0, end, 1.0, GPU)
        for network, pair in ends.items()
        for name, end in zip((host, settings.arm(host, option)), pair, strict=True)
    ]
    cells = runs.read(made_up(tmp_path / "runs.jsonl", rows))
    *_, base, changed = page.options_table(cells).splitlines()
    assert base == f"| **{host}** | 390 (1; 2) |  | 341 (1; 2) |  | **+49** (1) |  |  |"
    assert changed.startswith("| gradient clipped: by its norm | 351 (1; 2) | **-39** (1) | 349 (1; 2) |")
    text = " ".join(prose.findings(cells).split())
    assert "it changes with gradient clipped: by its norm, +2 (1), a change of **-47** (2)." in text
    assert page.effects(cells, settings.LECUN)[option][host].value == pytest.approx(39)  # to each number
    elsewhere = {
        (settings.HOSTS[0], settings.LECUN): cells[host, settings.LECUN],
        (settings.arm(settings.HOSTS[0], option), settings.LECUN): cells[
            settings.arm(host, option), settings.LECUN
        ],
    }
    both = " ".join(prose.findings({**cells, **elsewhere}).split())
    told = "gradient clipped each number rather than by its norm: **-39** (1) in PureJaxRL, CartPole; **+39**"
    assert f"- **Helps in one and hurts in another:** {told} (1) in rejax, CartPole." in both
    only = {key: cell for key, cell in cells.items() if key[0] == host}
    assert page.options_table(only) == ""
    assert prose.options(only) == ""


def test_the_section_and_its_picture_are_written_in_place_of_the_old_ones(tmp_path):
    where, picture = tmp_path / "page.md", tmp_path / "picture.png"
    where.write_text("# Results\n\n## The defaults\n\nold\n\n## After\n\nkept\n")
    page.write(few_runs(tmp_path / "runs.jsonl"), where, picture)
    text = where.read_text()
    assert text.startswith("# Results\n\n## After\n\nkept\n\n## The defaults\n\nWritten by")
    assert "old" not in text.split("## The defaults")[0]
    assert text.count("## The defaults") == 1
    assert picture.read_bytes().startswith(b"\x89PNG")
