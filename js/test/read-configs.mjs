// Reads a JSON list of configs in hexadecimal and prints what each decodes to, null if it is refused.
import { readFileSync } from "node:fs";
import { PolicyError, Reader } from "../policy-core.js";

function tagged(value) {
  if (typeof value === "bigint") return { int: String(value) };
  if (typeof value === "number") {
    const bytes = Buffer.alloc(8);
    bytes.writeDoubleBE(value);
    return { float: bytes.toString("hex") };
  }
  if (Array.isArray(value)) return value.map(tagged);
  if (value === null || typeof value !== "object") return value;
  return { type: value.type, fields: Object.entries(value.fields).map(([key, item]) => [key, tagged(item)]) };
}

const results = JSON.parse(readFileSync(process.argv[2], "utf8")).map((hex) => {
  const bytes = new Uint8Array(Buffer.from(hex, "hex")),
    reader = new Reader(bytes);
  try {
    const value = tagged(reader.value());
    return reader.position === bytes.length ? { value } : null;
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    return null;
  }
});
console.log(JSON.stringify(results));
