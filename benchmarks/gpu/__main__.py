"""Runs the sections in turn, and keeps what is done; see the package."""

import argparse
import datetime
import importlib.metadata
import json
import platform
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.gpu import exact, measure, speed, training
from benchmarks.gpu.page import rendered, write_page

RAW = measure.ROOT / "build/gpu.json"
SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "floor": speed.floor_rows,
    "members": speed.members,
    "files": speed.files,
    "training": training.training,
    "images": speed.images,
    "memories": speed.memories,
    "exactness": exact.exactness,
    "golden": exact.golden,
    "bits": exact.bits,
}


def machine() -> dict[str, Any]:
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        driver = "no nvidia-smi"
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "driver": driver,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], help="some of them; all by default")
    parser.add_argument("--seconds", type=float, default=measure.seconds_of_a_ratio, help="for each ratio")
    parser.add_argument("--budget", type=float, default=900.0, help="seconds after which none is begun")
    parser.add_argument(
        "--out", type=Path, default=RAW, help="the raw rows; those of other sections are kept"
    )
    parser.add_argument("--render", action="store_true", help="write docs/gpu.md from the raw rows")
    options = parser.parse_args()
    if options.render:
        write_page(json.loads(options.out.read_text()))
        return
    measure.seconds_of_a_ratio = options.seconds
    start = time.perf_counter()
    raw: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"sections": {}}
    about, failed = machine(), False
    for name in options.sections or SECTIONS:
        if time.perf_counter() - start > options.budget:
            print(f"{name}: not begun, the time is up", flush=True)
            continue
        begun = time.perf_counter()
        try:
            raw["sections"][name] = SECTIONS[name]()
        except Exception as error:  # the others are still worth their time; the page says so
            traceback.print_exc()
            raw["sections"][name], failed = {"error": f"{type(error).__name__}: {error}"}, True
        raw["sections"][name] |= {"machine": about, "seconds": time.perf_counter() - begun}
        print(f"{name}: {raw['sections'][name]['seconds']:.0f} s", flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(raw, indent=1))
    print(rendered(raw))
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
