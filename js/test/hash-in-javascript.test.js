// Where there is no WebCrypto, as on a page from the disk, the hash of this file does all.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

test("a file is verified without WebCrypto", async () => {
  Object.defineProperty(globalThis, "crypto", { value: undefined, configurable: true });
  const { load, PolicyError } = await import("../policy-core.js?without-webcrypto");
  const bytes = readFileSync(new URL("../../tests/golden/v1-policy.msgpack", import.meta.url));
  await load(bytes);
  bytes[bytes.length >> 1] ^= 1;
  await assert.rejects(
    load(bytes),
    (error) => error instanceof PolicyError && /^checksum: /.test(error.message),
  );
});
