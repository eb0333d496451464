"""What the commands of these examples share: an error that a user causes is one line, and exit code 2.

Import it before any package: it says which ones are missing.
"""

import argparse
import difflib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NoReturn

NEEDED = ("jax", "numpy", "optax", "gymnax", "matplotlib", "rich", "policy_core", "policy_core_adapters")


class UserError(ValueError):
    """A wrong argument, said in one line."""


def fail(message: object) -> NoReturn:
    """Print one line, and end with exit code 2, as argparse does."""
    text = " ".join(str(message).split())
    print(f"{sys.argv[0]}: {text}", file=sys.stderr)
    raise SystemExit(2)


if _missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    fail(f"{', '.join(_missing)} cannot be imported; pip install -e '.[demo]', or make demo")


def run(main: Callable[[], int]) -> NoReturn:
    """Run a command, and end with its exit code."""
    from policy_core.errors import ConfigError, FileError

    try:
        code = main()
    except (UserError, ConfigError, FileError, OSError) as error:
        fail(error)
    raise SystemExit(code)


def positive(text: str) -> int:
    """A type of argument for argparse: an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {number}, expected at least 1")
    return number


def environment(name: str) -> Any:
    """The environment `PACKAGE:NAME`, of gymnax without `PACKAGE:`."""
    import environments

    try:
        package, rest = environments.parse(name)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    try:
        if package == "gymnax":
            import gymnax as peer

            if rest not in peer.registered_envs:
                near = difflib.get_close_matches(rest, peer.registered_envs, 3, 0.5) or peer.registered_envs
                raise UserError(f"--env: gymnax has no {rest!r}; there are {', '.join(near)}")
        return environments.make(name)
    except ImportError as error:
        raise UserError(f"--env: {name} needs another package: {error}") from error
    except Exception as error:
        theirs = type(error).__module__.partition(".")[0] == package or isinstance(error, LookupError)
        if theirs or (isinstance(error, ValueError) and not isinstance(error, UserError)):
            raise UserError(f"--env: {name}: {error}") from error
        raise


def check_fits(config: Any, env: Any, name: str) -> None:
    """Raise `UserError` unless a policy observes and acts as an environment does."""

    def seen(space: Any) -> Any:
        return space.flat_size, space.struct()

    if seen(config.observation_space) != seen(env.observation_space):
        what, ours, its = "observes", config.observation_space, env.observation_space
    elif config.action_space != env.action_space:
        what, ours, its = "acts in", config.action_space, env.action_space
    else:
        return
    raise UserError(f"the policy {what} {ours}, and {name} has {its}; give its environment by --env")
