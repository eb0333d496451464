// What does not depend on a config: on the golden files, which hold their self-test.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import test from "node:test";
import { inspect, load, PolicyError, sha256 } from "../policy-core.js";

const golden = (name) => readFileSync(new URL(`../../tests/golden/${name}.msgpack`, import.meta.url));
const POLICY = golden("v1-policy"),
  POPULATION = golden("v1-population");
const refused = (promise, message) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof PolicyError, `${error.stack}`);
    assert.match(error.message, message);
    return true;
  });
const throws = (f, message) => assert.throws(f, { name: "PolicyError", message });

test("the hash is SHA-256", () => {
  for (const size of [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 2 ** 16]) {
    const bytes = randomBytes(size);
    assert.deepEqual([...sha256(bytes)], [...createHash("sha256").update(bytes).digest()]);
  }
});

test("a policy says what it is", async () => {
  const policy = await load(POLICY);
  assert.equal(policy.config.type, "policy_core/ActorCriticConfig");
  assert.match(policy.fingerprint, /^[0-9a-f]{64}$/);
  assert.deepEqual(policy.metadata, { golden: "v1-policy.msgpack" });
  assert.deepEqual(policy.batch, []);
  assert.equal(policy.observationSpace.type, "policy_core/Box");
  const info = await inspect(POLICY);
  assert.equal(info.fingerprint, policy.fingerprint);
  assert.ok(info.leaves.some((row) => row.path === "actor/head/bias" || row.path.startsWith("actor/head/")));
});

test("bytes come in every form", async () => {
  const { fingerprint } = await load(POLICY);
  const bytes = new Uint8Array(POLICY);
  const around = new Uint8Array(bytes.length + 7);
  around.set(bytes, 3);
  for (const source of [
    bytes,
    bytes.buffer,
    around.subarray(3, 3 + bytes.length),
    new DataView(bytes.buffer),
    new Blob([bytes]),
    new Response(bytes),
  ]) {
    assert.equal((await load(source)).fingerprint, fingerprint);
  }
  await refused(load("policy.msgpack"), /^load: got string, expected the bytes of a file/);
  await refused(load(null), /^load: got object, expected the bytes/);
});

test("a file that is changed while it is read is not used", async () => {
  const bytes = new Uint8Array(POLICY),
    loading = load(bytes);
  bytes.fill(0);
  await loading;
});

test("a member of a population", async () => {
  const { batch } = await inspect(POPULATION);
  assert.equal(batch.length, 1);
  const values = [];
  for (let member = 0; member < batch[0]; member++) {
    const policy = await load(POPULATION, { member });
    const [, value] = policy.value(policy.reset(), new Float32Array(product(policy.observationSpace)));
    values.push(value);
  }
  assert.equal(new Set(values).size, batch[0], "members differ");
  for (const member of [[], batch[0], -1, 0.5, "0", [0, 0], null]) {
    await refused(
      load(POPULATION, { member }),
      /^member: got \(.*\), expected an index for each of the axes \(\d+\)$/,
    );
  }
  await refused(
    load(POLICY, { member: 0 }),
    /^member: got \(0\), expected an index for each of the axes \(\)$/,
  );
});

const product = (space) => space.fields.shape.reduce((a, b) => a * b, 1);

test("an observation has the form of its space", async () => {
  const policy = await load(POLICY),
    { shape } = policy.observationSpace.fields;
  assert.deepEqual(shape, [2]);
  const [, expected] = policy.act(null, [0.5, -1]);
  for (const observation of [new Float32Array([0.5, -1]), new Float64Array([0.5, -1])]) {
    assert.deepEqual(policy.act(null, observation)[1], expected);
  }
  for (const observation of [
    [1],
    [1, 2, 3],
    [[1, 2]],
    [[1], [2]],
    1,
    "ab",
    ["a", "b"],
    [1, null],
    [1n, 2n],
    null,
    undefined,
    {},
    { 0: 1, 1: 2 },
    new Float32Array(3),
    [, 1],
    [undefined, 1],
  ]) {
    throws(() => policy.act(null, observation), /^observation: got .*, expected Box\(2\)$/);
  }
});

test("what draws an action gives numbers in [0, 1)", async () => {
  const policy = await load(POLICY);
  for (const u of [1, -0.1, NaN, undefined, "0.5"]) {
    throws(
      () => policy.act(null, [0, 0], { random: () => u }),
      /^random: it gave .*, expected a number in \[0, 1\)$/,
    );
  }
  throws(() => policy.act(null, [0, 0], { random: 7 }), /^random: got 7, expected a function$/);
});

test("a self-test that fails is told", async () => {
  await load(POLICY);
  await refused(
    load(POLICY, { selfTest: 0 }),
    /^self-test: '[a-z_]+.*' is off by .*, at most 0 is allowed, over \d+ obs/,
  );
  assert.equal((await load(POLICY, { selfTest: false })).selfTest, null);
});

test("every flipped bit is noticed", async () => {
  const bytes = new Uint8Array(POLICY),
    accepted = [];
  for (let i = 0; i < bytes.length; i++) {
    for (let bit = 0; bit < 8; bit++) {
      bytes[i] ^= 1 << bit;
      await load(bytes).then(
        () => accepted.push([i, bit]),
        (error) => assert.ok(error instanceof PolicyError, error),
      );
      bytes[i] ^= 1 << bit;
    }
  }
  assert.deepEqual(accepted, []);
});

test("every truncation and every trailing byte is noticed", async () => {
  for (let size = 0; size < POLICY.length; size++) await refused(load(POLICY.subarray(0, size)), /./);
  for (let byte = 0; byte < 256; byte++) await refused(load(Buffer.concat([POLICY, Buffer.of(byte)])), /./);
  await refused(load(Buffer.concat([POLICY, POLICY])), /./);
});

/** The file with this content: what docs/file-format.md puts behind it. */
function sealed(content) {
  const digest = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();
  const blocks = [];
  for (let i = 0; i < content.length; i += 2 ** 16) blocks.push(digest(content.subarray(i, i + 2 ** 16)));
  const digests = Buffer.concat(blocks);
  const head = Buffer.from([0xa6, ...Buffer.from("blocks"), 0xc4, digests.length]);
  const tail = Buffer.from([0xa8, ...Buffer.from("checksum"), 0xc4, 32]);
  return Buffer.concat([content, head, digests, tail, digest("policy_core file\n", digests)]);
}

test("random damage under a good checksum is refused or loads, and nothing hangs", async () => {
  const content = POLICY.subarray(0, POLICY.lastIndexOf("\xa6blocks", undefined, "latin1"));
  assert.deepEqual(sealed(content), POLICY);
  const counts = { refused: 0, loaded: 0 },
    limit = process.env.POLICY_CORE_FULL ? 30_000 : 3000;
  let x = 1;
  const random = (n) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % n;
  };
  for (let i = 0; i < limit; i++) {
    const parts = [Buffer.from(content)];
    for (let j = Math.max(random(6) - 3, 0); j >= 0; j--) {
      const all = Buffer.concat(parts.splice(0)),
        at = random(all.length);
      const middle = [
        [random(256)],
        [...all.subarray(at, at + 1), random(256)],
        [],
        [...all.subarray(random(all.length)).subarray(0, random(20))],
        [0xdd, 0xff, 0xff, 0xff, 0xff],
        [0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0],
      ][Math.max(random(24) - 18, 0)]; // mostly one byte for another
      parts.push(all.subarray(0, at), Buffer.from(middle), all.subarray(at + 1));
    }
    const bytes = sealed(Buffer.concat(parts)),
      before = process.cpuUsage();
    await load(bytes, { selfTest: false }).then(
      (policy) => {
        counts.loaded += 1;
        policy.act(policy.reset(), [0.5, -1], { random: () => 0.5 });
      },
      (error) => {
        counts.refused += 1;
        assert.ok(error instanceof PolicyError, error.stack);
        assert.doesNotMatch(error.message, /contradicts itself/, "each has words of its own");
      },
    );
    const { user, system } = process.cpuUsage(before);
    assert.ok(user + system < 500_000, `mutation ${i} took ${(user + system) / 1e6} s`);
  }
  assert.ok(counts.refused > limit / 2 && counts.loaded > limit / 50, JSON.stringify(counts));
});
