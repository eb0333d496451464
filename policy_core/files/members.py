"""One policy out of the file of a population, into a file of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from policy_core.files import replay
from policy_core.files.document import write
from policy_core.files.policies import PathLike, opened, policy_of
from policy_core.files.storage import write_atomically


def extract(
    path: PathLike, member: tuple[int, ...] | int, out: PathLike, tolerance: float = 1e-3
) -> dict[str, Any]:
    """Write one member of a population to a file of its own, after its self-test.

    The file is the one that `save` writes for this member with the metadata of the population and the
    observations of its self-test: its outputs are recorded anew. `extra` is that of the member, if every
    array in it has the axes of the population; else there is none.

    Returns:
        `nbytes`, the size of the new file; `extra`, whether all of `extra` is in it; and the `deviation` of
        the outputs from those in the file of the population.

    Raises:
        FileError: as `load` of this member.
        SelfTestError: if the member does not act as it did when it was saved; nothing is written.
        OSError: if a file cannot be read or written.
    """
    with opened(path) as whole:
        each = all(row.shape[: len(whole.batch)] == whole.batch for row in whole.extra)
        document = whole.member(member, ("leaves", "self_test", *["extra"] * each))
    policy = policy_of(document)
    verification = replay.check(policy, (), document.self_test, tolerance)
    if document.self_test:
        observations = replay.given_observations(policy, document.self_test)
        document = replace(document, self_test=replay.record(policy, (), observations))
    parts = write(document)
    write_atomically(Path(out).absolute(), parts)
    return {"nbytes": sum(map(len, parts)), "extra": each, "deviation": verification.deviation}
