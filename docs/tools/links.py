"""A hook of mkdocs: links out of docs/ lead to files of the repository, which the site does not have.

On the site they are their text alone. A link to what is not there is a warning, as for other links.
"""

import logging
import re
from pathlib import Path
from typing import Any

_OUTWARD = re.compile(r"\[([^\]]+)\]\(((?:\.\./)[^)#\s]*)[^)]*\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page without links out of docs/."""
    folder = Path(page.file.abs_src_path).parent

    def text(link: re.Match[str]) -> str:
        if not (folder / link[2]).exists():
            logging.getLogger("mkdocs.hooks").warning("%s links to %s", page.file.src_uri, link[2])
        return link[1]

    return _OUTWARD.sub(text, markdown)
