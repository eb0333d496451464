"""`python -m policy_core_adapters.imports KIND FILE -o OUT`: what another library trained, as a policy file.

The file has a self-test and the origin as metadata; the report of every leaf is printed.
"""

import argparse
import sys
from pathlib import Path

import policy_core as pc
from policy_core_adapters.imports import brax, rl_games, rsl_rl, sb3
from policy_core_adapters.imports.report import Imported

KINDS = ("sb3", "rsl_rl", "rl_games", "brax")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 if the file cannot be imported."""
    parser = argparse.ArgumentParser(prog="python -m policy_core_adapters.imports", description=__doc__)
    parser.add_argument("kind", choices=KINDS, help="the library that wrote the file")
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="the policy file to write")
    parser.add_argument("--statistics", type=Path, help="the file of VecNormalize.save, of sb3")
    parser.add_argument("--activation", help="of the layers, where the file does not say")
    options = parser.parse_args(arguments)
    try:
        found = _load(options)
        pc.save(options.out, found.policy, metadata=found.metadata)
    except (pc.errors.PolicyError, OSError) as error:
        print(f"imports: {error}", file=sys.stderr)
        return 2
    width = max(map(len, found.report))
    for name, where in found.report.items():
        print(f"{name:<{width}}  {where}")
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {type(found.policy[1]).__name__}")
    return 0


def _load(options: argparse.Namespace) -> Imported:
    if options.kind == "sb3":
        return sb3.load(options.file, options.statistics)
    if options.statistics is not None:
        raise pc.errors.FileError(f"--statistics is of sb3, not of {options.kind}")
    load = {"rsl_rl": rsl_rl.load, "rl_games": rl_games.load, "brax": brax.load}[options.kind]
    return (
        load(options.file)
        if options.activation is None
        else load(options.file, activation=options.activation)
    )


if __name__ == "__main__":
    sys.exit(main())
