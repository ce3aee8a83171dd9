// Keys and values are bytes. The page shows them as text that stands for exactly these bytes: UTF-8, with \\ for a
// backslash, and \xNN for each byte of any character that an input field would drop or change, or that is invisible.

const encoder = new TextEncoder();
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|(?! )\p{Zs}|^ | $/gu;
const ESCAPE = /(\\(?:\\|x[0-9a-fA-F]{2})?)/;

export function named(document, name) {
  if (name in document) return encoder.encode(document[name]);
  return Uint8Array.from(atob(document[`${name}_base64`] ?? ""), (char) => char.charCodeAt(0));
}

export function escaped(bytes) {
  return [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0").toUpperCase()}`).join("");
}

export function pathOf(key) {
  if (isUnaddressable(key)) {
    throw new RangeError("A browser resolves . and .. in an address as folders. Use the command line for this key: kvstore get, put or delete.");
  }
  return `/kv/${escaped(key)}`;
}

export function isUnaddressable(key) {
  return key.length <= 2 && key.every((byte) => byte === 0x2e);
}

export function shown(bytes) {
  return backslashed(bytes).replace(HIDDEN, shownBytes);
}

// The text for a textarea, which keeps line feeds, tabs and all spaces.
export function shownLines(bytes) {
  return backslashed(bytes).replace(HIDDEN, (char) => ("\n\t ".includes(char) ? char : shownBytes(char)));
}

export function shownBytes(text) {
  return [...encoder.encode(text)].map(shownByte).join("");
}

export function decoded(text) {
  if (/\p{Surrogate}/u.test(text)) throw new RangeError("The text has half of a surrogate pair: UTF-8 has no such character.");
  const parts = text.split(ESCAPE).map((part) => {
    if (part === "\\\\") return [0x5c];
    if (part === "\\") throw new RangeError("A backslash begins \\xNN, which stands for a byte. Write \\\\ for a backslash.");
    if (part.startsWith("\\x")) return [Number.parseInt(part.slice(2), 16)];
    return [...encoder.encode(part)];
  });
  return Uint8Array.from(parts.flat());
}

function backslashed(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes).replaceAll("\\", "\\\\");
  } catch {
    return [...bytes].map((byte) => (byte === 0x5c ? "\\\\" : byte < 0x80 ? String.fromCharCode(byte) : shownByte(byte))).join("");
  }
}

function shownByte(byte) {
  return `\\x${byte.toString(16).padStart(2, "0")}`;
}
