"""A hook of mkdocs: `policy-core.js` stands beside the page that uses it, though its one copy is in `js/`.

Served from the root of the repository, `docs/demo/` takes it from `js/`; on the site it is a neighbor.
"""

from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent.parent
_THERE, _HERE = '"../../js/policy-core.js"', '"./policy-core.js"'


def contents() -> dict[str, str]:
    """The runner, and the page's script with its import changed to it, by their paths on the site."""
    page = (_ROOT / "docs/demo/demo.js").read_text()
    if page.count(_THERE) != 1:
        raise ValueError(f"docs/demo/demo.js: expected one import of {_THERE}")
    return {
        "demo/demo.js": page.replace(_THERE, _HERE),
        "demo/policy-core.js": (_ROOT / "js/policy-core.js").read_text(),
    }


def on_files(files: Any, *, config: Any) -> Any:
    """The files of the site with these."""
    from mkdocs.structure.files import File  # pyright: ignore[reportMissingImports]

    for path, content in contents().items():
        if (old := files.get_file_from_path(path)) is not None:
            files.remove(old)
        files.append(File.generated(config, path, content=content))
    return files
