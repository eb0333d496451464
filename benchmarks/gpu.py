"""Everything that this project claims, on a GPU: exactness, speed beside peers, training, files.

    python benchmarks/gpu.py                 # ten minutes; raw rows into build/gpu.json
    python benchmarks/gpu.py --render        # the tables of docs/gpu.md, from the raw rows

It needs the extra `bench` and a JAX that sees the GPU; on a machine without one it runs on the processor, for
a trial (`--seconds 0.01`). A section that fails is an error in the page and not a missing table. Contestants
take turns, and a ratio is of medians; below 1 ours is faster. Results are waited for after a series of
calls, so that a row measures the device wherever it takes longer than Python needs to start a program.
"""

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.table import markdown

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "examples"))
RAW, PAGE = ROOT / "build/gpu.json", ROOT / "docs/gpu.md"
START, END = "<!-- written by benchmarks/gpu.py -->", "<!-- until here -->"

Rows = list[list[str]]
TRIAL = jax.default_backend() == "cpu"  # smaller, to see that it runs
MANY, SOME, IMAGES, SEQUENCES = (256, 64, 4, 2) if TRIAL else (65536, 4096, 1024, 256)
SECONDS = 0.4  # for each ratio


def in_turn(calls: Mapping[str, Callable[[], Any]], seconds: float | None = None) -> dict[str, float]:
    """The median seconds of a call of each, over rounds in which they take turns."""
    seconds = SECONDS if seconds is None else seconds
    each: dict[str, int] = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        start = time.perf_counter()
        jax.block_until_ready(call())
        each[name] = max(1, min(200, int(5e-3 / (time.perf_counter() - start))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(times))]) < 3:
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(each[name] - 1):
                call()
            jax.block_until_ready(call())
            times[name].append((time.perf_counter() - start) / each[name])
    return {name: float(np.median(values)) for name, values in times.items()}


def compiled(f: Any, arguments: Any) -> tuple[float, int]:
    """Seconds from the function to the executable, with nothing cached, and its kernels."""
    jax.clear_caches()
    start = time.perf_counter()
    program = f.lower(*arguments).compile()
    return time.perf_counter() - start, kernels_of(program.as_text())


def deviation(a: Any, b: Any) -> float:
    """The largest difference of two trees, relative to max(1, |b|)."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(
        float(np.max(np.abs(x - y) / np.maximum(1, np.abs(y)), initial=0.0))
        for x, y in ((np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs)
    )


def alike(a: Any, b: Any) -> str:
    """Of integers how many rows are equal, of floats the largest difference."""
    a, b = np.asarray(a), np.asarray(b)
    if np.issubdtype(a.dtype, np.floating):
        return f"{deviation(a, b):.1e}"
    return f"{(a == b).reshape(len(a), -1).all(1).sum()} of {len(a)}"


# EXACTNESS -----------------------------------------------------------------------------------


def policies() -> dict[str, Any]:
    """One of each kind, with params that are the same on every device."""
    from benchmarks.floor import ROWS

    image = pc.Box(low=0, high=255, shape=(10, 10, 4), dtype="uint8")
    configs = {name: row.config for name, row in ROWS.items() if not row.masked}
    configs["32 to GRU(64) to Discrete(6)"] = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(32,)), action_space=pc.Discrete(6), memory=pc.GRU(64)
    )
    configs["MinAtarCNN to Discrete(6)"] = pc.ActorCriticConfig(
        observation_space=image, action_space=pc.Discrete(6), encoder=pc.MinAtarCNN()
    )
    return {name: pc.init(config, key=jax.random.key(0)) for name, config in configs.items()}


@jax.jit
def scored(policy: Any, observations: Any, actions: Any) -> Any:
    """Value, log-prob and entropy of a batch."""
    state = pc.reset(policy, batch=(len(observations),))
    return jax.vmap(partial(pc.evaluate_action, policy))(state, observations, actions)[1:]


@jax.jit
def drawn(policy: Any, observations: Any, keys: Any) -> Any:
    """Action, value and log-prob of a batch."""
    state = pc.reset(policy, batch=(len(observations),))
    step: Any = jax.vmap(lambda s, x, key: pc.action_and_value(policy, s, x, key=key))
    return step(state, observations, keys)[1:]


def exactness() -> dict[str, Any]:
    """Against the same functions on the CPU, by the precision of products; and ratios before an update."""
    cpu = jax.devices("cpu")[0]
    rows: Rows = []
    for name, policy in policies().items():
        space = policy[1].observation_space
        rng = np.random.default_rng(1)
        shape = (SOME, *space.shape)
        x = (
            rng.integers(0, 2, shape).astype(np.uint8)
            if space.dtype == "uint8"
            else rng.standard_normal(shape).astype(np.float32)
        )
        keys = jax.random.split(jax.random.key(2), SOME)
        at_home = jax.device_put((policy, x, keys), cpu)
        actions, _, _ = drawn(*at_home)
        reference = scored(*at_home[:2], actions)
        cells = []
        for precision in ("default", "highest"):
            with jax.default_matmul_precision(precision):
                policy_, x_, keys_, actions_ = jax.device_put((policy, x, keys, actions), jax.devices()[0])
                found, _, old = drawn(policy_, x_, keys_)
                # The ratio that PPO starts from: the actions of the rollout, in minibatches of a quarter.
                ratios = [
                    np.exp(np.asarray(scored(policy_, x_[i::4], found[i::4])[1]) - np.asarray(old[i::4]))
                    for i in range(4)
                ]
                cells += [
                    f"{deviation(scored(policy_, x_, actions_), reference):.1e}",
                    alike(found, actions),
                    f"{max(float(np.abs(ratio - 1).max()) for ratio in ratios):.1e}",
                ]
        rows.append([name, *cells])
    return {"rows": rows}


def golden() -> dict[str, Any]:
    """Files that were written on a CPU, verified here."""
    sys.path.append(str(ROOT / "tests"))
    importlib.import_module("cases")  # registers the mask function of one of them
    rows: Rows = []
    for path in sorted((ROOT / "tests/golden/v1").glob("*.msgpack")):
        cells = []
        for precision in ("default", "highest"):
            with jax.default_matmul_precision(precision):
                try:
                    cells.append(f"{pc.verify(path, tolerance=math.inf).deviation:.1e}")
                except pc.errors.FileError as error:
                    cells.append(f"{type(error).__name__}: {error}"[:80])
        rows.append([path.stem, *cells])
    return {"rows": rows}


def bits() -> dict[str, Any]:
    """Draws of categoricals: the same bits eagerly, jitted and mapped; only classes with weight."""
    rows: Rows = []
    for n in (2, 18, 1024):
        logits = 3 * jax.random.normal(jax.random.key(0), (256, n))
        mask = jax.random.bernoulli(jax.random.key(1), 0.3, logits.shape).at[:, 0].set(True)
        keys = jax.random.split(jax.random.key(2), 256)

        def draw(logits: jax.Array, mask: jax.Array, key: jax.Array, n: int = n) -> jax.Array:
            found: jax.Array = pc.distributions.Categorical(logits, mask, pc.Discrete(n)).sample(key=key)
            return found

        mapped = jax.jit(jax.vmap(draw))(logits, mask, keys)
        one = jax.jit(draw)
        jitted = jnp.stack([one(*row) for row in zip(logits, mask, keys, strict=True)])
        eager = jnp.stack([draw(*row) for row in zip(logits[:16], mask[:16], keys[:16], strict=True)])
        allowed = bool(jnp.all(jnp.take_along_axis(mask, mapped[:, None], 1)))
        cpu = jax.devices("cpu")[0]
        with jax.default_device(cpu):
            there = jax.jit(jax.vmap(draw))(*jax.device_put((logits, mask, keys), cpu))
        rows.append(
            [
                f"{n} classes",
                str(bool(jnp.array_equal(mapped, jitted))),
                str(bool(jnp.array_equal(mapped[:16], eager))),
                f"{int(np.sum(np.asarray(mapped) == np.asarray(there)))} of 256",
                str(allowed),
            ]
        )
    return {"rows": rows}


# SPEED ---------------------------------------------------------------------------------------

TASKS = (
    "act, 1", f"draw {SOME}", f"draw {MANY}", f"gradient {SOME}", f"gradient {MANY}", "population 256 x 64",
)  # fmt: skip


def floor_rows() -> dict[str, Any]:
    """Beside plain jax.numpy: run time as a ratio and microseconds, compile time as a ratio, kernels."""
    from benchmarks import floor

    rows: Rows = []
    compilation: Rows = []
    for name, row in floor.ROWS.items():
        cells = []
        for task in TASKS:
            both, arguments = floor.contestants(row, task)
            times = in_turn({who: partial(f, *arguments) for who, f in both.items()})
            cells.append(f"{times['ours'] / times['floor']:.2f} ({times['ours'] * 1e6:.0f})")
        rows.append([name, *cells])
        cells = []
        for task in TASKS[1::2][:2]:
            both, arguments = floor.contestants(row, task)
            (floors, fewest), (seconds, kernels) = (
                compiled(both[who], arguments) for who in ("floor", "ours")
            )
            cells += [f"{seconds / floors:.2f} ({seconds:.2f} s)", f"{kernels} / {fewest}"]
        compilation.append([name, *cells])
    return {"rows": rows, "compiled": compilation}


def kernels_of(text: str) -> int:
    """Instructions of an optimized program that start something on the device; loops count once."""
    starts = (" fusion(", " custom-call(", " sort(", " copy(", " while(", " convolution(", " dot(")
    return sum(any(start in line for start in starts) for line in text.splitlines())


def images() -> dict[str, Any]:
    """Towers against flax, images of 84 x 84 x 4 bytes."""
    from benchmarks import encoders

    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (IMAGES, *encoders.SHAPE)), jnp.uint8)
    rows: Rows = []
    towers: dict[str, tuple[Any, Any]] = {
        "Nature": (pc.NatureCNN(), encoders.Nature()),
        "IMPALA": (pc.ImpalaCNN(), encoders.Impala()),
    }
    for title, (encoder, module) in towers.items():
        both = {"ours": encoders.ours(encoder), "flax": encoders.of_flax(module)}
        for what in ("forward", "gradient"):
            programs: dict[str, Any] = {}
            took: dict[str, float] = {}
            for name, (params, apply) in both.items():
                start = time.perf_counter()
                programs[name] = partial(encoders.lowered(apply, what, params, x).compile(), params, x)
                took[name] = time.perf_counter() - start
            times = in_turn(programs, 2 * SECONDS)
            rows.append(
                [
                    f"{title}, {what}",
                    f"{times['ours'] * 1e3:.2f}",
                    f"{times['ours'] / times['flax']:.2f}",
                    f"{IMAGES / times['ours']:,.0f}",
                    f"{took['ours'] / took['flax']:.2f}",
                ]
            )
    return {"rows": rows}


def memories() -> dict[str, Any]:
    """Cells of 128 over sequences against flax and equinox."""
    from benchmarks import memory

    rows: Rows = []
    rng = np.random.default_rng(0)
    for length in memory.TIMES:
        xs = jnp.array(rng.standard_normal((SEQUENCES, length, memory.SIZE)), jnp.float32)
        first = jnp.array(rng.random((SEQUENCES, length)) < 0.02)
        for gradient in (False, True):
            calls = {
                name: partial(memory.compiled(sequence, gradient, params, xs, first), params, xs, first)
                for name, (params, sequence) in memory.contestants().items()
                if not name.startswith("Window")
            }
            ms = {name: seconds * 1e3 for name, seconds in in_turn(calls, 2 * SECONDS).items()}
            rows.append(
                [
                    f"T = {length}, {'gradient' if gradient else 'forward'}",
                    f"{ms['GRU']:.2f}",
                    f"{ms['GRU'] / ms['GRU, flax']:.2f}",
                    f"{ms['GRU'] / ms['GRU, equinox']:.2f}",
                    f"{ms['LSTM']:.2f}",
                    f"{ms['LSTM'] / ms['LSTM, flax']:.2f}",
                    f"{ms['LSTM'] / ms['LSTM, equinox']:.2f}",
                    f"{ms['MinGRU']:.2f}",
                ]
            )
    return {"rows": rows}


# TRAINING ------------------------------------------------------------------------------------


def train_cartpole(members: int, hyper: Any) -> tuple[float, float, np.ndarray]:
    """Compilation and training of `examples/ppo.py`, in seconds, and the last mean return of each."""
    import ppo
    from policy_core_adapters import gymnax

    env = gymnax.make("CartPole-v1")
    config = pc.ActorCriticConfig(observation_space=env.observation_space, action_space=env.action_space)
    init, update = ppo.make_train(config, env, hyper)

    def train(key: jax.Array) -> jax.Array:
        _, returns = jax.lax.scan(lambda runner, _: update(runner), init(key), None, hyper.num_updates)
        return jnp.nanmean(returns[-max(1, hyper.num_updates // 10) :])

    keys = jax.random.split(jax.random.key(0), members)
    start = time.perf_counter()
    compiled = jax.jit(jax.vmap(train)).lower(keys).compile()
    took = time.perf_counter() - start
    start = time.perf_counter()
    returns = np.asarray(compiled(keys))
    return took, time.perf_counter() - start, returns


def training() -> dict[str, Any]:
    """Populations of the demo's PPO, and one policy with many environments."""
    import ppo

    rows: Rows = []
    plan = [(n, ppo.Hyperparameters()) for n in ((1, 5) if TRIAL else (1, 5, 64, 512))]
    plan.append((1, ppo.Hyperparameters(num_envs=SOME, num_updates=40)))
    for n, hyper in plan:
        compiling, seconds, returns = train_cartpole(n, hyper)
        steps = n * hyper.num_envs * hyper.num_steps * hyper.num_updates
        rows.append(
            [
                str(n),
                f"{hyper.num_envs}",
                f"{steps:,}",
                f"{compiling:.1f}",
                f"{seconds:.1f}",
                f"{steps / seconds:,.0f}",
                f"{returns.mean():.1f} ({returns.min():.1f} to {returns.max():.1f})",
            ]
        )
    return {"rows": rows}


def members() -> dict[str, Any]:
    """`act` of a population, one observation a member."""
    config = pc.ActorCriticConfig(observation_space=pc.Box(shape=(27,)), action_space=pc.Box(shape=(8,)))
    act = jax.jit(jax.vmap(lambda policy, x: pc.act(policy, (), x)[1]))
    rows: Rows = []
    for n in (1, 64, MANY // 64, MANY // 4):
        population = pc.population.init(config, n, key=jax.random.key(0))
        x = jnp.ones((n, 27))
        seconds = in_turn({"act": partial(act, population, x)})["act"]
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(population))
        rows.append([f"{n:,}", f"{seconds * 1e6:.0f}", f"{n / seconds:,.0f}", f"{size / seconds / 1e9:.0f}"])
    return {"rows": rows}


# FILES ---------------------------------------------------------------------------------------


def files() -> dict[str, Any]:
    """A load onto the device, beside reading, hashing and transferring the same bytes by hand."""
    from benchmarks.files import policy_of

    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in ("50k", "5M"):
            policy = policy_of(size)
            path = Path(folder) / size
            pc.save(path, policy)
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(policy)]
            np.concatenate([leaf.ravel() for leaf in leaves]).tofile(path.with_suffix(".raw"))

            def by_hand(path: Path = path, leaves: Any = leaves) -> Any:
                data = np.fromfile(path.with_suffix(".raw"), np.float32)
                hashlib.sha256(data.tobytes()).digest()
                ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
                return [jax.device_put(part) for part in np.split(data, ends)]

            calls: dict[str, Callable[[], Any]] = {
                "ours": partial(lambda path, config: pc.load(path, config)[0], path, policy[1]),
                "by hand": by_hand,
            }
            ms = {name: seconds * 1e3 for name, seconds in in_turn(calls, 2 * SECONDS).items()}
            rows.append(
                [size, f"{ms['ours']:.2f}", f"{ms['by hand']:.2f}", f"{ms['ours'] / ms['by hand']:.2f}"]
            )
    return {"rows": rows}


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "floor": floor_rows,
    "members": members,
    "files": files,
    "training": training,
    "images": images,
    "memories": memories,
    "exactness": exactness,
    "golden": golden,
    "bits": bits,
}


def machine() -> dict[str, Any]:
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        driver = "no nvidia-smi"
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "driver": driver,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


# THE PAGE ------------------------------------------------------------------------------------

EXACT = ("", "deviation", "same draws", "ratio off 1", "deviation, highest", "same draws", "ratio off 1")
HEADERS: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("exactness", "rows"): ("Exactness", EXACT),
    ("golden", "rows"): ("Files that a CPU wrote", ("file", "deviation", "highest")),
    ("bits", "rows"): (
        "Draws of categoricals",
        ("", "jitted as mapped", "eager as mapped", "as on the CPU", "only allowed classes"),
    ),
    ("floor", "rows"): ("Beside the same network by hand", ("ratio (us)", *TASKS)),
    ("floor", "compiled"): (
        "Compilation, and kernels",
        ("", "draw, compile", "kernels / floor", "gradient, compile", "kernels / floor"),
    ),
    ("members", "rows"): ("Populations", ("members", "us", "actions/s", "GB/s of params")),
    ("images", "rows"): ("Images", ("", "ms", "/ flax", "images/s", "compile / flax")),
    ("memories", "rows"): (
        "Memories",
        ("", "GRU, ms", "/ flax", "/ equinox", "LSTM, ms", "/ flax", "/ equinox", "MinGRU, ms"),
    ),
    ("training", "rows"): (
        "Training",
        ("policies", "environments each", "steps", "compile, s", "run, s", "steps/s", "return"),
    ),
    ("files", "rows"): ("Files", ("parameters", "load, ms", "by hand, ms", "ratio")),
}


def rendered(raw: dict[str, Any]) -> str:
    """All tables, as Markdown."""
    about = raw["machine"]
    parts = [
        f"{about['device']} ({about['driver']}), jax {about['jax']}, Python {about['python']}, "
        f"{about['date']}; {raw['seconds']:.0f} s in all."
    ]
    for (section, rows), (title, header) in HEADERS.items():
        found = raw["sections"].get(section)
        if found is None:
            parts.append(f"### {title}\n\nNot run.")
        elif "error" in found:
            parts.append(f"### {title}\n\nFailed: `{found['error']}`")
        else:
            parts.append(f"### {title}\n\n{markdown(header, found[rows], '<' + '>' * (len(header) - 1))}")
    return "\n\n".join(parts)


def write_page(raw: dict[str, Any]) -> None:
    before, _, rest = PAGE.read_text().partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE} has no lines {START!r} and {END!r} between which the tables stand")
    PAGE.write_text(f"{before}{START}\n\n{rendered(raw)}\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], help="some of them; all by default")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each ratio")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds after which none is begun")
    parser.add_argument("--out", type=Path, default=RAW, help="the raw rows")
    parser.add_argument("--render", action="store_true", help="write docs/gpu.md from the raw rows")
    options = parser.parse_args()
    if options.render:
        write_page(json.loads(options.out.read_text()))
        return
    globals()["SECONDS"] = options.seconds
    start = time.perf_counter()
    raw: dict[str, Any] = {"machine": machine(), "sections": {}}
    for name in options.sections or SECTIONS:
        if time.perf_counter() - start > options.budget:
            print(f"{name}: not begun, the time is up", flush=True)
            continue
        begun = time.perf_counter()
        try:
            raw["sections"][name] = SECTIONS[name]()
        except Exception as error:  # the others are still worth their time; the page says so
            traceback.print_exc()
            raw["sections"][name] = {"error": f"{type(error).__name__}: {error}"}
        raw["seconds"] = time.perf_counter() - start
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(raw, indent=1))
    print(rendered(raw))
    if any("error" in section for section in raw["sections"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
