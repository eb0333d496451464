"""The page of docs/demo/ in a headless Chromium: it balances, refuses what is damaged, and can be used by all."""

import functools
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from in_node import NODE
from policy_core_adapters.exports import javascript

import policy_core as pc

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "docs/demo"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FILE = DEMO / "cartpole.msgpack"

pytestmark = pytest.mark.usefixtures("unchecked")


def _hook() -> Any:
    spec = importlib.util.spec_from_file_location("demo_hook", ROOT / "docs/tools/demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `js/test/page.mjs` saw of the page, as it stands on the site."""
    if NODE is None or CHROMIUM is None:
        pytest.skip("there is no node, or no Chromium")
    if subprocess.run([NODE, "-e", "new WebSocket"], capture_output=True, check=False).stderr.count(
        b"ReferenceError"
    ):
        pytest.skip("this node has no WebSocket: it is older than 22")
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(DEMO, folder / "demo")
    for path, content in _hook().contents().items():
        (folder / path).write_text(content)
    good = FILE.read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    (folder / "demo/damaged.msgpack").write_bytes(damaged)
    shutil.copy(ROOT / "tests/golden/v1-policy.msgpack", folder / "demo/other.msgpack")
    params, config = pc.load(FILE)
    population = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x, -x]), params), config
    pc.save(folder / "demo/population.msgpack", population, self_test=False)
    javascript.write(FILE, folder / "export", (), 1)
    shots = Path(os.environ.get("POLICY_CORE_SHOTS", folder / "demo"))  # where people want to look at them
    for name in ("damaged", "other", "population"):
        if shots != folder / "demo":
            shutil.copy(folder / f"demo/{name}.msgpack", shots)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/demo/index.html"
    try:
        result = subprocess.run(
            [NODE, str(ROOT / "js/test/page.mjs"), CHROMIUM, url, str(shots)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert result.returncode == 0, result.stderr
    return {**json.loads(result.stdout), "url": url}


def test_it_balances_for_an_episode_and_through_pushes(findings):
    assert findings["balanced"]["returns"] == [500]
    assert findings["balanced"]["furthest"] < 2.4
    assert [result["returns"] for result in findings["pushed"]] == [[500]] * len(findings["pushed"])
    jolts = [result["jolt"] for result in findings["pushed"]]
    assert max(jolts) > 2 * findings["balanced"]["jolt"], (
        "a push that goes with the policy's own force is felt"
    )


def test_what_is_damaged_or_not_for_it_is_refused_in_words_and_the_policy_goes_on(findings):
    damaged, other, population = findings["chosen"]
    for text in (damaged, findings["damaged"]["status"], findings["dropped"]):
        assert "was refused. checksum: the file is truncated or damaged. The policy before goes on." in text
    assert findings["damaged"]["name"] == "cartpole.msgpack"
    assert findings["damaged"]["step"] == 10
    for text in (other, findings["other"]["status"]):
        assert "is whole, but not for CartPole: it sees Box(2) and does Dict of 2 parts, where" in text
    assert population.endswith("population.msgpack, member 0 of 3: verified; it has no self-test.")
    assert findings["members"] == 3
    assert findings["member"].endswith("population.msgpack, member 1 of 3: verified; it has no self-test.")


def test_what_export_writes_opens_in_a_browser(findings):
    fingerprint = pc.inspect(FILE).fingerprint.hex()
    assert findings["exported"] == f"{fingerprint}: policy.act(policy.reset(), observation) in the console"
    assert findings["exported action"] in (0, 1)


def test_keys_and_buttons(findings):
    first, second = findings["moves"]
    assert second - first > 15  # of 60 in 1.2 s
    assert findings["paused"] == "Start"
    assert findings["stands"]
    assert findings["reset"] == 0


def test_it_is_for_everyone(findings):
    """Light and dark, less motion, a phone, a screen reader."""
    assert findings["theme"] == ["light", "dark", "dark"]
    assert findings["still"]["text"] == "Start"
    assert "as your system asks for less motion" in findings["still"]["said"]
    assert findings["wide"] == 360, "nothing is wider than a phone"
    assert findings["unnamed"] == []
    assert len(findings["named"]) >= 12


def test_it_asks_nothing_of_the_net(findings):
    origin = findings["url"].removesuffix("demo/index.html")
    assert [url for url in findings["requests"] if not url.startswith(origin)] == []
    assert findings["errors"] == []


def test_the_policy_of_the_page_is_that_of_the_demo():
    info = pc.inspect(FILE)
    assert info.metadata["environment"] == "CartPole-v1"
    assert "make demo" in info.metadata["origin"]
    assert pc.verify(FILE).deviation < 1e-5
    assert info.nbytes < 50_000


def test_the_equations_are_those_of_gymnasium():
    if NODE is None:
        pytest.skip("there is no node")
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("CartPole-v1").unwrapped
    rng = np.random.default_rng(0)
    starts = rng.uniform(-1, 1, (50, 4)) * (2.0, 2.0, 0.2, 2.0)
    source = (DEMO / "demo.js").read_text()
    start, end = source.index("const LIMIT"), source.index("const $ =")
    function = (
        source[source.index("export function dynamics") :].removeprefix("export ").partition("\n}\n")[0]
    )
    script = (
        f"{source[start:end]}\n{function}\n}}\n"
        "const starts = JSON.parse(process.argv[1]);\n"
        "console.log(JSON.stringify(starts.map((s) => [dynamics(s, 0), dynamics(s, 1)])));"
    )
    result = subprocess.run(
        [NODE, "-e", script, json.dumps(starts.tolist())], capture_output=True, text=True, check=True
    )
    for body, pair in zip(starts, json.loads(result.stdout), strict=True):
        for action, got in enumerate(pair):
            env.reset()
            env.state = tuple(body)
            expected, *_ = env.step(action)
            assert np.allclose(got, expected, rtol=1e-5, atol=1e-6)
