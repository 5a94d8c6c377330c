/** Bytes and text: strict base64 in the two alphabets of the protocol, and UTF-8 that refuses what is none. */
import { must, SealedError } from "./errors";

/** Bytes that WebCrypto takes: over an ArrayBuffer, never over shared memory. */
export type Bytes = Uint8Array<ArrayBuffer>;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** String.fromCharCode takes its bytes as arguments, of which an engine allows a bounded number. */
const chunk = 8192;

export function utf8(text: string): Bytes {
  return encoder.encode(text);
}

export function fromUtf8(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new SealedError("malformed", "the text is not UTF-8");
  }
}

export function concat(...parts: Uint8Array[]): Bytes {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Unpadded standard base64. */
export function toBase64(bytes: Uint8Array | ArrayBuffer): string {
  const view = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
  let binary = "";
  for (let i = 0; i < view.length; i += chunk) binary += String.fromCharCode(...view.subarray(i, i + chunk));
  return btoa(binary).replace(/=+$/, "");
}

/** Unpadded URL-safe base64. */
export function toBase64Url(bytes: Uint8Array | ArrayBuffer): string {
  return toBase64(bytes).replaceAll("+", "-").replaceAll("/", "_");
}

export function fromBase64(text: string): Bytes {
  must(/^[A-Za-z0-9+/]*$/.test(text), "malformed", "a character that is not of base64");
  return decode(text);
}

export function fromBase64Url(text: string): Bytes {
  must(/^[A-Za-z0-9_-]*$/.test(text), "malformed", "a character that is not of URL-safe base64");
  return decode(text.replaceAll("-", "+").replaceAll("_", "/"));
}

/** Bits left over in the last character would let one value have several spellings, so they must be zero. */
function decode(text: string): Bytes {
  must(text.length % 4 !== 1, "malformed", "base64 of an impossible length");
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  must(
    toBase64(bytes.subarray(bytes.length - (bytes.length % 3))) === text.slice(text.length - (text.length % 4)),
    "malformed",
    "base64 with bits left over",
  );
  return bytes;
}

/** Strict base64 of exactly so many bytes. */
export function fromBase64Exact(text: string, length: number): Bytes {
  must(text.length === Math.ceil((length * 4) / 3), "malformed", `not the base64 of ${length} bytes`);
  return fromBase64(text);
}
