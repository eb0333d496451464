/**
 * policy-core.js: reads, verifies and runs policy files in a browser, or anywhere else with JavaScript.
 *
 *     import { load } from "./policy-core.js";
 *     const policy = await load(await fetch("cartpole.msgpack"));
 *     let state = policy.reset(), action;
 *     [state, action] = policy.act(state, observation);                          // deterministic
 *     [state, action] = policy.act(state, observation, { random: Math.random }); // a draw
 *
 * The file is verified as docs/file-format.md says, from its checksum to its self-test. What a config asks
 * for and this file does not know is an error, never left out. Numbers are computed in 64 bits and kept in
 * the dtype of the policy. The tables ENCODERS, NETWORKS, MEMORIES, HEADS, VALUES and POLICIES have what is
 * found by the name of a class: add a function there for one of your own.
 */

/** Whatever is wrong with a file or an argument, in words. */
export class PolicyError extends Error {
  name = "PolicyError";
}

function fail(text) {
  throw new PolicyError(text);
}

const product = (shape) => shape.reduce((a, b) => a * b, 1);
const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);
const shown = (shape) => `(${shape.join(", ")})`;

function few(count, what, most = 100) {
  if (count > most) fail(`${what}: got ${count}, at most ${most} are allowed`);
  return count;
}

// SHA-256. Pages from the disk, or by http from another host than localhost, have no WebCrypto, which is
// several times as fast; blocks are hashed by it where it is.

const digestOf = globalThis.crypto?.subtle
  ? async (bytes) => new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", bytes))
  : async (bytes) => sha256(bytes);

const ROUNDS = Int32Array.from(primes(64), (p) => fraction(Math.cbrt(p)));
const STARTS = Int32Array.from(primes(8), (p) => fraction(Math.sqrt(p)));

function primes(count) {
  const found = [];
  for (let n = 2; found.length < count; n++) if (found.every((p) => n % p)) found.push(n);
  return found;
}

function fraction(x) {
  return ((x - Math.floor(x)) * 2 ** 32) | 0;
}

/** The SHA-256 of bytes, as 32 bytes. */
export function sha256(bytes) {
  const state = Int32Array.from(STARTS),
    w = new Int32Array(64);
  const whole = bytes.length - (bytes.length % 64);
  const tail = new Uint8Array(bytes.length - whole < 56 ? 64 : 128);
  tail.set(bytes.subarray(whole));
  tail[bytes.length - whole] = 0x80;
  const end = new DataView(tail.buffer);
  end.setUint32(tail.length - 8, Math.floor(bytes.length / 2 ** 29));
  end.setUint32(tail.length - 4, bytes.length << 3);
  compress(bytes, whole, state, w);
  compress(tail, tail.length, state, w);
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => digest.setInt32(4 * i, word));
  return new Uint8Array(digest.buffer);
}

function compress(bytes, size, state, w) {
  for (let at = 0; at < size; at += 64) {
    for (let i = 0, j = at; i < 16; i++, j += 4) {
      w[i] = (bytes[j] << 24) | (bytes[j + 1] << 16) | (bytes[j + 2] << 8) | bytes[j + 3];
    }
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15],
        y = w[i - 2];
      const s = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const t = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = (w[i - 16] + s + w[i - 7] + t) | 0;
    }
    let a = state[0],
      b = state[1],
      c = state[2],
      d = state[3];
    let e = state[4],
      f = state[5],
      g = state[6],
      h = state[7];
    for (let i = 0; i < 64; i++) {
      const s = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t = (h + s + ((e & f) ^ (~e & g)) + ROUNDS[i] + w[i]) | 0;
      const r = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const u = (r + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t) | 0;
      d = c;
      c = b;
      b = a;
      a = (t + u) | 0;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
  }
}

const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function seal(head, bytes) {
  const all = new Uint8Array(head.length + 1 + bytes.length);
  all.set(utf8.encode(`${head}\n`));
  all.set(bytes, head.length + 1);
  return sha256(all);
}

// THE MSGPACK OF FILES. Not a package: they accept what is not canonical, extensions and any depth, and a
// reader must refuse all of that. tests/test_javascript.py compares it with Python's msgpack.

const FORMS = new Map(); // tag -> [kind, bytes of the number after it, the least number that is written so]
[2 ** 7, 2 ** 8, 2 ** 16, 2 ** 32].forEach((least, i) => FORMS.set(0xcc + i, ["size", 1 << i, least]));
[-(2 ** 5), -(2 ** 7), -(2 ** 15), -(2 ** 31)].forEach((most, i) =>
  FORMS.set(0xd0 + i, ["negative", 1 << i, most]),
);
[0, 2 ** 8, 2 ** 16].forEach((least, i) => FORMS.set(0xc4 + i, ["bytes", 1 << i, least]));
[2 ** 5, 2 ** 8, 2 ** 16].forEach((least, i) => FORMS.set(0xd9 + i, ["text", 1 << i, least]));
[2 ** 4, 2 ** 16].forEach((least, i) => FORMS.set(0xdc + i, ["list", 2 << i, least]));
[2 ** 4, 2 ** 16].forEach((least, i) => FORMS.set(0xde + i, ["map", 2 << i, least]));
const CONSTANTS = new Map([
  [0xc0, null],
  [0xc2, false],
  [0xc3, true],
]);

/** A position in bytes. Every method throws for what is not canonical. */
export class Reader {
  constructor(bytes, position = 0) {
    this.bytes = bytes;
    this.position = position;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.values = 2 ** 18; // of a config, at most
  }

  /** A size, or that of text, bytes, a list or a map, each of which is at least as long in bytes. */
  number(kind, most, what) {
    const [got, number] = this.token(what);
    if (got !== kind) fail(`${what}: expected a ${kind}, got a ${got}`);
    if (number > most) fail(`${what}: ${number} is too many, at most ${most} are allowed`);
    if (kind !== "size" && number > this.bytes.length - this.position) {
      fail(`${what}: truncated, ${number} declared`);
    }
    return Number(number);
  }

  take(kind, most, what) {
    const size = this.number(kind, most, what);
    this.position += size;
    return this.bytes.subarray(this.position - size, this.position);
  }

  text(most, what) {
    const bytes = this.take("text", most, what);
    try {
      return text.decode(bytes);
    } catch {
      return fail(`${what}: text that is no UTF-8, before byte ${this.position}`);
    }
  }

  /** A value of a config; whole numbers are BigInt, as 1 and 1.0 are not the same config. */
  value(what = "config", depth = 0) {
    this.values -= 1;
    if (this.values < 0 || depth > 64) fail(`${what}: too many values, or nested too deep`);
    const start = this.position,
      [kind, number] = this.token(what);
    if (kind === "bytes") fail(`${what}: bytes in a config`);
    if (kind === "size" || kind === "negative") return BigInt(number);
    if (kind === "constant" || kind === "float") return number;
    this.position = start;
    if (kind === "text") return this.text(2 ** 16, what);
    if (kind === "map") return this.#config(what, depth);
    const list = [];
    for (let left = this.number("list", this.values, what); left > 0; left--) {
      list.push(this.value(what, depth + 1));
    }
    return list;
  }

  #config(what, depth) {
    this.values -= 128;
    if (this.values < 0 || depth >= 64) fail(`${what}: too many values, or nested too deep`);
    if (this.number("map", 2, what) !== 2 || this.text(4, what) !== "type") {
      fail(`${what}: expected a map of 'type' and 'fields'`);
    }
    const type = this.text(2 ** 16, what);
    if (this.text(6, what) !== "fields") fail(`${what}: expected the key 'fields'`);
    const fields = [];
    for (let left = this.number("map", Math.max(this.values, 0), what); left > 0; left--) {
      const key = this.text(2 ** 16, what);
      if (fields.length && !ascends(fields.at(-1)[0], key)) {
        fail(`${what}: the field '${key}' is there twice, or out of order`);
      }
      fields.push([key, this.value(what, depth + 2)]);
    }
    return { type, fields: Object.fromEntries(fields) }; // which makes an own property of any name
  }

  /** The kind of what stands here, and its number or its size; the position moves behind them. */
  token(what) {
    const start = this.position;
    if (start >= this.bytes.length) fail(`${what}: truncated`);
    const tag = this.bytes[start];
    this.position += 1;
    if (tag < 0x80) return ["size", tag];
    if (tag < 0x90) return ["map", tag & 15];
    if (tag < 0xa0) return ["list", tag & 15];
    if (tag < 0xc0) return ["text", tag & 31];
    if (tag >= 0xe0) return ["negative", tag - 0x100];
    if (CONSTANTS.has(tag)) return ["constant", CONSTANTS.get(tag)];
    const [kind, width, limit] = tag === 0xcb ? ["float", 8, 0] : (FORMS.get(tag) ?? ["", 0, 0]);
    this.position += width;
    if (!kind || this.position > this.bytes.length) {
      fail(`${what}: truncated, or what no policy file has, at byte ${start}: 0x${tag.toString(16)}`);
    }
    const view = this.view,
      at = start + 1;
    if (kind === "float") {
      const number = view.getFloat64(at);
      if (Number.isNaN(number) || Object.is(number, -0)) fail(`${what}: NaN or -0.0`);
      return [kind, number];
    }
    const number =
      width === 8
        ? kind === "negative"
          ? view.getBigInt64(at)
          : view.getBigUint64(at)
        : view[`get${kind === "negative" ? "Int" : "Uint"}${8 * width}`](at);
    if (kind === "negative" ? number >= limit : number < limit) {
      fail(`${what}: a number is not in its shortest form, at byte ${start}`);
    }
    return [kind, number];
  }
}

/** Whether a stands before b by code points; `<` compares the halves of surrogate pairs. */
function ascends(a, b) {
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i++;
  if (i && a.charCodeAt(i - 1) >> 10 === 0x36) i--; // equal first halves of two pairs
  return i >= a.length ? i < b.length : i < b.length && a.codePointAt(i) < b.codePointAt(i);
}

// THE FILE

const START = Uint8Array.from([
  0x8b,
  0xa6,
  ...utf8.encode("format"),
  0xab,
  ...utf8.encode("policy_core"),
  0xa7,
  ...utf8.encode("version"),
]);
const BLOCK = 2 ** 16,
  DIGEST = 32,
  CHUNK = 2 ** 32 - 64,
  MOST = Number.MAX_SAFE_INTEGER;
const DAMAGED = "checksum: the file is truncated or damaged";
const SIZES = new Map([
  ...[
    "bool",
    "int8",
    "uint8",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
  ].map((name) => [name, 1]),
  ...["int16", "uint16", "float16", "bfloat16"].map((name) => [name, 2]),
  ...["int32", "uint32", "float32"].map((name) => [name, 4]),
  ...["int64", "uint64", "float64", "complex64", "key:threefry2x32"].map((name) => [name, 8]),
  ...["complex128", "key:rbg", "key:unsafe_rbg"].map((name) => [name, 16]),
]);

/** The content of a file: all but its last two keys, verified by the digests of its blocks. */
async function contentOf(bytes) {
  if (!same([...bytes.subarray(0, START.length)], [...START])) fail("not a policy file");
  const blocks = Math.floor(bytes.length / (BLOCK + DIGEST));
  for (let count = Math.max(blocks - 1, 0); count < blocks + 3; count++) {
    const head = [0xa6, ...utf8.encode("blocks"), ...headerOf(count * DIGEST)];
    const size = bytes.length - head.length - count * DIGEST - 11 - DIGEST;
    if (size < 0 || Math.ceil(size / BLOCK) !== count) continue;
    const at = size + head.length,
      digests = bytes.subarray(at, at + count * DIGEST);
    const middle = [0xa8, ...utf8.encode("checksum"), 0xc4, DIGEST];
    const ending = [...middle, ...seal("policy_core file", digests)];
    if (!same([...bytes.subarray(size, at)], head)) fail(DAMAGED);
    if (!same([...bytes.subarray(at + digests.length)], ending)) fail(DAMAGED);
    for (let i = 0; i < count; i++) {
      const digest = await digestOf(bytes.subarray(i * BLOCK, Math.min((i + 1) * BLOCK, size)));
      if (!same([...digest], [...digests.subarray(i * DIGEST, (i + 1) * DIGEST)])) fail(DAMAGED);
    }
    return bytes.subarray(0, size);
  }
  return fail(`not a policy file, or truncated: no policy file has ${bytes.length} bytes`);
}

function headerOf(size) {
  if (size < 2 ** 8) return [0xc4, size];
  if (size < 2 ** 16) return [0xc5, size >> 8, size & 255];
  return [0xc6, size >>> 24, (size >> 16) & 255, (size >> 8) & 255, size & 255];
}

async function read(bytes) {
  if (new Uint8Array(Uint16Array.of(1).buffer)[0] !== 1) fail("big-endian machines are not supported");
  const content = await contentOf(bytes),
    reader = new Reader(content, START.length);
  const after = (name) => {
    if (reader.text(16, "keys") !== name) fail(`keys: expected '${name}'`);
  };
  const version = reader.number("size", MOST, "version");
  if (version !== 1) fail(`version: got ${version}, expected 1; a newer policy-core.js may read it`);
  after("config");
  const config = reader.take("bytes", 2 ** 22, "config");
  after("fingerprint");
  const fingerprint = hex(reader.take("bytes", 32, "fingerprint"));
  if (fingerprint !== hex(seal("policy_core config", config))) {
    fail("fingerprint: it is not that of the config in the file");
  }
  after("metadata");
  const metadata = metadataOf(reader);
  after("batch");
  const batch = shapeOf(reader, 16, "batch");
  const [leaves, selfTest, extra] = ["leaves", "self_test", "extra"].map((name) => {
    after(name);
    return rowsOf(reader, name);
  });
  const inner = new Reader(config),
    typed = inner.value();
  if (reader.position !== content.length || inner.position !== config.length) {
    fail("file, config: bytes too many");
  }
  if (!isConfig(typed)) fail("config: it is not one");
  return { typed, fingerprint, metadata, batch, leaves, selfTest, extra, content };
}

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

function metadataOf(reader) {
  const start = reader.position,
    pairs = [];
  for (let left = reader.number("map", 2 ** 10, "metadata"); left > 0; left--) {
    const name = reader.text(2 ** 8, "metadata");
    if (pairs.length && !ascends(pairs.at(-1)[0], name)) {
      fail(`metadata: the name '${name}' is there twice, or out of order`);
    }
    pairs.push([name, reader.text(2 ** 20, "metadata")]);
  }
  if (reader.position - start > 2 ** 20) fail("metadata: too many bytes");
  return Object.fromEntries(pairs);
}

function shapeOf(reader, most, what) {
  const shape = [];
  for (let left = reader.number("list", most, what); left > 0; left--) {
    shape.push(reader.number("size", MOST, what));
  }
  return shape;
}

function rowsOf(reader, what) {
  const rows = new Map();
  let last = null;
  for (let left = reader.number("list", 2 ** 16, what); left > 0; left--) {
    const row = rowOf(reader, what);
    if (last !== null && !ascends(last, row.path)) {
      fail(`${what}: the leaf '${row.path}' is there twice, or out of order`);
    }
    rows.set((last = row.path), row);
  }
  return rows;
}

function rowOf(reader, what) {
  if (reader.number("list", 5, what) !== 5) {
    fail(`${what}: expected rows of [path, dtype, shape, padding, chunks]`);
  }
  const path = reader.text(2 ** 12, what),
    where = `${what}: the leaf '${path}'`;
  const dtype = reader.text(64, where),
    width = SIZES.get(dtype);
  if (!width) fail(`${where} is of the unknown dtype '${dtype}'`);
  const shape = shapeOf(reader, 32, where);
  const padding = reader.take("bytes", 63, where);
  const most = shape.reduce((n, size) => n * BigInt(Math.max(size, 1)), BigInt(width));
  if (most >= 2n ** 62n) fail(`${where} has the shape ${shown(shape)}, larger than any array`);
  let left = shape.includes(0) ? 0 : Number(most);
  if (padding.some((byte) => byte) || (left === 0 && padding.length)) {
    fail(`${where} has a padding that is not zero`);
  }
  const chunks = [];
  for (let more = reader.number("list", Math.ceil(left / CHUNK), where); more > 0; more--) {
    const size = reader.number("bytes", Math.min(left, CHUNK), where);
    const chunk = reader.bytes.subarray(reader.position, reader.position + size);
    if (!chunks.length && reader.position % 64) fail(`${where} is not aligned to 64 bytes`);
    reader.position += size;
    if (size !== Math.min(left, CHUNK)) break;
    left -= size;
    if (dtype === "bool" && chunk.some((byte) => byte > 1)) {
      fail(`${where} is bool and holds a byte that is neither 0 nor 1`);
    }
    chunks.push(chunk);
  }
  if (left) fail(`${where} has not the bytes of its shape ${shown(shape)}`);
  return { path, dtype, shape, chunks, where };
}

const DECODED = {
  bool: Uint8Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  float32: Float32Array,
  float64: Float64Array,
};

/** The numbers of a row that stand at an index of its first axes. */
function numbersOf(row, index) {
  const inner = product(row.shape.slice(index.length)) * SIZES.get(row.dtype);
  const place = index.reduce((at, i, axis) => at * row.shape[axis] + i, 0);
  const bytes = new Uint8Array(inner);
  let skip = place * inner,
    at = 0;
  for (const chunk of row.chunks) {
    if (skip < chunk.length && at < inner) {
      const piece = chunk.subarray(skip, skip + inner - at);
      bytes.set(piece, at);
      at += piece.length;
    }
    skip = Math.max(skip - chunk.length, 0);
  }
  const { dtype } = row;
  if (dtype === "bfloat16") {
    return new Float32Array(Uint32Array.from(new Uint16Array(bytes.buffer), (bits) => bits << 16).buffer);
  }
  if (dtype === "float16") return Float32Array.from(new Uint16Array(bytes.buffer), half);
  if (dtype === "int64") return Float64Array.from(new BigInt64Array(bytes.buffer), Number);
  if (dtype === "uint64") return Float64Array.from(new BigUint64Array(bytes.buffer), Number);
  if (!Object.hasOwn(DECODED, dtype)) fail(`${row.where} is ${dtype}, which no policy here has`);
  return new DECODED[dtype](bytes.buffer);
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1,
    exponent = (bits >> 10) & 31,
    part = bits & 1023;
  if (exponent === 31) return part ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + part / 1024) : part * 2 ** -24);
}

// CONFIGS: what each field of a class holds. Whole numbers are still BigInt here.

const isConfig = (x) => typeof x === "object" && x !== null && !Array.isArray(x);
const isText = (x) => typeof x === "string";
const isFlag = (x) => typeof x === "boolean";
const isReal = (x) => typeof x === "number";
const finite = (x) => isReal(x) && Number.isFinite(x);
const isPositive = (x) => finite(x) && x > 0;
const isName = (x) => isText(x) || typeof x === "bigint";
const whole = (least) => (x) => typeof x === "bigint" && x >= least && x <= MOST;
const oneOf =
  (...names) =>
  (x) =>
    names.includes(x);
const many = (check) => (x) => Array.isArray(x) && x.every(check);
const orNone = (check) => (x) => x === null || check(x);
const pairs = (name, value) => many((x) => Array.isArray(x) && x.length === 2 && name(x[0]) && value(x[1]));
/** Pairs in the one order that a config has: ints first, then text; or all as text. */
function sortedPairs(value, asText = false) {
  const before = (a, b) => {
    if (asText) return ascends(String(a), String(b));
    if (isText(a) !== isText(b)) return isText(b);
    return isText(a) ? ascends(a, b) : a < b;
  };
  return (x) => pairs(isName, value)(x) && x.every((pair, i) => !i || before(x[i - 1][0], pair[0]));
}

const isShape = (x) => many(whole(0))(x) && x.length <= 16 && x.reduce((a, b) => a * b, 1n) < 2n ** 60n;
const isPart = orNone(isConfig);

const FLOATS = ["float16", "bfloat16", "float32", "float64"];
const WIDTHS = { int8: 8, int16: 16, int32: 32, int64: 64, uint8: 8, uint16: 16, uint32: 32, uint64: 64 };
const isDtype = oneOf(...FLOATS);
const tower = { activation: isText, kernel_init: isText, gain: finite };
const gates = { size: whole(1), layer_norm: isFlag, learned_start: isFlag };
const bounds = (x) => isReal(x) || many(isReal)(x);
const affine = (x) => finite(x) || many(finite)(x);
const meanBound = orNone((x) => isReal(x) && x > 0);

export const CLASSES = {
  ActorCriticConfig: {
    observation_space: isConfig,
    action_space: isConfig,
    actor: isPart,
    critic: isPart,
    actor_keys: orNone(many(isText)),
    critic_keys: orNone(many(isText)),
    trunk: isPart,
    encoder: isConfig,
    normalize: isPart,
    memory: isPart,
    memory_sharing: oneOf("shared", "separate", "actor"),
    box_head: isConfig,
    autoregressive: isPart,
    temperature: orNone(isPositive),
    actor_gain: finite,
    critic_gain: finite,
    param_dtype: isDtype,
    compute_dtype: isDtype,
    value_head: isConfig,
    name: isText,
    encoder_sharing: oneOf("shared", "separate"),
    discrete_head: isConfig,
    heads: isPart,
  },
  InEnvActions: { config: isConfig },
  Box: { low: bounds, high: bounds, shape: isShape, dtype: oneOf(...FLOATS, ...Object.keys(WIDTHS)) },
  Discrete: { n: whole(1), start: whole(-(2 ** 31)) },
  MultiDiscrete: { nvec: many(whole(1)), shape: isShape, start: many(whole(-(2 ** 31))) },
  MultiBinary: { shape: isShape },
  Dict: {
    spaces: (x) => pairs(isText, isConfig)(x) && x.every((pair, i) => !i || ascends(x[i - 1][0], pair[0])),
  },
  Tuple: { spaces: many(isConfig) },
  Flatten: {},
  Encode: { network: isConfig },
  Embedding: { size: whole(1) },
  Parts: { encoders: sortedPairs(isConfig), rest: isPart },
  CNN: {
    channels: many(whole(1)),
    kernels: many(whole(1)),
    strides: orNone(many(whole(1))),
    padding: oneOf("VALID", "SAME"),
    pool: oneOf("none", "max", "mean"),
    window: whole(1),
    activation: isText,
    size: orNone(whole(1)),
    gain: finite,
  },
  NatureCNN: { size: whole(1) },
  ImpalaCNN: { channels: many(whole(1)), blocks: whole(1), size: whole(1) },
  MinAtarCNN: { filters: whole(1), size: whole(1) },
  Normalize: {
    clip: (x) => isReal(x) && x > 0,
    epsilon: isPositive,
    form: oneOf("variance", "std"),
    min_std: (x) => finite(x) && x >= 0,
    max_count: (x) => isReal(x) && x >= 1,
    keys: orNone(many(isText)),
  },
  MLP: {
    hidden: many(whole(1)),
    ...tower,
    layer_norm: isFlag,
    epsilon: isPositive,
    bias: isFlag,
  },
  ResidualMLP: { width: whole(1), blocks: whole(1), expansion: whole(1), ...tower },
  LayerNorm: { epsilon: isPositive },
  Sequential: { networks: many(isConfig) },
  GRU: gates,
  LSTM: gates,
  MinGRU: { size: whole(1), horizon: (x) => finite(x) && x >= 2, learned_start: isFlag },
  WindowAttention: { size: whole(1), window: whole(1), heads: whole(1) },
  FrameStack: { frames: whole(1), fill: oneOf("zeros", "first") },
  Stack: { layers: many(isConfig), residual: isFlag, skip: oneOf("none", "concat") },
  Scale: {
    std: oneOf("global", "state", "fixed"),
    log_std: isReal,
    low: isReal,
    high: isReal,
    positive: oneOf("exp", "softplus", "identity"),
    min_std: (x) => finite(x) && x >= 0,
    factor: isPositive,
    bounding: oneOf("clip", "tanh"),
  },
  LogitsHead: {},
  NormalHead: {
    scale: isConfig,
    mean_bound: meanBound,
    offset: affine,
    factor: affine,
    clip: (x) => isReal(x) && x > 0,
  },
  SquashedNormalHead: { scale: isConfig, mean_bound: meanBound },
  BetaHead: { low: isReal, high: isReal },
  BinsHead: { bins: whole(2) },
  GSDEHead: {
    log_std: finite,
    positive: oneOf("exp", "expln"),
    full_std: isFlag,
    squash: isFlag,
    learn_features: isFlag,
    resample_every: orNone(whole(1)),
    epsilon: isPositive,
  },
  Autoregressive: {
    parents: sortedPairs(many(isName), true),
    network: isConfig,
    masks: sortedPairs(isText, true),
  },
  PartHeads: { heads: sortedPairs(isConfig) },
  PopArtHead: {
    objectives: orNone(whole(1)),
    preserve: isFlag,
    max_count: (x) => isReal(x) && x >= 1,
    epsilon: isPositive,
  },
  RegressionHead: { objectives: orNone(whole(1)), scale: isPositive, symlog: isFlag },
  TwoHotHead: {
    low: isReal,
    high: isReal,
    bins: whole(2),
    symlog: isFlag,
    objectives: orNone(whole(1)),
    gain: finite,
  },
  HLGaussHead: {
    low: isReal,
    high: isReal,
    bins: whole(2),
    sigma: isPositive,
    objectives: orNone(whole(1)),
    gain: finite,
  },
};

const shipped = (name, fields = {}) => ({ type: `policy_core/${name}`, fields });

/** What a field holds that a file does not have, since its class has got it later. */
export const DEFAULTS = {
  ActorCriticConfig: {
    actor: shipped("MLP"),
    critic: shipped("MLP"),
    actor_keys: null,
    critic_keys: null,
    trunk: null,
    encoder: null, // for the one of the observation space
    normalize: null,
    memory: null,
    memory_sharing: "shared",
    box_head: shipped("NormalHead"),
    autoregressive: null,
    temperature: null,
    actor_gain: 0.01,
    critic_gain: 1,
    param_dtype: "float32",
    compute_dtype: "float32",
    value_head: shipped("RegressionHead"),
    name: "ActorCriticConfig",
    encoder_sharing: "shared",
    discrete_head: shipped("LogitsHead"),
    heads: null,
  },
  Autoregressive: { network: shipped("MLP", { hidden: [64n] }), masks: [] },
  BetaHead: { low: 1, high: 1e4 },
  BinsHead: { bins: 11 },
  Box: { low: -Infinity, high: Infinity, shape: [], dtype: "float32" },
  CNN: {
    strides: null,
    padding: "VALID",
    pool: "none",
    window: 2,
    activation: "relu",
    size: 512,
    gain: Math.SQRT2,
  },
  Discrete: { start: 0 },
  FrameStack: { fill: "zeros" },
  GRU: { layer_norm: false, learned_start: false },
  GSDEHead: {
    log_std: -2,
    positive: "exp",
    full_std: true,
    squash: false,
    learn_features: false,
    resample_every: null,
    epsilon: 1e-6,
  },
  HLGaussHead: { bins: 101, sigma: 0.75, objectives: null, gain: 0 },
  ImpalaCNN: { channels: [16, 32, 32], blocks: 2, size: 256 },
  LSTM: { layer_norm: false, learned_start: false },
  LayerNorm: { epsilon: 1e-5 },
  MLP: {
    hidden: [64, 64],
    activation: "tanh",
    kernel_init: "lecun_orthogonal",
    gain: Math.SQRT2,
    layer_norm: false,
    epsilon: 1e-5,
    bias: true,
  },
  MinAtarCNN: { filters: 16, size: 128 },
  MinGRU: { horizon: 100, learned_start: false },
  NatureCNN: { size: 512 },
  NormalHead: { scale: shipped("Scale"), mean_bound: null, offset: 0, factor: 1, clip: Infinity },
  Normalize: { clip: 10, epsilon: 1e-8, form: "variance", min_std: 0, max_count: Infinity, keys: null },
  Parts: { rest: null },
  PopArtHead: { objectives: null, preserve: true, max_count: 1e5, epsilon: 1e-5 },
  RegressionHead: { objectives: null, scale: 1, symlog: false },
  ResidualMLP: {
    width: 128,
    blocks: 2,
    expansion: 4,
    activation: "relu",
    kernel_init: "orthogonal",
    gain: Math.SQRT2,
  },
  Scale: {
    std: "global",
    log_std: 0,
    low: -20,
    high: 20,
    positive: "exp",
    min_std: 0,
    factor: 1,
    bounding: "clip",
  },
  SquashedNormalHead: { scale: shipped("Scale"), mean_bound: null },
  Stack: { residual: false, skip: "none" },
  TwoHotHead: { bins: 255, symlog: false, objectives: null, gain: 0 },
  WindowAttention: { window: 32, heads: 4 },
};

const inRange = (start, n) => n < 2 ** 31 && start + n <= 2 ** 31;
const isGrid = ({ low, high }) => -1e38 <= low && low < high && high <= 1e38;

// What holds between the fields of a class; numbers are plain here.
const TOGETHER = {
  BetaHead: ({ low, high }) => 0 < low && low < high && high < Infinity,
  Box: ({ low, high, shape, dtype }) => {
    const size = product(shape),
      width = WIDTHS[dtype];
    const [least, most] = !width
      ? [-Infinity, Infinity]
      : dtype[0] === "u"
        ? [0, 2 ** width]
        : [-(2 ** (width - 1)), 2 ** (width - 1)];
    const good = (x) => !width || !Number.isFinite(x) || (Number.isInteger(x) && least <= x && x <= most);
    const [a, b] = [low, high].map((end) => (Array.isArray(end) ? end : [end]));
    return (
      [low, high].every((end) => !Array.isArray(end) || (end.length === size && new Set(end).size !== 1)) &&
      a.every(good) &&
      b.every(good) &&
      !a.includes(Infinity) &&
      !b.includes(-Infinity) &&
      (a.length >= b.length ? a.every((x, i) => x <= (b[i] ?? b[0])) : b.every((x) => a[0] <= x)) &&
      (a.length !== b.length || a.every((x, i) => x <= b[i]))
    );
  },
  Discrete: ({ start, n }) => inRange(start, n),
  HLGaussHead: isGrid,
  MultiDiscrete: ({ nvec, shape, start }) =>
    nvec.length === start.length &&
    nvec.length === product(shape) &&
    nvec.every((n, i) => inRange(start[i], n)),
  CNN: ({ channels, kernels, strides }) =>
    channels.length > 0 &&
    kernels.length === channels.length &&
    (strides === null || (strides.length === channels.length && strides.some((x) => x !== 1))),
  NormalHead: ({ factor }) => ![factor].flat().includes(0),
  Scale: ({ low, log_std, high }) => low <= log_std && log_std <= high,
  TwoHotHead: isGrid,
};

/** A config with plain numbers and the fields that were left out, once it is known to hold what it can. */
function checked(value, path = "config") {
  if (typeof value === "bigint") {
    if (value > MOST || value < -MOST) fail(`${path}: ${value} is more than JavaScript counts exactly`);
    return Number(value);
  }
  if (Array.isArray(value)) return value.map((item, i) => checked(item, `${path}[${i}]`));
  if (!isConfig(value)) return value;
  const [, name] = /^policy_core\/(.*)$/s.exec(value.type) ?? [];
  const known = Object.hasOwn(CLASSES, name ?? "") ? CLASSES[name] : null;
  const fields = known ? completed(name, known, value.fields, path) : Object.entries(value.fields);
  const plain = Object.fromEntries(fields.map(([key, item]) => [key, checked(item, `${path}.${key}`)]));
  if (known && Object.hasOwn(TOGETHER, name) && !TOGETHER[name](plain)) {
    fail(`${path}: its fields are not what ${name} can hold together`);
  }
  return { type: value.type, fields: plain };
}

function completed(name, known, fields, path) {
  for (const key of Object.keys(fields)) {
    if (!Object.hasOwn(known, key))
      fail(`${name}.${key}: the field is not supported here, and none is ignored`);
  }
  return Object.entries(known).map(([key, check]) => {
    if (!Object.hasOwn(fields, key)) {
      if (Object.hasOwn(DEFAULTS[name] ?? {}, key)) return [key, DEFAULTS[name][key]];
      fail(`${path}: the field '${key}' of ${name} is missing`);
    }
    if (!check(fields[key])) fail(`${path}.${key}: ${brief(fields[key])} is not what ${name} can hold`);
    return [key, fields[key]];
  });
}

const brief = (x) =>
  (JSON.stringify(x, (_, y) => (typeof y === "bigint" ? Number(y) : y)) ?? `${x}`).slice(0, 60);

function find(table, data, kind) {
  if (!Object.hasOwn(table, data.type)) {
    fail(`no ${kind} '${data.type}' is supported here; there is ${Object.keys(table).sort().join(", ")}`);
  }
  return table[data.type];
}

// PARAMS

/** Params below a path. A leaf that nobody asked for is an error in the end. */
class Leaves {
  constructor(rows, index, batch, dtype, prefix = "", unused = new Set(rows.keys())) {
    Object.assign(this, { rows, index, batch, dtype, prefix, unused });
  }

  at(name) {
    return new Leaves(this.rows, this.index, this.batch, this.dtype, `${this.prefix}${name}/`, this.unused);
  }

  /** The numbers of a leaf, which must have this shape and dtype. */
  leaf(name, shape, dtypes = [this.dtype]) {
    const path = this.prefix + name,
      row = this.rows.get(path);
    if (!row) fail(`leaves: the leaf '${path}' of the config's params is missing`);
    const full = [...this.batch, ...shape];
    if (!dtypes.includes(row.dtype) || !same(row.shape, full)) {
      fail(`leaves: '${path}' is ${row.dtype}${shown(row.shape)}, expected ${dtypes[0]}${shown(full)}`);
    }
    this.unused.delete(path);
    return numbersOf(row, this.index);
  }
}

// NUMBERS

const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const clip = (x, low, high) => Math.min(Math.max(x, low), high);
const symexp = (x) => Math.sign(x) * Math.expm1(Math.abs(x));

/** By name, from a number to a number. */
export const ACTIVATIONS = {
  elu: (x) => (x > 0 ? x : Math.expm1(x)),
  gelu: (x) => x * (0.5 + 0.5 * Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  identity: (x) => x,
  leaky_relu: (x) => (x >= 0 ? x : 0.01 * x),
  relu: (x) => Math.max(x, 0),
  selu: (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)),
  sigmoid,
  silu: (x) => x * sigmoid(x),
  softplus,
  tanh: Math.tanh,
};

function float16(x) {
  const size = Math.abs(x);
  if (!(size > 0 && size < Infinity)) return x;
  if (size >= 65520) return Math.sign(x) * Infinity;
  const unit = 2 ** (Math.max(Math.floor(Math.log2(size)), -14) - 10);
  const low = Math.floor(size / unit),
    rest = size / unit - low;
  return Math.sign(x) * unit * (rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low);
}

const single = new Float32Array(1),
  bits = new Uint32Array(single.buffer);

function bfloat16(x) {
  single[0] = x;
  if (!Number.isFinite(single[0])) return single[0];
  bits[0] = (bits[0] + 0x7fff + ((bits[0] >>> 16) & 1)) & 0xffff0000;
  return single[0];
}

/** The next float32 after x, upwards or downwards. */
function nextAfter(x, up) {
  single[0] = x;
  if (x === 0) return up ? 2 ** -149 : -(2 ** -149);
  bits[0] += x > 0 === up ? 1 : -1;
  return single[0];
}

const ROUND = { float16, bfloat16, float32: Math.fround, float64: (x) => x };

function concat(arrays) {
  const all = new Float64Array(arrays.reduce((n, array) => n + array.length, 0));
  let at = 0;
  for (const array of arrays) {
    all.set(array, at);
    at += array.length;
  }
  return all;
}

const each = (f) => (x) => {
  const y = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) y[i] = f(x[i]);
  return y;
};

const chain = (layers) => (x) => layers.reduce((y, layer) => layer(y), x);

/** x @ kernel + bias; `context.kept` makes the params what the policy computes in. */
function linear(at, inputs, outputs, { kept }, biased = true) {
  const kernel = kept(at.leaf("kernel", [inputs, outputs]));
  const bias = biased ? kept(at.leaf("bias", [outputs])) : outputs;
  return (x) => {
    const y = new Float64Array(bias);
    for (let i = 0, k = 0; i < inputs; i++) {
      const a = x[i];
      for (let j = 0; j < outputs; j++) y[j] += a * kernel[k++];
    }
    return y;
  };
}

/** Rows of this size, each of mean 0 and variance 1. */
function normalized(x, size, epsilon = 1e-5) {
  const y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += size) {
    let mean = 0,
      variance = 0;
    for (let i = start; i < start + size; i++) mean += x[i] / size;
    for (let i = start; i < start + size; i++) variance += (x[i] - mean) ** 2 / size;
    for (let i = start; i < start + size; i++) y[i] = (x[i] - mean) / Math.sqrt(variance + epsilon);
  }
  return y;
}

function layerNorm(at, size, { kept }, epsilon = 1e-5) {
  const scale = kept(at.leaf("scale", [size])),
    bias = kept(at.leaf("bias", [size]));
  return (x) => normalized(x, size, epsilon).map((y, i) => y * scale[i] + bias[i]);
}

// NETWORKS: (fields, params, size of the input, context) -> { size, apply }

export const NETWORKS = {
  "policy_core/MLP"(fields, at, inputs, context) {
    const activation = context.activation("MLP", fields.activation),
      layers = [];
    few(fields.hidden.length, "MLP.hidden");
    fields.hidden.forEach((width, i) => {
      layers.push(linear(at.at(`hidden_${i}`), inputs, width, context, fields.bias));
      inputs = width;
      if (fields.layer_norm) layers.push(layerNorm(at.at(`norm_${i}`), width, context, fields.epsilon));
      layers.push(activation);
    });
    return { size: inputs, apply: chain(layers) };
  },

  "policy_core/ResidualMLP"(fields, at, inputs, context) {
    const activation = context.activation("ResidualMLP", fields.activation),
      { width } = fields;
    const layers = [linear(at.at("input"), inputs, width, context)];
    for (let i = 0; i < few(fields.blocks, "ResidualMLP.blocks"); i++) {
      const part = at.at(`block_${i}`),
        norm = layerNorm(part.at("norm"), width, context);
      const up = linear(part.at("up"), width, width * fields.expansion, context);
      const down = linear(part.at("down"), width * fields.expansion, width, context);
      layers.push((x) => down(activation(up(norm(x)))).map((y, j) => x[j] + y));
    }
    return { size: width, apply: chain([...layers, layerNorm(at.at("norm"), width, context)]) };
  },

  "policy_core/LayerNorm"(fields, at, inputs, context) {
    return { size: inputs, apply: layerNorm(at, inputs, context, fields.epsilon) };
  },

  "policy_core/Sequential"(fields, at, inputs, context) {
    few(fields.networks.length, "Sequential.networks");
    const layers = fields.networks.map((data, i) => {
      const inner = network(data, at.at(`network_${i}`), inputs, context);
      inputs = inner.size;
      return inner.apply;
    });
    return { size: inputs, apply: chain(layers) };
  },
};

function network(data, at, inputs, context) {
  return find(NETWORKS, data, "network")(data.fields, at, inputs, context);
}

// SPACES. An element is a number, an array in C order (or nested arrays), an object or a list of elements.

const kindOf = (space) => {
  const [, kind] =
    /^policy_core\/(Box|Discrete|MultiDiscrete|MultiBinary|Dict|Tuple)$/.exec(space.type) ?? [];
  return kind ?? fail(`space: no space '${space.type}' is supported here`);
};
const isJoint = (space) => ["Dict", "Tuple"].includes(kindOf(space));
const isFloat = (space) => space.fields.dtype.includes("float");

/** Name, or place, to part of a Dict or Tuple. */
function partsOf(space) {
  const { spaces } = space.fields;
  return new Map(kindOf(space) === "Dict" ? spaces : spaces.map((part, i) => [i, part]));
}

const joined = (space, entries) =>
  kindOf(space) === "Dict" ? Object.fromEntries(entries) : entries.map(([, value]) => value);

/** The size of the flat form of an element; without `oneHot`, the number of its entries. */
function flatSize(space, oneHot = true) {
  const { fields } = space;
  switch (kindOf(space)) {
    case "Box":
    case "MultiBinary":
      return product(fields.shape);
    case "Discrete":
      return oneHot ? fields.n : 1;
    case "MultiDiscrete":
      return oneHot ? fields.nvec.reduce((a, b) => a + b, 0) : fields.nvec.length;
    default:
      return [...partsOf(space).values()].reduce((n, part) => n + flatSize(part, oneHot), 0);
  }
}

const isView = (x) => ArrayBuffer.isView(x) && typeof x.length === "number";

const kindOfValue = (x) => (x === null ? "null" : isView(x) || Array.isArray(x) ? "array" : typeof x);

function givenShape(x) {
  if (isView(x)) return [x.length];
  if (Array.isArray(x)) return x.length ? [x.length, ...givenShape(x[0])] : [0];
  return [];
}

/** The numbers of nested arrays, or of an array in C order; `name` is for errors. */
function numbers(x, shape, name, what, good) {
  const bad = () =>
    fail(`${name}: got ${kindOfValue(x)}${shown(givenShape(x))}, expected ${what}${shown(shape)}`);
  const size = product(shape);
  if (isView(x) && shape.length ? x.length !== size : !same(givenShape(x), shape)) bad();
  const all = new Float64Array(size);
  let at = 0;
  const visit = (item, depth) => {
    if (depth < shape.length) {
      if (!isView(item) && !(Array.isArray(item) && item.length === shape[depth])) bad();
      if (isView(item) && depth + 1 < shape.length && depth > 0) bad();
      const deeper = isView(item) ? shape.length : depth + 1;
      for (const part of item) visit(part, deeper);
    } else {
      if ((typeof item !== "number" && typeof item !== "boolean") || !good(item)) {
        fail(`${name}: got ${brief(item)} in it, expected ${what}${shown(shape)}`);
      }
      all[at++] = item;
    }
  };
  visit(x, 0);
  return all;
}

/** observation -> observation in the form used here, or an error unless it is one of the space. */
function checkedOf(space, name = "observation") {
  const { fields } = space,
    kind = kindOf(space);
  if (isJoint(space)) {
    const parts = partsOf(space);
    const inner = [...parts].map(([key, part]) => [key, checkedOf(part, `${name}[${brief(key)}]`)]);
    return (x) => {
      const given = kind === "Dict" ? isConfig(x) && !isView(x) : Array.isArray(x);
      if (!given || Object.keys(x).length !== parts.size || inner.some(([key]) => !Object.hasOwn(x, key))) {
        fail(`${name}: expected ${kind === "Dict" ? "an object" : "a list"} of ${brief([...parts.keys()])}`);
      }
      return new Map(inner.map(([key, part]) => [key, part(x[key])]));
    };
  }
  const shape = kind === "Discrete" ? [] : fields.shape;
  if (kind === "Box" && isFloat(space)) {
    const round = fields.dtype === "float64" ? ROUND.float64 : Math.fround;
    return (x) => numbers(x, shape, name, kind, () => true).map(round);
  }
  const integral = (x) => Number.isInteger(Number(x));
  return (x) => numbers(x, shape, name, kind, integral);
}

/** From an element in that form to its flat form. */
function flattenOf(space) {
  const { fields } = space;
  switch (kindOf(space)) {
    case "Box":
      return (x) => (fields.dtype === "float64" ? x : x.map(Math.fround));
    case "MultiBinary":
      return (x) => x;
    case "Discrete":
      return oneHot([fields.n], [fields.start]);
    case "MultiDiscrete":
      return oneHot(fields.nvec, fields.start);
    default: {
      const parts = [...partsOf(space)].map(([key, part]) => [key, flattenOf(part)]);
      return (x) => concat(parts.map(([key, flatten]) => flatten(x.get(key))));
    }
  }
}

/** One row after the other, each zeros for a number outside of its range. */
function oneHot(sizes, starts) {
  const total = sizes.reduce((a, b) => a + b, 0);
  return (x) => {
    const flat = new Float64Array(total);
    for (let i = 0, before = 0; i < sizes.length; before += sizes[i++]) {
      const index = x[i] - starts[i];
      if (index >= 0 && index < sizes[i]) flat[before + index] = 1;
    }
    return flat;
  };
}

/** What Normalize does to an element of a space. */
function normalizerOf(space, config, at) {
  if (config.type !== "policy_core/Normalize") fail(`normalize: '${config.type}' is not supported here`);
  const { clip: most, epsilon, form, min_std: least, keys } = config.fields;
  const of = (part, leaves) => {
    if (isJoint(part)) {
      const inner = [...partsOf(part)].map(([key, deeper]) => [key, of(deeper, leaves.at(key))]);
      return (x) => new Map(inner.map(([key, apply]) => [key, apply(x.get(key))]));
    }
    if (kindOf(part) !== "Box" || !isFloat(part)) return (x) => x;
    const shape = [2, ...part.fields.shape],
      size = product(part.fields.shape);
    const [, mean, variance] = ["count", "mean", "variance"].map((name) =>
      leaves.leaf(name, shape, ["float32", "float64"]),
    );
    const round = mean instanceof Float32Array ? Math.fround : ROUND.float64;
    const scale = new Float64Array(size);
    for (let i = 0; i < size; i++) {
      const seen = Math.max(variance[i], 0);
      scale[i] = Math.max(Math.sqrt(form === "std" ? seen : seen + epsilon), least);
      scale[i] = round(form === "std" ? scale[i] + epsilon : scale[i]);
    }
    return (x) => x.map((a, i) => clip((round(round(a) - mean[i]) - mean[size + i]) / scale[i], -most, most));
  };
  if (keys === null) return of(space, at);
  if (kindOf(space) !== "Dict") fail("normalize: Normalize.keys is for a Dict");
  const inner = [...partsOf(space)].map(([key, part]) => [
    key,
    keys.includes(key) ? of(part, at.at(key)) : (x) => x,
  ]);
  return (x) => new Map(inner.map(([key, apply]) => [key, apply(x.get(key))]));
}

/** The shape, dtype and bounds of a box, and its numbers from there to an action. */
class Box {
  constructor(space, wide) {
    const { low, high, shape, dtype } = space.fields;
    Object.assign(this, { shape, size: product(shape), isFloat: isFloat(space) });
    const name = wide ? dtype : dtype.replace("64", "32"); // JAX would have 32 bits
    const ends = [low, high].map((end) =>
      Array.isArray(end) ? Float64Array.from(end) : new Float64Array(this.size).fill(end),
    );
    if (this.isFloat) {
      this.round = ROUND[name];
      [this.low, this.high] = ends.map((end) => end.map(this.round));
      if (name !== dtype) {
        // narrowed: inwards
        const inner = this.low.map((x, i) => (Number.isFinite(x) && x < ends[0][i] ? nextAfter(x, true) : x));
        const outer = this.high.map((x, i) =>
          Number.isFinite(x) && x > ends[1][i] ? nextAfter(x, false) : x,
        );
        this.low = this.low.map((x, i) => (inner[i] <= outer[i] ? inner[i] : x));
        this.high = this.high.map((x, i) => (inner[i] <= outer[i] ? outer[i] : x));
      }
      this.type = name === "float64" ? Float64Array : Float32Array;
    } else {
      const width = WIDTHS[name],
        signed = name[0] === "i";
      const least = signed ? -(2 ** (width - 1)) : 0,
        most = 2 ** (signed ? width - 1 : width) - 1;
      [this.low, this.high] = ends.map((end) => end.map((x) => clip(x, least, most)));
      if ([...this.low, ...this.high].some((x) => !Number.isSafeInteger(x))) {
        fail(`Box: ${dtype} beyond 2^53, which JavaScript does not count exactly`);
      }
      this.round = ROUND.float64;
      this.type = width === 64 ? Float64Array : DECODED[name];
    }
    this.bounded = Array.from(this.low, (x, i) => Number.isFinite(x) && Number.isFinite(this.high[i]));
    this.allBounded = this.bounded.every((x) => x);
  }

  /** An action: within the bounds, of the dtype; a number for a box without axes. */
  clip(x) {
    const y = this.type.from(x, (a, i) => clip(this.round(a), this.low[i], this.high[i]));
    return this.shape.length ? y : y[0];
  }

  /** The point at the fraction `up` = 1 - `down` between the bounds of an entry. */
  between(i, up, down) {
    return (this.bounded[i] ? this.low[i] : -1) * down + (this.bounded[i] ? this.high[i] : 1) * up;
  }
}

// ENCODERS: (fields, space, params, context) -> { size, apply }

export const ENCODERS = {
  "policy_core/Flatten"(fields, space, at, { round }) {
    const flatten = flattenOf(space);
    return { size: flatSize(space), apply: (x) => flatten(x).map(round) };
  },

  "policy_core/Encode"(fields, space, at, context) {
    const flatten = flattenOf(space),
      inner = network(fields.network, at, flatSize(space), context);
    return { size: inner.size, apply: (x) => inner.apply(flatten(x).map(context.round)) };
  },

  "policy_core/Embedding"(fields, space, at, { kept }) {
    const kind = kindOf(space),
      { size } = fields,
      of = space.fields;
    const total = flatSize(space) * (kind === "MultiBinary" ? 2 : 1);
    if (!["Discrete", "MultiDiscrete", "MultiBinary"].includes(kind))
      fail(`Embedding: it is not for a ${kind}`);
    const table = kept(at.leaf("table", [total, size]));
    const count = flatSize(space, false);
    const sizes = { Discrete: [of.n], MultiDiscrete: of.nvec }[kind] ?? new Array(count).fill(2);
    const starts = { Discrete: [of.start], MultiDiscrete: of.start }[kind] ?? new Array(count).fill(0);
    return {
      size: size * count,
      apply: (x) => {
        const y = new Float64Array(size * count);
        for (let i = 0, before = 0; i < count; before += sizes[i++]) {
          const index = x[i] - starts[i];
          if (index < 0 || index >= sizes[i]) continue;
          const first = (before + index) * size;
          y.set(table.subarray(first, first + size), i * size);
        }
        return y;
      },
    };
  },

  "policy_core/Parts"(fields, space, at, context) {
    if (!isJoint(space)) fail(`Parts: it is not for a ${kindOf(space)}`);
    const named = new Map(fields.encoders),
      parts = partsOf(space);
    const inner = [...parts].map(([key, part]) => {
      const data = named.get(key) ?? fields.rest ?? fail(`Parts.encoders: ${brief(key)} has none`);
      return [key, encoderOf(data, part, at.at(key), context)];
    });
    return {
      size: inner.reduce((n, [, { size }]) => n + size, 0),
      apply: (x) => concat(inner.map(([key, { apply }]) => apply(x.get(key)))),
    };
  },

  "policy_core/CNN": (fields, space, at, context) => convolutions(fields, space, at, context, 1),

  "policy_core/NatureCNN": ({ size }, space, at, context) =>
    convolutions(
      { ...PLAIN, channels: [32, 64, 64], kernels: [8, 4, 3], strides: [4, 2, 1], size },
      space,
      at,
      context,
      36,
    ),

  "policy_core/MinAtarCNN": ({ filters, size }, space, at, context) =>
    convolutions({ ...PLAIN, channels: [filters], kernels: [3], size }, space, at, context, 3),

  "policy_core/ImpalaCNN"(fields, space, at, context) {
    const pixels = pixelsOf(space, 1, context),
      relu = each(ACTIVATIONS.relu),
      stages = [];
    let [height, width, before] = space.fields.shape;
    few(fields.channels.length, "ImpalaCNN.channels");
    few(fields.blocks, "ImpalaCNN.blocks");
    fields.channels.forEach((after, i) => {
      const part = at.at(`stage_${i}`);
      const first = convolution(
        part.at("convolution"),
        [height, width, before],
        after,
        3,
        1,
        "SAME",
        context,
      );
      const pooled = pooledAcross(first.shape);
      [height, width, before] = pooled.shape;
      const blocks = [];
      for (let j = 0; j < fields.blocks; j++) {
        const [one, two] = [0, 1].map((k) =>
          convolution(
            part.at(`block_${j}`).at(`convolution_${k}`),
            pooled.shape,
            after,
            3,
            1,
            "SAME",
            context,
          ),
        );
        blocks.push((x) => two.apply(relu(one.apply(relu(x)))).map((y, k) => x[k] + y));
      }
      stages.push(chain([first.apply, pooled.apply, ...blocks]));
    });
    const dense = linear(at.at("linear"), height * width * before, fields.size, context);
    return { size: fields.size, apply: chain([pixels, ...stages, relu, dense, relu]) };
  },
};

const PLAIN = { strides: null, padding: "VALID", pool: "none", window: 2, activation: "relu" };

/** A CNN for images of uint8, Flatten for everything else. */
function defaultEncoder(space) {
  if (isJoint(space)) {
    const encoders = [...partsOf(space)].map(([key, part]) => [key, defaultEncoder(part)]);
    const flat = encoders.every(([, { type }]) => type === "policy_core/Flatten");
    return flat ? shipped("Flatten") : shipped("Parts", { encoders, rest: null });
  }
  const { dtype, shape } = space.fields;
  if (kindOf(space) !== "Box" || dtype !== "uint8") return shipped("Flatten");
  const side = [...shape].sort((a, b) => a - b).at(-2); // also if the channels come first
  if (shape.length === 3) {
    if (side >= 36) return shipped("NatureCNN", { size: 512 });
    return side >= 3 ? shipped("MinAtarCNN", { filters: 16, size: 128 }) : shipped("Flatten");
  }
  if ([2, 4].includes(shape.length) && side >= 8) fail("config: the field 'encoder' is missing");
  return shipped("Flatten");
}

function encoderOf(data, space, at, context) {
  return find(ENCODERS, data, "encoder")(data.fields, space, at, context);
}

/** A CNN: convolutions, each with an activation and pooling, and a linear layer. */
function convolutions(fields, space, at, context, least) {
  const layers = [pixelsOf(space, least, context)];
  const activation = context.activation("CNN", fields.activation);
  let { shape } = space.fields;
  few(fields.channels.length, "CNN.channels");
  fields.channels.forEach((filters, i) => {
    const layer = convolution(
      at.at(`convolution_${i}`),
      shape,
      filters,
      fields.kernels[i],
      fields.strides?.[i] ?? 1,
      fields.padding,
      context,
    );
    layers.push(layer.apply, activation);
    ({ shape } = layer);
    if (fields.pool === "none") return;
    const pooled = pooledApart(shape, fields.window, fields.pool);
    layers.push(pooled.apply);
    ({ shape } = pooled);
  });
  if (fields.size === null) return { size: product(shape), apply: chain(layers) };
  layers.push(linear(at.at("linear"), product(shape), fields.size, context), activation);
  return { size: fields.size, apply: chain(layers) };
}

/** The pixels of an image, uint8 divided by 255. */
function pixelsOf(space, least, { round }) {
  if (kindOf(space) !== "Box" || space.fields.shape.length !== 3) {
    fail("encoder: it takes an image, which the observation is not");
  }
  const [height, width] = space.fields.shape;
  if (Math.min(height, width) < least) {
    fail(`encoder: got an image of ${height} x ${width}, expected at least ${least} x ${least}`);
  }
  return space.fields.dtype === "uint8" ? each((x) => round(round(x) / 255)) : each(round);
}

function convolution(at, shape, filters, side, stride, padding, { kept }) {
  const [height, width, channels] = shape;
  const kernel = kept(at.leaf("kernel", [side, side, channels, filters]));
  const bias = kept(at.leaf("bias", [filters]));
  const [rows, columns] = [height, width].map((n) =>
    padding === "SAME" ? Math.ceil(n / stride) : Math.floor((n - side) / stride) + 1,
  );
  if (Math.min(rows, columns) < 1) fail("CNN: the image is too small for its layers");
  const [top, left] = padding === "SAME" ? [height, width].map((n) => padBefore(n, side, stride)) : [0, 0];
  const apply = (x) => {
    const y = new Float64Array(rows * columns * filters);
    for (let r = 0, out = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++, out += filters) {
        for (let f = 0; f < filters; f++) y[out + f] = bias[f];
        for (let i = 0; i < side; i++) {
          const row = r * stride + i - top;
          if (row < 0 || row >= height) continue;
          for (let j = 0; j < side; j++) {
            const column = c * stride + j - left;
            if (column < 0 || column >= width) continue;
            let k = (i * side + j) * channels * filters;
            for (let d = 0, from = (row * width + column) * channels; d < channels; d++) {
              const a = x[from + d];
              for (let f = 0; f < filters; f++) y[out + f] += a * kernel[k++];
            }
          }
        }
      }
    }
    return y;
  };
  return { shape: [rows, columns, filters], apply };
}

/** How many pixels are put before an axis, so that ceil(size / stride) windows fit. */
const padBefore = (size, side, stride) =>
  Math.floor(Math.max(stride * (Math.ceil(size / stride) - 1) + side - size, 0) / 2);

function pooled(shape, [rows, columns], window, stride, pads, start, join) {
  const [height, width, channels] = shape,
    [top, left] = pads;
  const apply = (x) => {
    const y = new Float64Array(rows * columns * channels).fill(start);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        const out = (r * columns + c) * channels;
        for (let i = r * stride - top; i < r * stride - top + window; i++) {
          for (let j = c * stride - left; j < c * stride - left + window; j++) {
            if (i < 0 || j < 0 || i >= height || j >= width) continue;
            for (let d = 0, from = (i * width + j) * channels; d < channels; d++) {
              y[out + d] = join(y[out + d], x[from + d]);
            }
          }
        }
      }
    }
    return y;
  };
  return { shape: [rows, columns, channels], apply };
}

/** The maximum or mean over windows that do not overlap; pixels that fill none are left out. */
function pooledApart(shape, window, pool) {
  const sides = shape.slice(0, 2).map((n) => Math.floor(n / window));
  if (Math.min(...sides) < 1) fail("CNN: the image is too small for its layers");
  return pool === "max"
    ? pooled(shape, sides, window, window, [0, 0], -Infinity, Math.max)
    : pooled(shape, sides, window, window, [0, 0], 0, (sum, x) => sum + x / window ** 2);
}

/** The maximum over 3 x 3 at stride 2, padded. */
function pooledAcross(shape) {
  const sides = shape.slice(0, 2).map((n) => Math.ceil(n / 2));
  return pooled(
    shape,
    sides,
    3,
    2,
    shape.slice(0, 2).map((n) => padBefore(n, 3, 2)),
    -Infinity,
    Math.max,
  );
}

// MEMORIES: (fields, params, size of the input, context) -> { size, initial, step }, where `step` is
// (state, x) -> [next state, output]. States have the form that they have in JAX, and are never written to.

export const MEMORIES = {
  "policy_core/GRU"(fields, at, inputs, context) {
    const { size } = fields,
      [seen, recalled] = maps(fields, at, inputs, 3, context);
    const bias = context.kept(at.at("input").leaf("bias", [3 * size]));
    const inner = context.kept(at.at("recurrent").leaf("bias", [size]));
    const start = startOf(fields, at, [size], context);
    return {
      size,
      initial: () => start.slice(),
      step: (state, x) => {
        const w = seen(x),
          u = recalled(held(state, size)),
          next = context.array(size);
        for (let i = 0; i < size; i++) {
          const r = sigmoid(w[i] + bias[i] + u[i]);
          const z = sigmoid(w[size + i] + bias[size + i] + u[size + i]);
          const n = Math.tanh(w[2 * size + i] + bias[2 * size + i] + r * (u[2 * size + i] + inner[i]));
          next[i] = (1 - z) * n + z * state[i];
        }
        return [next, next];
      },
    };
  },

  "policy_core/LSTM"(fields, at, inputs, context) {
    const { size } = fields,
      [seen, recalled] = maps(fields, at, inputs, 4, context);
    const bias = context.kept(at.at("input").leaf("bias", [4 * size]));
    const norm = fields.layer_norm ? layerNorm(at.at("cell"), size, context) : (x) => x;
    const start = startOf(fields, at, [2, size], context);
    return {
      size,
      initial: () => ({ cell: start.slice(0, size), hidden: start.slice(size) }),
      step: (state, x) => {
        const w = seen(x),
          u = recalled(held(state.hidden, size)),
          old = held(state.cell, size);
        const gate = (k, i) => w[k * size + i] + u[k * size + i] + bias[k * size + i];
        const cell = new Float64Array(size),
          hidden = context.array(size);
        for (let i = 0; i < size; i++) {
          cell[i] = sigmoid(gate(1, i)) * old[i] + sigmoid(gate(0, i)) * Math.tanh(gate(2, i));
        }
        const out = norm(cell);
        for (let i = 0; i < size; i++) hidden[i] = sigmoid(gate(3, i)) * Math.tanh(out[i]);
        return [{ cell: context.kept(cell), hidden }, hidden];
      },
    };
  },

  "policy_core/MinGRU"(fields, at, inputs, context) {
    const { size } = fields,
      layer = linear(at.at("linear"), inputs, 2 * size, context);
    const start = startOf(fields, at, [size], context);
    return {
      size,
      initial: () => start.slice(),
      step: (state, x) => {
        const y = layer(x),
          next = context.array(size);
        held(state, size);
        for (let i = 0; i < size; i++) {
          const z = sigmoid(y[i]);
          next[i] = (1 - z) * state[i] + z * y[size + i];
        }
        return [next, next];
      },
    };
  },

  "policy_core/WindowAttention"(fields, at, inputs, context) {
    const { size, window, heads } = fields,
      width = size / heads;
    few(size * window, "WindowAttention.window, times the size", 2 ** 19);
    if (!Number.isInteger(width)) fail("WindowAttention.heads: they do not divide the size");
    const embed = linear(at.at("embedding"), inputs, size, context);
    const attended = linear(at.at("attended"), size, 3 * size, context);
    const output = linear(at.at("output"), size, size, context);
    const norm = layerNorm(at.at("norm"), size, context);
    const ages = context.kept(at.leaf("ages", [heads, window]));
    return {
      size,
      initial: () => ({ keys: context.array(window * size), values: context.array(window * size), count: 0 }),
      step: (state, x) => {
        const e = embed(x),
          all = attended(norm(e)),
          { count } = state;
        const keys = held(state.keys, window * size).slice(),
          values = held(state.values, window * size).slice();
        keys.set(all.subarray(size, 2 * size), (count % window) * size);
        values.set(all.subarray(2 * size), (count % window) * size);
        const read = new Float64Array(size),
          scores = new Float64Array(window);
        for (let h = 0; h < heads; h++) {
          for (let place = 0; place < window; place++) {
            const age = (((count - place) % window) + window) % window;
            let dot = 0;
            for (let i = h * width; i < (h + 1) * width; i++) dot += keys[place * size + i] * all[i];
            scores[place] = age <= count ? dot / Math.sqrt(width) + ages[h * window + age] : -1e30;
          }
          const most = scores.reduce((a, b) => Math.max(a, b)),
            weights = scores.map((z) => Math.exp(z - most));
          const sum = weights.reduce((a, b) => a + b);
          for (let place = 0; place < window; place++) {
            for (let i = h * width; i < (h + 1) * width; i++) {
              read[i] += (weights[place] / sum) * values[place * size + i];
            }
          }
        }
        const out = output(read).map((y, i) => e[i] + y);
        const next = count + 1 < 2 * window ? count + 1 : window + ((count + 1) % window);
        return [{ keys, values, count: next }, out];
      },
    };
  },

  "policy_core/FrameStack"(fields, at, inputs, context) {
    const { frames, fill } = fields,
      size = frames * inputs;
    const start = context.kept(at.leaf("start", [frames - 1, inputs]));
    return {
      size,
      initial: () => ({ frames: start.slice(), ...(fill === "first" && { count: 0 }) }),
      step: (state, x) => {
        const first = fill === "first" && state.count === 0,
          old = held(state.frames, size - inputs);
        const all = concat([...(first ? new Array(frames - 1).fill(x) : [old]), x]);
        return [{ frames: context.kept(all.slice(inputs)), ...(fill === "first" && { count: 1 }) }, all];
      },
    };
  },

  "policy_core/Stack"(fields, at, inputs, context) {
    few(fields.layers.length, "Stack.layers");
    const { residual, skip } = fields,
      first = inputs,
      layers = fields.layers.map((data, i) => {
        const layer = memoryOf(data, at.at(`layer_${i}`), inputs, context);
        if (residual && i && layer.size !== inputs) {
          fail(`Stack.layers[${i}]: got ${layer.size} numbers, expected ${inputs} to add`);
        }
        inputs = layer.size;
        return layer;
      });
    return {
      size: inputs + (skip === "concat" ? first : 0),
      initial: () => layers.map((layer) => layer.initial()),
      step: (state, x) => {
        const start = x;
        const states = layers.map((layer, i) => {
          const [next, y] = layer.step(state[i], x);
          x = residual && i ? concat([x]).map((a, j) => a + y[j]) : y;
          return next;
        });
        return [states, skip === "concat" ? concat([x, start]) : x];
      },
    };
  },
};

function memoryOf(data, at, inputs, context) {
  return find(MEMORIES, data, "memory")(data.fields, at, inputs, context);
}

function held(array, size) {
  return isView(array) && array.length === size
    ? array
    : fail("state: expected the state returned by `reset` or the last call");
}

/** The maps of the input and of the state to the gates, perhaps normalized gate by gate. */
function maps(fields, at, inputs, count, context) {
  const { size } = fields;
  return [
    ["input", inputs],
    ["recurrent", size],
  ].map(([name, width]) => {
    const map = linear(at.at(name), width, count * size, context, false);
    if (!fields.layer_norm) return map;
    const scale = context.kept(at.at(name).leaf("scale", [count * size]));
    return (x) => normalized(map(x), size).map((y, i) => y * scale[i]);
  });
}

function startOf(fields, at, shape, context) {
  return fields.learned_start ? context.kept(at.leaf("start", shape)) : context.array(product(shape));
}

// HEADS: a head -> (features, mask) -> a distribution: mode() and sample(random) give policy actions,
// env(action) the environment action of one, logProb(action) its score in nats, show() what to display.

function choiceOf(head) {
  const { space } = head,
    kind = kindOf(space),
    byPart = headsOfParts(head);
  if (isJoint(space) && head.heads.own === null) {
    const parts = [...partsOf(space)].map(([key, part]) => [
      key,
      choiceOf({ ...head, space: part, at: head.at.at(key), heads: byPart.get(key) }),
    ]);
    const choose = (x, mask) => {
      const rows = partMasks(space, mask);
      return joint(
        space,
        parts.map(([key, choice]) => [key, choice(x, rows(key))]),
      );
    };
    return Object.assign(choose, { noise: jointNoise(parts) });
  }
  const data = headOf(head);
  const choice = find(HEADS, data, "head")({ ...head, fields: data.fields });
  if (kind !== "Box") return choice;
  const choose = (x, mask) => {
    if (mask !== null) fail("actionMask: got a mask for a Box, which cannot be masked; leave it out");
    return choice(x, null);
  };
  return Object.assign(choose, { noise: choice.noise });
}

/** The heads of each part: `box` and `discrete`, `parts`, a PartHeads, and `own`, that of this part alone. */
function headsOfParts({ space, heads }) {
  const data = heads.parts ?? shipped("PartHeads", { heads: [] });
  if (data.type !== "policy_core/PartHeads") fail(`heads: '${data.type}' is not supported here`);
  const given = new Map(data.fields.heads),
    names = isJoint(space) ? [...partsOf(space).keys()] : [];
  for (const name of given.keys()) {
    if (!names.includes(name))
      fail(`heads: ${brief(name)} is none of the parts ${brief(names)} of the action`);
  }
  return new Map(
    names.map((name) => {
      const own = given.get(name) ?? null;
      const nested = own?.type === "policy_core/PartHeads";
      return [name, { ...heads, parts: nested ? own : null, own: nested ? null : own }];
    }),
  );
}

/** The config of the head of a space without parts. */
function headOf({ space, heads }) {
  const kind = kindOf(space),
    plain = kind === "Box" && !isFloat(space) ? shipped("BinsHead", { bins: 2 }) : heads.box;
  const data = heads.own ?? (kind === "Box" ? plain : heads.discrete);
  const takes = {
    LogitsHead: kind !== "Box" && !isJoint(space),
    BinsHead: kind === "Box",
    ...Object.fromEntries(
      ["NormalHead", "SquashedNormalHead", "BetaHead", "GSDEHead"].map((name) => [
        name,
        kind === "Box" && isFloat(space),
      ]),
    ),
  };
  const name = data.type.replace(/^policy_core\//, "");
  if (Object.hasOwn(takes, name) && !takes[name]) fail(`${name}: it is not for the ${kind} of the action`);
  return data;
}

/** The noise that parts of an action keep in the state, by name; undefined if none does. */
function jointNoise(parts) {
  const kept = parts.filter(([, { noise }]) => noise);
  if (!kept.length) return undefined;
  const each = (f) => Object.fromEntries(kept.map(([key, { noise }]) => [key, f(noise, key)]));
  return {
    initial: () => each((noise) => noise.initial()),
    draw: (old, random) => each((noise, key) => noise.draw(old?.[key], random)),
  };
}

function partMasks(space, mask) {
  if (mask === null) return () => null;
  const keys = [...partsOf(space).keys()];
  if (
    typeof mask !== "object" ||
    Object.keys(mask).length !== keys.length ||
    keys.some((key) => !Object.hasOwn(mask, key))
  ) {
    fail(`actionMask: expected one for each of the parts ${brief(keys)}, null for none`);
  }
  return (key) => mask[key] ?? null;
}

function joint(space, parts) {
  const all = (f) =>
    joined(
      space,
      parts.map(([key, part]) => [key, f(part, key)]),
    );
  return {
    mode: () => all((part) => part.mode()),
    sample: (random, noise) => all((part, key) => part.sample(random, noise?.[key])),
    env: (action) => all((part, key) => part.env(action[key])),
    logProb: (action) => parts.reduce((sum, [key, part]) => sum + part.logProb(action[key]), 0),
    show: () => ({ kind: "joint", parts: all((part) => part.show()) }),
  };
}

/** A row of logits in +-1e30, or -2e30 where masked; a row that allows nothing allows everything. */
function cleaned(logits, mask, name) {
  const z = logits.map((x) => clip(x, -1e30, 1e30));
  if (mask === null || mask === undefined) return z;
  if (!Array.isArray(mask) || mask.length !== z.length || mask.some((x) => typeof x !== "boolean")) {
    const got = Array.isArray(mask) ? `${mask.length} entries` : brief(mask);
    fail(`${name}: got ${got}, expected ${z.length} booleans`);
  }
  return mask.includes(true) ? z.map((x, i) => (mask[i] ? x : -2e30)) : z;
}

/** The index of the largest; of a NaN, as NumPy and JAX have it. */
function largest(z) {
  let best = 0;
  for (let i = 1; i < z.length; i++) if (z[i] > z[best] || (z[i] !== z[i] && z[best] === z[best])) best = i;
  return best;
}

/** Probabilities up to a factor. A row with a NaN has equal ones where it is allowed. */
function weightsOf(z) {
  const most = z.reduce((a, b) => Math.max(a, b), -Infinity);
  return z.map((x) => (x < -1.5e30 ? 0 : Number.isNaN(x - most) ? 1 : Math.exp(x - most)));
}

/** The index that a uniform number falls on; never one of weight 0, which does not raise the sum. */
function draw(z, random) {
  const weights = weightsOf(z),
    sums = [];
  weights.reduce((sum, w, i) => (sums[i] = sum + w), 0);
  const whole = sums.at(-1),
    target = uniform(random) * whole;
  const index = sums.findIndex((sum) => sum > target);
  return index < 0 ? sums.indexOf(whole) : Math.min(index, sums.indexOf(whole));
}

function uniform(random) {
  const u = random();
  if (typeof u !== "number" || !(u >= 0 && u < 1)) fail(`random: it gave ${u}, expected a number in [0, 1)`);
  return u;
}

/** A number of the standard normal distribution (Box and Muller 1958), of two uniform ones. */
function normal(random) {
  const u = uniform(random),
    v = uniform(random);
  return Math.sqrt(-2 * Math.log1p(-u)) * Math.cos(2 * Math.PI * v);
}

function logProbOf(z, index) {
  const weights = weightsOf(z);
  return Math.log(weights[index] / weights.reduce((a, b) => a + b, 0));
}

function probabilities(z) {
  const weights = weightsOf(z),
    sum = weights.reduce((a, b) => a + b, 0);
  return Array.from(weights, (w) => w / sum);
}

function logitsOf(head) {
  const layer = linear(head.at, head.inputs, flatSize(head.space), head.context),
    heat = head.temperature;
  return heat === null ? layer : (x) => layer(x).map((z) => z / heat);
}

function categorical(head) {
  const { start } = head.space.fields,
    logits = logitsOf(head);
  return (x, mask) => {
    const z = cleaned(logits(x), mask, "actionMask");
    return {
      mode: () => start + largest(z),
      sample: (random) => start + draw(z, random),
      env: (action) => action,
      logProb: (action) => logProbOf(z, action - start),
      show: () => ({ kind: "categorical", start, probabilities: probabilities(z) }),
    };
  };
}

function bernoulli(head) {
  const { shape } = head.space.fields,
    logits = logitsOf(head);
  return (x, mask) => {
    const z = logits(x);
    const free = mask === null ? null : numbers(mask, shape, "actionMask", "booleans ", isFlag);
    const bits = (one) => Int32Array.from(z, (a, i) => Number(one(a) && (free === null || free[i] === 1)));
    return {
      mode: () => bits((a) => a > 0),
      sample: (random) => bits((a) => uniform(random) < sigmoid(a)),
      env: (action) => action,
      logProb: (action) =>
        z.reduce((sum, a, i) => {
          if (free !== null && !free[i]) return action[i] ? -Infinity : sum;
          return sum - softplus(action[i] ? -a : a);
        }, 0),
      show: () => ({
        kind: "bernoulli",
        shape,
        probabilities: Array.from(z, (a, i) => (free === null || free[i] ? sigmoid(a) : 0)),
      }),
    };
  };
}

function multiCategorical(head) {
  const { nvec: sizes, start, shape } = head.space.fields,
    logits = logitsOf(head);
  return (x, mask) => {
    const z = logits(x),
      ends = [];
    sizes.reduce((end, n, i) => (ends[i] = end + n), 0);
    const rows = sizes.map((n, i) => z.subarray(ends[i] - n, ends[i]));
    if (mask !== null && isConfig(mask) && Object.hasOwn(mask, "allowed"))
      return together(rows, mask.allowed);
    if (mask !== null && (!Array.isArray(mask) || mask.length !== rows.length)) {
      fail(`actionMask: expected a list of ${rows.length} rows, null for none, or { allowed }`);
    }
    const clean = rows.map((row, i) => cleaned(row, mask === null ? null : mask[i], `actionMask[${i}]`));
    return {
      mode: () => Int32Array.from(clean, (row, i) => start[i] + largest(row)),
      sample: (random) => Int32Array.from(clean, (row, i) => start[i] + draw(row, random)),
      env: (action) => action,
      logProb: (action) => clean.reduce((sum, row, i) => sum + logProbOf(row, action[i] - start[i]), 0),
      show: () => ({
        kind: "categoricals",
        shape,
        start,
        probabilities: clean.map((row) => probabilities(row)),
      }),
    };
  };

  /** A choice among the combinations that a joint mask allows. */
  function together(rows, allowed) {
    few(product(sizes), "actionMask.allowed: the combinations", 2 ** 20);
    const free = numbers(allowed, sizes, "actionMask.allowed", "booleans ", isFlag);
    let table = [0];
    for (const row of rows)
      table = table.flatMap((sum) => Array.from(row, (a) => sum + clip(a, -1e30, 1e30)));
    const z = cleaned(table, Array.from(free, Boolean), "actionMask.allowed");
    const split = (index) => {
      const action = new Int32Array(sizes.length);
      for (let i = sizes.length - 1; i >= 0; index = Math.floor(index / sizes[i--])) {
        action[i] = start[i] + (index % sizes[i]);
      }
      return action;
    };
    return {
      mode: () => split(largest(z)),
      sample: (random) => split(draw(z, random)),
      env: (action) => action,
      logProb: (action) =>
        logProbOf(
          z,
          sizes.reduce((at, n, i) => at * n + action[i] - start[i], 0),
        ),
      show: () => ({ kind: "joint categorical", shape: sizes, start, probabilities: probabilities(z) }),
    };
  }
}

/** features -> [means, log-stds], and the box, which may be large: the layer is looked at first. */
function scaled(head) {
  const { scale: data, mean_bound: bound } = head.fields,
    { fields } = data;
  if (data.type !== "policy_core/Scale") fail(`scale: '${data.type}' is not supported here`);
  const { std, low, high, positive, min_std: least, factor } = fields,
    size = flatSize(head.space);
  const layer = linear(head.at, head.inputs, (std === "state" ? 2 : 1) * size, head.context);
  const box = new Box(head.space, head.context.wide);
  const heat = head.temperature === null ? 0 : 0.5 * Math.log(head.temperature);
  const [leastStd, mostStd] = [low, high].map((x) => Math.exp(clip(x, -87, 88)));
  const logStd = (x) => {
    if (fields.bounding === "tanh") return low + 0.5 * (high - low) * (Math.tanh(x) + 1) + heat;
    if (positive === "identity") return Math.log(clip((x + least) * factor, leastStd, mostStd)) + heat;
    if (positive === "softplus") x = x < -15 ? x : Math.log(softplus(x));
    if (least) x = Math.max(x, Math.log(least)) + Math.log1p(Math.exp(-Math.abs(x - Math.log(least))));
    return clip(x + Math.log(factor), low, high) + heat;
  };
  const mean = bound === null ? (x) => x : (x) => x.map((a) => bound * Math.tanh(a / bound));
  if (std === "state") {
    const raw = rawOf(fields);
    return [
      box,
      (x) => {
        const y = layer(x);
        return [mean(y.subarray(0, size)), y.subarray(size).map((a) => logStd(raw + a))];
      },
    ];
  }
  const fixed =
    std === "fixed"
      ? new Float64Array(size).fill(fields.log_std + heat)
      : Float64Array.from(head.at.leaf("scale", head.space.fields.shape), logStd);
  return [box, (x) => [mean(layer(x)), fixed]];
}

/** The raw parameter that gives the initial log-std. */
function rawOf({ log_std, low, high, positive, min_std: least, factor, bounding }) {
  if (bounding === "tanh") return Math.atanh((2 * log_std - low - high) / (high - low));
  if (positive === "exp" && !least) return log_std - Math.log(factor);
  const std = Math.exp(clip(log_std, -87, 88)) / factor - least;
  if (positive === "identity") return std;
  return positive === "exp" ? Math.log(std) : std + Math.log(-Math.expm1(-std));
}

const HALF_LOG_2PI = 0.5 * Math.log(2 * Math.PI);
const list = (x) => (typeof x === "number" ? [x] : x);

/** A normal before `finish`, which takes a policy action to a box; `correction` is of its density. */
function ofNormal(box, split, finish, correction, kind) {
  return (x) => {
    const [mean, logStd] = split(x);
    const shaped = (y) => (box.shape.length ? y : y[0]);
    return {
      continuous: true,
      mode: () => shaped(mean),
      sample: (random) => shaped(mean.map((a, i) => a + Math.exp(logStd[i]) * normal(random))),
      env: (action) => box.clip(Float64Array.from(list(action), finish)),
      logProb: (action) =>
        list(action).reduce((sum, a, i) => {
          // The mean in float32 is not far from it: of a tiny std it would be.
          const off = Math.abs(a - mean[i]) > 1e-5 * Math.max(1, Math.abs(a)) ? a - mean[i] : 0;
          return sum - 0.5 * (off / Math.exp(logStd[i])) ** 2 - logStd[i] - HALF_LOG_2PI - correction(a, i);
        }, 0),
      show: () => ({
        kind,
        shape: box.shape,
        mean: Array.from(mean),
        std: Array.from(logStd, Math.exp),
        low: Array.from(box.low),
        high: Array.from(box.high),
      }),
    };
  };
}

/** From before the squash to a box, and the logarithm of the derivative of that. */
function squashed(box) {
  const squash = (u, i) => (box.bounded[i] ? box.between(i, sigmoid(2 * u), sigmoid(-2 * u)) : u);
  const correction = (u, i) => {
    if (!box.bounded[i]) return 0;
    const slope = 2 * (Math.LN2 - Math.abs(u) - Math.log1p(Math.exp(-2 * Math.abs(u)))); // log(1 - tanh(u)^2)
    return slope + Math.log(box.high[i] - box.low[i]) - Math.LN2;
  };
  return [squash, correction];
}

export const HEADS = {
  "policy_core/LogitsHead": (head) =>
    ({ Discrete: categorical, MultiBinary: bernoulli, MultiDiscrete: multiCategorical })[kindOf(head.space)](
      head,
    ),

  "policy_core/NormalHead"(head) {
    const [box, split] = scaled(head),
      { clip: most } = head.fields;
    const [offset, factor] = ["offset", "factor"].map((name) => {
      const value = head.fields[name];
      if (Array.isArray(value) && value.length !== box.size) {
        fail(`NormalHead.${name}: got ${value.length} numbers, expected ${box.size}`);
      }
      return (i) => (Array.isArray(value) ? value[i] : value);
    });
    return ofNormal(
      box,
      split,
      (a, i) => offset(i) + factor(i) * clip(a, -most, most),
      () => 0,
      "normal",
    );
  },

  "policy_core/SquashedNormalHead"(head) {
    const [box, split] = scaled(head);
    return ofNormal(box, split, ...squashed(box), "squashed normal");
  },

  /** Its noise is a linear function of the features, by a matrix that is kept in the state for many draws. */
  "policy_core/GSDEHead"(head) {
    const { fields, inputs, context } = head,
      size = flatSize(head.space),
      columns = fields.full_std ? size : 1;
    const layer = linear(head.at, inputs, size, context),
      box = new Box(head.space, context.wide);
    const std = Float64Array.from(head.at.leaf("log_std", [inputs, columns]), (raw) =>
      fields.positive === "exp" || raw <= 0 ? Math.exp(raw) : 1 + Math.log1p(raw + fields.epsilon),
    );
    const heat = Math.sqrt(head.temperature ?? 1),
      every = fields.resample_every;
    const of = (i, j) => std[i * columns + (fields.full_std ? j : 0)];
    const split = (x) => {
      const logStd = new Float64Array(size);
      for (let j = 0; j < size; j++) {
        let variance = fields.epsilon;
        for (let i = 0; i < inputs; i++) variance += (x[i] * of(i, j)) ** 2;
        logStd[j] = 0.5 * Math.log(variance) + Math.log(heat);
      }
      return [layer(x), logStd];
    };
    const finish = fields.squash ? squashed(box) : [(u) => u, () => 0];
    const base = ofNormal(box, split, ...finish, fields.squash ? "squashed normal" : "normal");
    const choose = (x) => {
      const free = base(x);
      const sample = (random, noise) => {
        if (!noise) return free.sample(random);
        const action = layer(x);
        for (let i = 0, k = 0; i < inputs; i++) {
          for (let j = 0; j < size; j++) action[j] += heat * x[i] * of(i, j) * noise.matrix[k++];
        }
        return box.shape.length ? action : action[0];
      };
      return { ...free, sample };
    };
    const noise = {
      initial: () => ({ matrix: context.array(inputs * size), age: -1 }),
      draw: (old, random) => {
        const matrix = held(old?.matrix, inputs * size),
          due = old.age < 0 || (every !== null && old.age >= every);
        return {
          matrix: due ? matrix.map(() => normal(random)) : matrix,
          age: (due ? 0 : old.age) + (every === null ? 0 : 1),
        };
      },
    };
    return Object.assign(choose, { noise });
  },

  "policy_core/BetaHead"(head) {
    const { low, high } = head.fields,
      size = flatSize(head.space),
      heat = head.temperature;
    const layer = linear(head.at, head.inputs, 2 * size, head.context),
      box = new Box(head.space, head.context.wide);
    if (!box.allBounded) fail("BetaHead: expected a Box with finite bounds");
    return (x) => {
      const both = layer(x).map((y) => {
        y = softplus(y);
        if (heat !== null) y = (y + (low - 1)) / heat + (1 - low);
        return clip(low + y, Math.min(low, 1e-2), high);
      });
      const [a, b] = [both.subarray(0, size), both.subarray(size)];
      const shaped = (y) => (box.shape.length ? y : y[0]);
      return {
        // policy actions are log-odds
        continuous: true,
        mode: () =>
          shaped(a.map((p, i) => (p > 1 && b[i] > 1 ? Math.log((p - 1) / (b[i] - 1)) : Math.log(p / b[i])))),
        sample: (random) => shaped(a.map((p, i) => logGamma(p, random) - logGamma(b[i], random))),
        env: (action) =>
          box.clip(Float64Array.from(list(action), (z, i) => box.between(i, sigmoid(z), sigmoid(-z)))),
        logProb: (action) =>
          list(action).reduce(
            (sum, z, i) =>
              sum -
              a[i] * softplus(-z) -
              b[i] * softplus(z) +
              softplus(z) +
              softplus(-z) -
              logBeta(a[i], b[i]) -
              Math.log(box.high[i] - box.low[i]),
            0,
          ),
        show: () => ({
          kind: "beta",
          shape: box.shape,
          alpha: Array.from(a),
          beta: Array.from(b),
          low: Array.from(box.low),
          high: Array.from(box.high),
        }),
      };
    };
  },

  "policy_core/BinsHead"(head) {
    const { space, value, values } = grid(head.space, head.fields.bins, head.context.wide);
    const choice = multiCategorical({ ...head, space });
    return (x, mask) => {
      const inner = choice(x, mask);
      return { ...inner, env: value, show: () => ({ ...inner.show(), kind: "bins", values: values() }) };
    };
  },
};

/** The space of the indices of a box in bins, and from indices to values. */
function grid(space, bins, wide) {
  few(flatSize(space), "BinsHead: the entries of a Box", 2 ** 14);
  const box = new Box(space, wide);
  if (!box.allBounded || (box.isFloat && box.low.some((x, i) => x >= box.high[i]))) {
    fail("BinsHead: expected a Box with finite bounds, low < high");
  }
  const sizes = Array.from(box.low, (x, i) => (box.isFloat ? bins : box.high[i] - x + 1));
  const point = (index, i) =>
    box.isFloat
      ? box.low[i] * (1 - index / (bins - 1)) + box.high[i] * (index / (bins - 1))
      : box.low[i] + index;
  const fields = { nvec: sizes, shape: box.shape, start: new Array(box.size).fill(0) };
  return {
    space: { type: "policy_core/MultiDiscrete", fields },
    value: (index) => box.clip(Float64Array.from(index, point)),
    values: () => sizes.map((n, i) => Array.from({ length: n }, (_, index) => point(index, i))),
  };
}

/** The logarithm of a draw of the gamma distribution (Marsaglia and Tsang 2000), also of tiny ones. */
function logGamma(shape, random) {
  if (shape < 1) return logGamma(shape + 1, random) + Math.log1p(-uniform(random)) / shape;
  const d = shape - 1 / 3,
    c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = normal(random),
      v = (1 + c * x) ** 3;
    if (v > 0 && Math.log1p(-uniform(random)) < 0.5 * x * x + d - d * v + d * Math.log(v))
      return Math.log(d * v);
  }
}

/** log B(a, b), by the series of Stirling from 8 on, and the recurrence below; a large a + b cancels less. */
function logBeta(a, b) {
  const rest = (x) =>
    (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / x ** 2) / x ** 2) / x ** 2) / x ** 2) / x;
  let shift = 0;
  for (; a < 8; a++) shift += Math.log1p(b / a); // B(a, b) = B(a + 1, b) (a + b) / a
  for (; b < 8; b++) shift += Math.log1p(a / b);
  const s = a + b;
  return (
    shift +
    (a - 0.5) * Math.log(a / s) +
    (b - 0.5) * Math.log(b / s) -
    0.5 * Math.log(s) +
    HALF_LOG_2PI +
    rest(a) +
    rest(b) -
    rest(s)
  );
}

/** How a Dict or Tuple is chosen whose parts depend on other parts: parents first. */
function dependent(head, data, maskFunctions) {
  if (data.type !== "policy_core/Autoregressive")
    fail(`autoregressive: '${data.type}' is not supported here`);
  const { fields } = data,
    { space, context } = head;
  if (!isJoint(space)) fail("autoregressive: the action is no Dict or Tuple");
  const parts = partsOf(space),
    parents = new Map(fields.parents);
  few(flatSize(space, false), "Autoregressive: the numbers of an action", 2 ** 14);
  few(parts.size, "Autoregressive: the parts of an action", 256);
  const masks = new Map(
    fields.masks.map(([name, given]) => [
      name,
      Object.hasOwn(maskFunctions, given)
        ? maskFunctions[given]
        : fail(`Autoregressive.masks['${name}']: '${given}' is not known here; pass it in \`maskFunctions\``),
    ]),
  );
  for (const name of [...parents.keys(), ...masks.keys()]) {
    if (!parts.has(name)) fail(`Autoregressive: there is no part ${brief(name)}`);
  }
  const byPart = headsOfParts(head);
  const forms = new Map(
    [...parts].map(([name, part]) => {
      const data = kindOf(part) === "Box" ? headOf({ space: part, heads: byPart.get(name) }) : null;
      const bins = data?.type === "policy_core/BinsHead";
      return [name, bins ? grid(part, data.fields.bins, context.wide).space : part];
    }),
  );
  for (const [name, seen] of parents) {
    few(seen.length, "Autoregressive: the parents of a part", 32);
    let combinations = 1;
    for (const parent of seen) {
      const above = parents.get(parent) ?? [];
      if (
        !forms.has(parent) ||
        parent === name ||
        above.some((one) => !seen.includes(one)) ||
        above.includes(name)
      ) {
        fail(`Autoregressive.parents: ${brief(parent)} is no parent that ${brief(name)} can have`);
      }
      combinations *= combinationsOf(forms.get(parent));
    }
    few(combinations, "Autoregressive: the combinations of the parents of a part", 2 ** 12);
  }
  // A part has more parents than any of them.
  const order = [...parts.keys()].sort(
    (a, b) => (parents.get(a)?.length ?? 0) - (parents.get(b)?.length ?? 0),
  );
  const choices = new Map(),
    networks = new Map(),
    flats = new Map();
  for (const [name, part] of parts) {
    const at = head.at.at(name),
      seen = parents.get(name) ?? [];
    let { inputs } = head;
    if (seen.length) {
      inputs += seen.reduce((n, parent) => n + flatSize(forms.get(parent)), 0);
      for (const parent of seen) flats.set(parent, flattenOf(forms.get(parent)));
      const inner = network(fields.network, at.at("network"), inputs, context);
      networks.set(name, inner.apply);
      inputs = inner.size;
    }
    choices.set(name, choiceOf({ ...head, space: part, at: at.at("head"), inputs, heads: byPart.get(name) }));
  }
  return (x, mask) => {
    const rows = partMasks(space, mask);
    const given = (name, actions) => {
      const names = parents.get(name) ?? [],
        seen = Object.fromEntries(names.map((one) => [one, actions.get(one)]));
      const flat = names.map((one) => flats.get(one)(element(forms.get(one), actions.get(one))));
      const y = names.length ? networks.get(name)(concat([x, ...flat])) : x;
      return choices.get(name)(y, masks.has(name) ? masks.get(name)(rows(name), seen) : rows(name));
    };
    const visit = (pick) => {
      const actions = new Map();
      for (const name of order) actions.set(name, pick(given(name, actions)));
      return joined(
        space,
        [...parts.keys()].map((name) => [name, actions.get(name)]),
      );
    };
    const seenIn = (action) => new Map([...parts.keys()].map((name) => [name, action[name]]));
    const all = (action, f) =>
      joined(
        space,
        [...parts.keys()].map((name) => [name, f(given(name, seenIn(action)), name)]),
      );
    return {
      mode: () => visit((part) => part.mode()),
      sample: (random) => visit((part) => part.sample(random)),
      env: (action) => all(action, (part, name) => part.env(action[name])),
      logProb: (action) =>
        order.reduce((sum, name) => sum + given(name, seenIn(action)).logProb(action[name]), 0),
      show() {
        // of each part given the modes of its parents
        return { kind: "autoregressive", parts: all(this.mode(), (part) => part.show()) };
      },
    };
  };
}

function combinationsOf(space) {
  const { fields } = space;
  switch (kindOf(space)) {
    case "Box":
      return fail("Autoregressive.parents: a Box of floats is no parent");
    case "Discrete":
      return fields.n;
    case "MultiDiscrete":
      return fields.nvec.reduce((n, size) => n * size, 1);
    case "MultiBinary":
      return 2 ** product(fields.shape);
    default:
      return [...partsOf(space).values()].reduce((n, part) => n * combinationsOf(part), 1);
  }
}

/** An action in the form that `flattenOf` takes. */
function element(space, action) {
  if (!isJoint(space)) return list(action);
  return new Map([...partsOf(space)].map(([key, part]) => [key, element(part, action[key])]));
}

// VALUES: (fields, params, size of the features, context) -> features -> the objectives

export const VALUES = {
  "policy_core/RegressionHead"(fields, at, inputs, context) {
    const layer = linear(at, inputs, fields.objectives ?? 1, context);
    return (x) => layer(x).map((z) => fields.scale * (fields.symlog ? symexp(z) : z));
  },

  "policy_core/PopArtHead"(fields, at, inputs, context) {
    const count = fields.objectives ?? 1,
      layer = linear(at, inputs, count, context);
    const shape = fields.objectives === null ? [2] : [2, count];
    const [, mean, variance] = ["count", "mean", "variance"].map((name) =>
      at.at("statistics").leaf(name, shape, ["float32", "float64"]),
    );
    const std = Float64Array.from({ length: count }, (_, i) =>
      Math.sqrt(Math.max(variance[i], 0) + fields.epsilon),
    );
    return (x) => layer(x).map((z, i) => mean[i] + mean[count + i] + std[i] * z);
  },

  "policy_core/TwoHotHead"(fields, at, inputs, context) {
    const { low, high, bins, symlog, objectives } = fields;
    const layer = linear(at, inputs, (objectives ?? 1) * bins, context);
    const [first, last] = symlog
      ? [low, high].map((x) => Math.sign(x) * Math.log1p(Math.abs(x)))
      : [low, high];
    const centers = Float64Array.from({ length: bins }, (_, i) => first + ((last - first) * i) / (bins - 1));
    return meanOf(symlog ? centers.map(symexp) : centers, layer);
  },

  "policy_core/HLGaussHead"(fields, at, inputs, context) {
    const { low, high, bins, objectives } = fields;
    const layer = linear(at, inputs, (objectives ?? 1) * bins, context);
    return meanOf(
      Float64Array.from({ length: bins }, (_, i) => low + ((high - low) * (i + 0.5)) / bins),
      layer,
    );
  },
};

function meanOf(centers, layer) {
  return (x) => {
    const y = layer(x),
      values = new Float64Array(y.length / centers.length);
    values.forEach((_, i) => {
      const row = y.subarray(i * centers.length, (i + 1) * centers.length).map((z) => clip(z, -1e30, 1e30));
      values[i] = probabilities(row).reduce((sum, p, j) => sum + p * centers[j], 0);
    });
    return values;
  };
}

// POLICIES: (fields, params, what a file names and does not hold) -> the parts of a Policy

export const POLICIES = {
  "policy_core/ActorCriticConfig"(fields, leaves, given) {
    const dtype = fields.compute_dtype;
    if (dtype !== "float32" && dtype !== "float64") {
      fail(`compute_dtype: ${dtype} is not what JavaScript computes in; use JAX`);
    }
    leaves.dtype = fields.param_dtype;
    fields.encoder ??= defaultEncoder(fields.observation_space);
    const wide = dtype === "float64",
      Type = wide ? Float64Array : Float32Array;
    const context = {
      wide,
      round: wide ? ROUND.float64 : Math.fround,
      array: (size) => new Type(size),
      kept: (array) => (array instanceof Type ? array : Type.from(array)),
      activation: (name, activation) =>
        Object.hasOwn(given.activations, activation)
          ? each(given.activations[activation])
          : fail(`${name}.activation: '${activation}' is not known here; pass it in \`activations\``),
    };
    const { features, sizes } = featuresOf(fields, leaves, context);
    const memories = memoriesOf(fields, leaves, sizes, context);
    for (const [owner, { size }] of memories) {
      for (const branch of owner === "shared" ? ["actor", "critic"] : [owner]) sizes[branch] = size;
    }
    const choice =
      fields.actor === null
        ? () => fail("act: the policy has no actor; it was made by `critic_only`")
        : actorOf(fields, leaves, sizes.actor, context, given);
    let value = () => fail("value: the policy has no critic; it was made by `actor_only`");
    if (fields.critic !== null) {
      const tower = network(fields.critic, leaves.at("critic").at("tower"), sizes.critic, context);
      const data = fields.value_head,
        at = leaves.at("critic").at("head");
      const outputs = find(VALUES, data, "value head")(data.fields, at, tower.size, context);
      const one = data.fields.objectives === null;
      value = (x) => (one ? outputs(tower.apply(x))[0] : outputs(tower.apply(x)));
    }
    return {
      spaces: { observationSpace: fields.observation_space, actionSpace: fields.action_space },
      features,
      memories,
      value,
      choice,
      noise: choice.noise ?? null,
      hasCritic: fields.critic !== null,
      inEnvActions: false,
    };
  },

  /** Its policy actions are the environment actions. */
  "policy_core/InEnvActions"(fields, leaves, given) {
    const inner = find(POLICIES, fields.config, "policy")(fields.config.fields, leaves, given);
    return { ...inner, inEnvActions: true };
  },
};

/** From what the actor sees, or the output of its memory, to how the action is chosen. */
function actorOf(fields, leaves, inputs, context, given) {
  const tower = network(fields.actor, leaves.at("actor").at("tower"), inputs, context);
  const head = {
    space: fields.action_space,
    heads: { box: fields.box_head, discrete: fields.discrete_head, parts: fields.heads, own: null },
    at: leaves.at("actor").at("head"),
    inputs: tower.size,
    temperature: fields.temperature === null ? null : leaves.leaf("temperature", [], ["float32"])[0],
    context,
  };
  const { autoregressive: dependence } = fields;
  const choice = dependence === null ? choiceOf(head) : dependent(head, dependence, given.maskFunctions);
  return Object.assign((x, mask) => choice(tower.apply(x), mask), { noise: choice.noise });
}

/** From an observation to the inputs of actor and critic, and their sizes. */
function featuresOf(fields, leaves, context) {
  const { observation_space: space, actor_keys, critic_keys, normalize } = fields;
  const check = checkedOf(space);
  if (fields.encoder.type === "policy_core/Parts" && isJoint(space)) {
    // of which a branch sees a part only
    const missing = fields.encoder.fields.encoders.find(([key]) => !partsOf(space).has(key));
    if (missing) fail(`Parts.encoders: the observation has no part ${brief(missing[0])}`);
  }
  const apply = normalize === null ? (x) => x : normalizerOf(space, normalize, leaves.at("normalize"));
  if (actor_keys !== null || critic_keys !== null || fields.encoder_sharing === "separate") {
    if (fields.trunk !== null || (fields.memory !== null && fields.memory_sharing === "shared")) {
      fail("config: actor and critic have different inputs and cannot share a trunk or a memory");
    }
    const [actor, critic] = [
      ["actor", actor_keys],
      ["critic", critic_keys],
    ].map(([owner, keys]) =>
      fields[owner] === null
        ? null
        : encoderOf(fields.encoder, viewOf(space, keys), leaves.at(owner).at("encoder"), context),
    );
    return {
      features: (observation) => {
        const x = apply(check(observation));
        return [actor.apply(x), critic?.apply(x)];
      },
      sizes: { actor: actor.size, critic: critic?.size },
    };
  }
  const encoder = encoderOf(fields.encoder, space, leaves.at("encoder"), context);
  const trunk =
    fields.trunk === null ? null : network(fields.trunk, leaves.at("trunk"), encoder.size, context);
  const size = trunk?.size ?? encoder.size;
  return {
    features: (observation) => {
      const x = encoder.apply(apply(check(observation)));
      const y = trunk === null ? x : trunk.apply(x);
      return [y, y];
    },
    sizes: { actor: size, critic: size },
  };
}

/** The space of the parts of a Dict that are inputs of the actor or the critic. */
function viewOf(space, keys) {
  if (keys === null) return space;
  if (kindOf(space) !== "Dict") fail("actor_keys, critic_keys: the observation is no Dict");
  const spaces = space.fields.spaces.filter(([name]) => keys.includes(name));
  if (spaces.length !== new Set(keys).size)
    fail("actor_keys, critic_keys: a key is no part of the observation");
  return { type: space.type, fields: { spaces } };
}

/** The memories by owner. */
function memoriesOf(fields, leaves, sizes, context) {
  const { memory: data, memory_sharing: sharing } = fields;
  if (data === null) return [];
  if (sharing === "shared") return [["shared", memoryOf(data, leaves.at("memory"), sizes.actor, context)]];
  return { separate: ["actor", "critic"], actor: ["actor"] }[sharing].map((owner) => [
    owner,
    memoryOf(data, leaves.at(owner).at("memory"), sizes[owner], context),
  ]);
}

const MOST_REPLAYED = 100; // observations: a page must not hang on a file that has a million

/** A loaded policy; made by `load`. */
class Policy {
  #parts;

  constructor(parts, document, config) {
    this.#parts = parts;
    const { fingerprint, metadata, batch } = document;
    Object.assign(this, { config, fingerprint, metadata, batch, ...parts.spaces });
  }

  /** The state at the start of an episode; null for a policy without memory. */
  reset() {
    const { memories, noise } = this.#parts;
    const all = [...memories, ...(noise ? [["exploration", noise]] : [])];
    return all.length ? Object.fromEntries(all.map(([owner, { initial }]) => [owner, initial()])) : null;
  }

  /** [next state, environment action]: the mode, or a draw if there is a `random`, such as Math.random. */
  act(state, observation, { random = null, actionMask = null, isFirst = false } = {}) {
    const [next, distribution] = this.#decide(state, observation, actionMask, isFirst);
    if (random === null) return [next, distribution.env(distribution.mode())];
    if (typeof random !== "function") fail(`random: got ${brief(random)}, expected a function`);
    const { noise } = this.#parts;
    if (!noise) return [next, distribution.env(distribution.sample(random))];
    const exploration = noise.draw(next.exploration, random);
    return [{ ...next, exploration }, distribution.env(distribution.sample(random, exploration))];
  }

  /** [next state, value]: a number, or an array of them for several objectives. */
  value(state, observation, { isFirst = false } = {}) {
    const [next, , x] = this.#advance(state, observation, isFirst);
    return [next, this.#parts.value(x)];
  }

  /** [next state, the distribution of the action as plain data], for display. */
  distribution(state, observation, { actionMask = null, isFirst = false } = {}) {
    const [next, distribution] = this.#decide(state, observation, actionMask, isFirst);
    return [next, distribution.show()];
  }

  #decide(state, observation, actionMask, isFirst) {
    const [next, x] = this.#advance(state, observation, isFirst);
    return [next, this.#parts.choice(x, actionMask ?? null)];
  }

  #advance(state, observation, isFirst) {
    let [actor, critic] = this.#parts.features(observation);
    const { memories, noise } = this.#parts;
    const names = [...memories.map(([owner]) => owner), ...(noise ? ["exploration"] : [])];
    if (!names.length) return [state, actor, critic];
    const seen = { shared: actor, actor, critic },
      before = isFirst ? this.reset() : state;
    const good = isConfig(before) && Object.keys(before).length === names.length;
    if (!good || names.some((name) => !Object.hasOwn(before, name))) {
      fail(`state: expected the state returned by \`reset\` or the last call, with ${names.join(", ")}`);
    }
    const next = { ...before };
    for (const [owner, memory] of memories) {
      let y;
      [next[owner], y] = memory.step(before[owner], seen[owner]);
      if (owner !== "critic") actor = y;
      if (owner !== "actor") critic = y;
    }
    return [next, actor, critic];
  }

  /** Replays the self-test of the file: see `load`. */
  static verify(policy, rows, index, tolerance) {
    if (!rows.size) return { observations: 0, deviation: 0 };
    let deviation = 0;
    const parts = policy.#parts,
      given = (path, front) => {
        const row = rows.get(path) ?? fail(`self_test: the leaf '${path}' is missing`);
        const lead = [...(front ? policy.batch : []), count];
        if (!same(row.shape.slice(0, lead.length), lead))
          fail(`self_test: '${path}' has the shape ${shown(row.shape)}`);
        return row;
      };
    const count = rows.get("entropy")?.shape[policy.batch.length] ?? fail("self_test: 'entropy' is missing");
    const elementOf = (space, path, i, front) => {
      if (isJoint(space)) {
        const inner = [...partsOf(space)].map(([key, part]) => [
          key,
          elementOf(part, `${path}/${key}`, i, front),
        ]);
        return joined(space, inner);
      }
      const row = given(path, front),
        all = numbersOf(row, [...(front ? index : []), i]);
      const shape = kindOf(space) === "Discrete" ? [] : space.fields.shape;
      if (all.length !== product(shape)) fail(`self_test: '${path}' has the shape ${shown(row.shape)}`);
      return shape.length ? all : all[0];
    };
    const compare = (then, now, what) => {
      const [a, b] = [list(then), list(now)];
      if (a.length !== b.length) fail(`self_test: '${what}' has ${a.length} numbers, expected ${b.length}`);
      a.forEach((x, i) => {
        const off = x === b[i] || Object.is(x, b[i]) ? 0 : Math.abs(x - b[i]) / Math.max(1, Math.abs(x));
        deviation = Math.max(deviation, off);
        if (!(off <= tolerance)) {
          fail(
            `self-test: '${what}' is off by ${off.toPrecision(3)}, at most ${tolerance} is allowed, ` +
              `over ${count} observations; the policy does not act here as it did where it was saved`,
          );
        }
      });
    };
    const compareParts = (space, then, now, path) => {
      if (!isJoint(space)) return compare(then, now, path);
      for (const [key, part] of partsOf(space)) compareParts(part, then[key], now[key], `${path}/${key}`);
    };
    let state = policy.reset();
    for (let i = 0; i < Math.min(count, MOST_REPLAYED); i++) {
      const observation = elementOf(policy.observationSpace, "observation", i, false);
      const [next, actor, critic] = policy.#advance(state, observation, i === 0);
      const distribution = parts.choice(actor, null);
      if (parts.hasCritic) {
        const row = given("value", true);
        compare(numbersOf(row, [...index, i]), parts.value(critic), "value");
      }
      const saved = elementOf(policy.actionSpace, "env_action", i, true);
      if (!parts.inEnvActions) {
        const action = elementOf(policy.actionSpace, "action", i, true);
        compareParts(policy.actionSpace, saved, distribution.env(action), "env_action");
        compare(numbersOf(given("log_prob", true), [...index, i]), distribution.logProb(action), "log_prob");
      } else if (distribution.continuous) {
        compare(saved, distribution.env(distribution.mode()), "env_action");
      }
      if (!parts.inEnvActions && distribution.continuous) {
        compare(elementOf(policy.actionSpace, "action", i, true), distribution.mode(), "action");
      }
      state = next;
    }
    return { observations: Math.min(count, MOST_REPLAYED), deviation };
  }
}

async function bytesOf(source) {
  if (typeof source?.arrayBuffer === "function") source = await source.arrayBuffer(); // a Response or a File
  // A copy, which nobody changes between the checksum and the params.
  if (source instanceof ArrayBuffer) return new Uint8Array(source.slice(0));
  if (ArrayBuffer.isView(source))
    return new Uint8Array(source.buffer, source.byteOffset, source.byteLength).slice();
  return fail(
    `load: got ${typeof source}, expected the bytes of a file: an ArrayBuffer, a typed array, a File or a ` +
      "Response",
  );
}

/** Runs f; whatever goes wrong is a PolicyError, as only the content of the file can be the reason. */
async function guarded(f) {
  try {
    return await f();
  } catch (error) {
    if (error instanceof PolicyError) throw error;
    throw new PolicyError(`the file contradicts itself: ${error}`, { cause: error });
  }
}

/**
 * What a file holds, verified but for what only its config can tell.
 *
 * @returns config, fingerprint (hexadecimal), metadata, batch (the axes of a population), leaves.
 */
export async function inspect(source) {
  const bytes = await bytesOf(source);
  return guarded(async () => {
    const { typed, fingerprint, metadata, batch, leaves } = await read(bytes);
    const rows = [...leaves.values()].map(({ path, dtype, shape }) => ({ path, dtype, shape }));
    return { config: checked(typed), fingerprint, metadata, batch, leaves: rows };
  });
}

/**
 * The policy in a file.
 *
 * The self-test of the file is replayed: values, environment actions, log-probabilities of the actions in the
 * file and, of continuous actions, the modes must be those of the machine that saved, over the first 100
 * observations; entropies are not compared.
 *
 * @param source the bytes: an ArrayBuffer, a typed array, a File or a Response.
 * @param options.member which one of a population: an index, or a list of one for each axis.
 * @param options.activations functions of a number that were registered by name where the policy was saved.
 * @param options.maskFunctions likewise, `(mask, parents) -> mask`, for parts that depend on others.
 * @param options.selfTest the deviation allowed, relative to max(1, |x|); false to leave it out.
 * @throws PolicyError for a damaged file, or one that asks for what is not known here.
 */
export async function load(
  source,
  { member = [], activations = {}, maskFunctions = {}, selfTest = 1e-3 } = {},
) {
  const bytes = await bytesOf(source),
    index = [member].flat();
  return guarded(async () => {
    const document = await read(bytes),
      { batch, leaves: rows } = document;
    if (
      index.length !== batch.length ||
      index.some((i, axis) => !(Number.isInteger(i) && i >= 0 && i < batch[axis]))
    ) {
      fail(`member: got ${shown(index)}, expected an index for each of the axes ${shown(batch)}`);
    }
    const config = checked(document.typed),
      leaves = new Leaves(rows, index, batch, null);
    const given = { activations: { ...ACTIVATIONS, ...activations }, maskFunctions };
    const parts = find(POLICIES, config, "policy")(config.fields, leaves, given);
    for (const path of leaves.unused)
      fail(`leaves: there is a leaf '${path}', which is none of the config's params`);
    const policy = new Policy(parts, document, config);
    policy.selfTest = selfTest === false ? null : Policy.verify(policy, document.selfTest, index, selfTest);
    return policy;
  });
}
