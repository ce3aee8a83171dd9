// Keys and values are bytes. They are shown as UTF-8, with \xNN for other bytes and \\ for a backslash.

const encoder = new TextEncoder();

export function named(document, name) {
  if (name in document) return encoder.encode(document[name]);
  return Uint8Array.from(atob(document[`${name}_base64`] ?? ""), (char) => char.charCodeAt(0));
}

export function escaped(bytes) {
  return [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0").toUpperCase()}`).join("");
}

export function shown(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes).replaceAll("\\", "\\\\");
  } catch {
    return [...bytes].map(shownByte).join("");
  }
}

function shownByte(byte) {
  if (byte === 0x5c) return "\\\\";
  return byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`;
}

export function decoded(text) {
  const parts = text.split(/(\\\\|\\x[0-9a-fA-F]{2})/).map((part) => {
    if (part === "\\\\") return [0x5c];
    if (/^\\x[0-9a-fA-F]{2}$/.test(part)) return [Number.parseInt(part.slice(2), 16)];
    return [...encoder.encode(part)];
  });
  return Uint8Array.from(parts.flat());
}
