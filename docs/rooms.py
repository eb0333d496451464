"""Draws the rooms of policy_core and the imports between them: `python docs/rooms.py ROOT [OUT.svg]`.

A room is a module or package at the top of `policy_core`; an arrow is an import from one to another.
Rooms stand above all that they import. ROOT is a checkout, so that two commits can be compared.
"""

import ast
import sys
from pathlib import Path

WIDTH, ROW, BOX, LEFT = 900, 74, 24, 20


def imports(root: Path) -> dict[str, set[str]]:
    """Room to the rooms that it imports; `policy_core/__init__.py`, which imports all, left out."""
    core = root / "policy_core"
    rooms: dict[str, set[str]] = {}
    for path in sorted(core.rglob("*.py")):
        room = path.relative_to(core).with_suffix("").parts[0]
        names = rooms.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "policy_core":
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("policy_core."):
                names.add((node.module or "").split(".")[1])
            elif isinstance(node, ast.Import):
                names |= {alias.name.split(".")[1] for alias in node.names if "policy_core." in alias.name}
    del rooms["__init__"]
    return {room: (names & set(rooms)) - {room} for room, names in rooms.items()}


def levels(rooms: dict[str, set[str]]) -> list[list[str]]:
    """The rooms from the top down, each above all that it imports."""
    height: dict[str, int] = {}
    while len(height) < len(rooms):
        for room, below in rooms.items():
            if room not in height and below <= set(height):
                height[room] = 1 + max((height[name] for name in below), default=-1)
    top = max(height.values())
    return [sorted(room for room in rooms if height[room] == top - i) for i in range(top + 1)]


def draw(rooms: dict[str, set[str]]) -> str:
    """The rooms as an SVG."""
    rows, places, shapes = levels(rooms), {}, []
    for y, row in enumerate(rows):
        for x, room in enumerate(row):
            places[room] = LEFT + (WIDTH - 2 * LEFT) * (x + 0.5) / len(row), 30 + y * ROW
    for room, below in rooms.items():
        for name in below:
            (x, y), (to_x, to_y) = places[room], places[name]
            middle = (y + to_y) / 2
            curve = f"M{x:.0f},{y + BOX / 2:.0f} C{x:.0f},{middle:.0f} {to_x:.0f},{middle:.0f}"
            shapes.append(f'<path d="{curve} {to_x:.0f},{to_y - BOX / 2:.0f}"/>')
    for room, (x, y) in places.items():
        width = 9 * len(room) + 16
        shapes.append(f'<rect x="{x - width / 2:.0f}" y="{y - BOX / 2}" width="{width}" height="{BOX}"/>')
        shapes.append(f'<text x="{x:.0f}" y="{y + 4}">{room}</text>')
    style = (
        "path{fill:none;stroke:#8a8f98;stroke-opacity:.55}rect{fill:#eef2ff;stroke:#4051b5;rx:4}"
        "text{font:13px monospace;text-anchor:middle;fill:#1b1f27}"
    )
    size = f'viewBox="0 0 {WIDTH} {60 + (len(rows) - 1) * ROW}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{"".join(shapes)}</svg>\n'


if __name__ == "__main__":
    found = imports(Path(sys.argv[1]))
    print(f"{len(found)} rooms, {sum(map(len, found.values()))} imports between them, no circle")
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(draw(found))
