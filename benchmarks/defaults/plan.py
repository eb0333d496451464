"""What is trained for the page, the most important first.

The seconds are those of a seed on one core, or on the GPU of a seed of all cells of the program, as they were
measured; only the schedule depends on them.
"""

from benchmarks.defaults.schedule import Wanted
from benchmarks.defaults.settings import (
    ALL_OF_REJAX,
    CAR,
    DEEPER,
    DEFAULTS,
    FIRST_GAIN,
    GAIN_1,
    GAINS,
    HEAD_GAIN,
    HEADS,
    HOSTS,
    IMAGES,
    LARGER,
    LECUN,
    LERAX_OWN,
    OPTIONS,
    ORTHOGONAL,
    ORTHOGONAL_RELU,
    REJAX_OWN,
    RELU,
    SETTINGS,
    SILU,
    TIMES,
    TRUNK,
    WIDER,
    arm,
    shorter,
)

PUREJAXRL, REJAX, LERAX = HOSTS
ACROBOT, CATCH, PENDULUM = "rejax, Acrobot", "PureJaxRL, Catch", "ours, Pendulum"
BREAKOUT, MEMORY = tuple(SETTINGS)[-2:]
SECONDS = {
    CATCH: 0.52, PUREJAXRL: 0.7, REJAX: 0.85, ACROBOT: 1.0, LERAX: 1.45, PENDULUM: 1.75, CAR: 2.3,
    MEMORY: 11.0, BREAKOUT: 33.0,
}  # fmt: skip
FACTORS = {**TIMES, TRUNK: 0.75, LERAX_OWN: 1.3}
SEEDS, MORE_SEEDS = range(50), range(1000, 1100)  # those of the GPU are others
ONE_PROGRAM = (LECUN, ORTHOGONAL, REJAX_OWN)  # they differ in their first params only


def on_cpu(setting: str, network: str, seeds: range = SEEDS) -> Wanted:
    return Wanted(((setting, network),), seeds, seed=SECONDS[setting] * FACTORS.get(network, 1.0))


def on_gpu(*cells: tuple[str, str], seeds: range = MORE_SEEDS[:50]) -> Wanted:
    return Wanted(cells, seeds, "gpu", start=60.0)


def ablation(host: str, networks: tuple[str, ...]) -> Wanted:
    """The rule of the host, and with the other value of each option; one program."""
    settings = [host, *(arm(host, option) for option in OPTIONS), *[ALL_OF_REJAX] * (host == PUREJAXRL)]
    gains = [(host, network) for network in (REJAX_OWN, HEAD_GAIN) if LECUN in networks]
    cells = [(setting, network) for setting in settings for network in networks]
    return on_gpu(*cells, *gains, seeds=MORE_SEEDS)


def on_cpus() -> list[Wanted]:
    small = (CATCH, ACROBOT, PENDULUM)
    wanted = [on_cpu(setting, network) for network in (DEFAULTS, LECUN) for setting in (*HOSTS, *small)]
    wanted += [on_cpu(setting, ORTHOGONAL) for setting in (*small, PUREJAXRL, LERAX)]
    wanted += [
        on_cpu(setting, network)
        for network in (LARGER, GAIN_1, RELU, SILU, TRUNK, DEEPER)
        for setting in (*HOSTS, *small)
    ]
    wanted += [
        on_cpu(MEMORY, network, MORE_SEEDS[:20])  # seeds of the GPU, too
        for network in (LECUN, ORTHOGONAL, RELU, LARGER, REJAX_OWN)
    ]
    wanted += [on_cpu(BREAKOUT, network, MORE_SEEDS[:10]) for network in (LARGER, RELU)]
    wanted += [on_cpu(setting, WIDER) for setting in (PUREJAXRL, CATCH, REJAX, ACROBOT)]
    wanted += [
        Wanted(((shorter(setting, network), network),), SEEDS, seed=SECONDS[setting])
        for setting in (PUREJAXRL, CATCH)
        for network in TIMES
    ]
    wanted += [on_cpu(setting, REJAX_OWN) for setting in (*small, PUREJAXRL, LERAX)]
    wanted += [on_cpu(setting, ORTHOGONAL_RELU) for setting in HOSTS]
    wanted += [on_cpu(REJAX, network) for network in (FIRST_GAIN, HEAD_GAIN, GAINS)]
    wanted += [on_cpu(setting, network) for setting, network in ((LERAX, LERAX_OWN), (LERAX, WIDER))]
    return [
        *wanted,
        on_cpu(REJAX, ORTHOGONAL, range(65, 90)),  # trained before on another machine: for its time
        *(on_cpu(CAR, network, range(20)) for network in HEADS),
        on_cpu(PENDULUM, WIDER),
    ]


def on_gpus() -> list[Wanted]:
    return [
        ablation(PUREJAXRL, (LECUN, ORTHOGONAL)),
        on_gpu(*((BREAKOUT, network) for network in ONE_PROGRAM)),
        ablation(REJAX, (LECUN, ORTHOGONAL)),
        on_gpu(*((MEMORY, network) for network in (*ONE_PROGRAM, LARGER))),
        on_gpu((BREAKOUT, LARGER)),
        ablation(LERAX, (LECUN, ORTHOGONAL)),
        on_gpu((BREAKOUT, RELU)),
        on_gpu((MEMORY, RELU)),
        *(ablation(host, (RELU, ORTHOGONAL_RELU)) for host in HOSTS),
        *(on_gpu((BREAKOUT, network)) for network in (SILU, WIDER, DEEPER, TRUNK)),
        *(on_gpu((MEMORY, network)) for network in (SILU, WIDER, DEEPER, TRUNK)),
        on_gpu((BREAKOUT, IMAGES), seeds=MORE_SEEDS[:16]),
    ]
