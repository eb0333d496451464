"""What `python -m benchmarks` measures, in the order of the page; each in a process of its own."""

from typing import NamedTuple


class Section(NamedTuple):
    """A table of docs/benchmarks.md."""

    title: str
    call: str
    """`module.function`, a `measure(seconds)`."""
    text: str
    """What is compared, above the table."""
    seconds: float
    """Of each case."""
    layout: str = "lines"
    """`lines`: a line for each case and task; `matrix`: a line for each case, of ratios by task."""
    flags: str = ""
    """XLA_FLAGS."""
    elsewhere: bool = False
    """Whether it is run by the Python of `--lerax`."""


SECTIONS = (
    Section(
        "Beside the same network by hand",
        "floor.measure",
        "`benchmarks/floor.py`: ours against plain `jax.numpy` for exactly this network and space (64 x "
        "64 tanh towers, `jax.random.categorical`, a normal with a log-std), without checks and without "
        "masks that it does not need. Both have the same params, and modes, scores and gradients are "
        "compared first. *population* is a draw for 32 members of 16 observations each. Compile times are "
        "of fresh processes without a cache, from the function to the executable. The floor of the "
        "squashed normal takes the entropy at the mean; ours is exact.",
        1.2,
        "matrix",
    ),
    Section(
        "One call from Python",
        "latency.measure",
        "`benchmarks/latency.py`: a policy 17-64-64-6 with a normal, against the jitted mode by hand, "
        "which draws nothing and has no critic.",
        4.0,
    ),
    Section(
        "Other libraries",
        "peers.measure",
        "`benchmarks/peers.py`: the same policy, with the same weights, as the documentation of others "
        "shows it: a flax module that returns a distribution of distrax, under `jax.jit` (as PureJaxRL); "
        "equinox modules under `eqx.filter_jit` and `eqx.filter_grad`. Modes, values, log-probabilities, "
        "entropies and the norms of the gradients agree. *act* is a call from Python.",
        1.2,
    ),
    Section(
        "Lerax",
        "lerax_peer.measure",
        "`benchmarks/lerax_peer.py`: `MLPActorCriticPolicy` of the release, under `eqx.filter_jit` as its "
        "trainers and its documentation have it, against the same network with the same weights here (an "
        "encoder 64-64-16, towers of 64), compared as above.",
        1.2,
        elsewhere=True,
    ),
    Section(
        "Recurrent cells",
        "memory.measure",
        "`benchmarks/memory.py`: size 128, batch 16; against the cells of flax and equinox in a "
        "`jax.lax.scan` with resets. GRU and LSTM have the same weights, and the same outputs. `MinGRU` "
        "and `WindowAttention`, which they do not have, are beside our GRU.",
        5.0,
    ),
    Section(
        "Image encoders",
        "encoders.measure",
        "`benchmarks/encoders.py`: batch 32 of 84 x 84 x 4 bytes, against the same network in flax with "
        "the same weights. *in a scan* is two gradient steps in a `jax.lax.scan`, as a jitted trainer "
        "makes them; XLA for CPUs has a slow form of convolutions there, which ours avoids "
        "([Design](design.md#encoders)).",
        4.0,
    ),
    Section(
        "Populations",
        "population.measure",
        "`benchmarks/population.py`: an update of `examples/ppo.py` on CartPole (8 environments, 32 "
        "steps), mapped over members, against as many single updates; gradients of CNNs for 5 members "
        "against `jax.lax.map` and against one policy. The last member is that of a single update. More "
        "sizes: [Scaling](scaling.md#measured).",
        3.0,
    ),
    Section(
        "Many configs alive",
        "population.measure_dispatch",
        "`benchmarks/population.py`: a call while other configs of the same structure are alive, the "
        "worst of the first, the middle and the last, against a call of the only one. *a jit of a pair* "
        "is a `jax.jit` of one's own, which compares the configs one by one ([Design](design.md#limits)).",
        3.0,
        flags="--xla_backend_optimization_level=0",
    ),
    Section(
        "Files",
        "files.measure",
        "`benchmarks/files.py`, by the clock on the wall, for writing waits for a disk. *by hand* is "
        "`tofile`, one SHA-256 and `fsync`, or `np.fromfile` and one SHA-256. The others verify nothing "
        "when they load, and do not flush when they save; what each loads is compared. Larger files: "
        "[File format](file-format.md).",
        3.0,
    ),
    Section(
        "Without JAX",
        "numpy_runner.measure",
        "`benchmarks/numpy_runner.py`: a mode of the runner on NumPy, 17-64-64-6 and with a memory of 64, "
        "against `pc.act` from Python, and, of two heads, against three products by hand. The actions are "
        "compared.",
        1.0,
    ),
    Section(
        "Sampling a categorical",
        "categorical.measure",
        "`benchmarks/categorical.py`: rows with keys of their own under `vmap`. The log-probabilities of "
        "what is drawn are compared with log-softmax; the draws are of the same law, not the same.",
        0.8,
    ),
    Section(
        "The entropy of a squashed normal",
        "squashed_entropy.measure",
        "`benchmarks/squashed_entropy.py`: loss and gradient of `evaluate_action` (17-64-64 towers) with "
        "the exact entropy, against one more draw and its log-density, and against no entropy. The mean "
        "of 4,096 estimates is the exact one within five standard errors.",
        3.0,
    ),
)
