"""The largest deviation of imported policies from their libraries, for docs/exchange.md.

    python benchmarks/exchange.py

The files are those of tests/fixtures, which the libraries wrote, with what they computed in float64. Relative
to max(1, |reference|); of discrete actions, how many differ. Beside it is the error of the library's own
float32.
With a name as argument, only the files of that library.
"""

import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from policy_core_adapters.imports import rl_games, rsl_rl, sb3

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where the fixtures are read


def main() -> None:
    elsewhere: Any = importlib.import_module("elsewhere")
    robots: Any = importlib.import_module("test_imports_robots")
    models: Any = importlib.import_module("test_imports_sb3")

    def cases() -> Iterator[tuple[str, Any, Any, Any, Any]]:
        for name in models.NAMES:
            found = sb3.load(*models.files(name))
            expected = dict(np.load(models.FOLDER / f"{name}.npz"))
            config = found.policy[1]
            x = models.observations(config.observation_space, expected)
            yield f"sb3 {name}", found, expected, x, models.masks_of(config.action_space, expected)
        for library, ending, load in (("rsl_rl", ".pt", rsl_rl.load), ("rl_games", ".pth", rl_games.load)):
            for file in elsewhere.names(library, ending):
                folder = elsewhere.unpacked(library)
                expected, x = robots.expected_of(folder, file.partition(".")[0])
                found = load(folder / file, activation="relu" if "asymmetric" in file else "elu")
                if ".jit." in file:
                    x = x["policy"] if isinstance(x, dict) else x
                    expected = {key: expected[key] for key in expected if key.startswith(("mode", "first"))}
                yield f"{library} {file}", found, expected, x, None

    print("| file | action | of the library | value | of the library | log-prob | entropy |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, found, expected, x, masks in cases():
            if sys.argv[1:] and not name.startswith(sys.argv[1]):
                continue
            result = elsewhere.check(found, expected, x, masks, Path(folder))
            action = "mode" if "mode" in result else "predict"
            cells: list[float] = []
            for key in (action, "value"):
                cells += [result.get(key, np.nan), float(expected.get(f"{key}_error", np.nan))]
            cells += [result.get(key, np.nan) for key in ("log_prob", "entropy")]
            print(
                f"| {name} |",
                " | ".join("" if np.isnan(cell) else f"{cell:.1e}" for cell in cells),
                "|",
                flush=True,
            )


if __name__ == "__main__":
    main()
