"""`policy-core import KIND FILE -o OUT`: what another library trained, as a policy file.

An entry point of the group `policy_core.commands`.
"""

import argparse
import importlib
from pathlib import Path
from typing import Any

import policy_core as pc

# By kind, the options that its `load` has.
KINDS = {
    "sb3": ("statistics",),
    "rsl_rl": ("activation",),
    "rl_games": ("activation", "before_mlp"),
    "brax": ("activation", "policy_obs_key", "value_obs_key", "normalize_observations"),
    "flax": ("like", "rules"),
}
RULES = ("purejaxrl", "jaxmarl_mappo", "gymnax_blines", "stoix", "rejax")


def add(parser: argparse.ArgumentParser) -> None:
    """Make a policy file of what another library trained.

    The file has a self-test, and as metadata the library, its version where the source has it, and the
    SHA-256 of the source. The report says of every leaf of the source where it went.
    """
    parser.add_argument("kind", choices=KINDS, help="the library that wrote the file")
    parser.add_argument("file", type=Path, help="the file; for brax also the folder of a checkpoint")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the policy file to write")
    parser.add_argument("--statistics", type=Path, help="of sb3: the file of VecNormalize.save")
    parser.add_argument("--activation", help="of rsl_rl, rl_games, brax: that of the layers")
    parser.add_argument(
        "--before-mlp",
        action=argparse.BooleanOptionalAction,
        help="of rl_games: whether the memory is in front of the MLP",
    )
    parser.add_argument("--policy-obs-key", metavar="KEY", help="of brax: the part that the actor sees")
    parser.add_argument("--value-obs-key", metavar="KEY", help="of brax: the part that the critic sees")
    parser.add_argument(
        "--normalize-observations",
        action=argparse.BooleanOptionalAction,
        help="of brax: whether the statistics are used",
    )
    parser.add_argument("--like", type=Path, metavar="POLICY", help="of flax: a policy file with the config")
    parser.add_argument("--rules", choices=RULES, help="of flax: which layer is which")
    parser.set_defaults(run=run, show=show)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Import the file and save it; the result, and the exit code 0.

    Raises:
        FileError: for an option that the kind has not, and as its `load`.
        OSError: for a file that is not there.
    """
    names = {name for row in KINDS.values() for name in row}
    given = {name: value for name in sorted(names) if (value := getattr(options, name)) is not None}
    if others := sorted(given.keys() - set(KINDS[options.kind])):
        flag = others[0].replace("_", "-")
        kinds = [kind for kind, row in KINDS.items() if others[0] in row]
        raise pc.errors.FileError(f"--{flag}: it is of {', '.join(kinds)}, not of {options.kind}")
    found = _load(options, given)
    pc.save(options.out, found.policy, metadata=found.metadata)
    return {
        "file": str(options.file), "out": str(options.out), "nbytes": options.out.stat().st_size,
        "config": type(found.policy[1]).__name__, "fingerprint": pc.fingerprint(found.policy[1]).hex(),
        "metadata": found.metadata, "report": found.report,
    }, 0  # fmt: skip


def _load(options: argparse.Namespace, given: dict[str, Any]) -> Any:
    if options.kind == "flax":
        if "like" not in given or "rules" not in given:
            raise pc.errors.FileError("--like, --rules: flax needs both: params say neither config nor names")
        module = importlib.import_module("policy_core_adapters.imports.flax_params")
        _, config = pc.load(given["like"])
        return module.load(options.file, config, getattr(module, given["rules"]))
    module = importlib.import_module(f"policy_core_adapters.imports.{options.kind}")
    if "statistics" in given:
        given["vecnormalize"] = given.pop("statistics")
    return module.load(options.file, **given)


def show(result: dict[str, Any]) -> None:
    """Print where each leaf went, and what was written."""
    width = max(map(len, result["report"]))
    for name, where in result["report"].items():
        print(_printable(f"{name:<{width}}  {where}"))
    print(_printable(f"{result['out']}: {result['nbytes']:,} bytes, {result['config']}"))


def _printable(text: str) -> str:
    """Names come from files of others: what would move the cursor is written out."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
