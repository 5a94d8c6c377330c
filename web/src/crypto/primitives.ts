/** The primitives as the protocol uses them, each with its parameters fixed. All of them are WebCrypto's. */
import { concat, equalBytes, fromBase64Exact, toBase64, toBase64Url, type Bytes } from "./encoding";
import { must, SealedError } from "./errors";

const subtle = globalThis.crypto.subtle;
const oaep = { name: "RSA-OAEP", hash: "SHA-256" };
const rsaBits = { min: 3072, max: 4096, made: 3072 };
/** The SPKI of a modulus of 3072 bits has 422 bytes, of 4096 bits 550. */
const spkiBytes = { min: 400, max: 560 };
const ed25519PrivatePrefix = new Uint8Array([0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20]);

/** The y coordinates of the points of small order; WebCrypto accepts them as keys, and under them signatures fit that nobody made. */
const smallOrder = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

export function randomBytes(length: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(length));
}

export async function sha256(bytes: Bytes): Promise<Bytes> {
  return new Uint8Array(await subtle.digest("SHA-256", bytes));
}

export async function hmacSha256(key: Bytes, data: Bytes): Promise<Bytes> {
  const imported = await subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await subtle.sign("HMAC", imported, data));
}

export async function hkdfSha256(ikm: Bytes, salt: Bytes, info: Bytes, length: number): Promise<Bytes> {
  const key = await subtle.importKey("raw", ikm, "HKDF", false, ["deriveBits"]);
  return new Uint8Array(await subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt, info }, key, length * 8));
}

export async function encryptGcm(key: Bytes, nonce: Bytes, aad: Bytes, plaintext: Bytes): Promise<Bytes> {
  const imported = await subtle.importKey("raw", key, "AES-GCM", false, ["encrypt"]);
  return new Uint8Array(
    await subtle.encrypt({ name: "AES-GCM", iv: nonce, additionalData: aad, tagLength: 128 }, imported, plaintext),
  );
}

export async function decryptGcm(key: Bytes, nonce: Bytes, aad: Bytes, ciphertext: Bytes): Promise<Bytes> {
  const imported = await subtle.importKey("raw", key, "AES-GCM", false, ["decrypt"]);
  try {
    return new Uint8Array(
      await subtle.decrypt({ name: "AES-GCM", iv: nonce, additionalData: aad, tagLength: 128 }, imported, ciphertext),
    );
  } catch {
    throw new SealedError("undecryptable", "the tag does not hold");
  }
}

/** A signing key whose private half cannot leave the browser. */
export interface SigningKey {
  privateKey: CryptoKey;
  /** Unpadded base64 of the 32 bytes. */
  publicKey: string;
}

export async function generateSigningKey(): Promise<SigningKey> {
  const pair = (await subtle.generateKey("Ed25519", false, ["sign", "verify"])) as CryptoKeyPair;
  return { privateKey: pair.privateKey, publicKey: toBase64(await subtle.exportKey("raw", pair.publicKey)) };
}

/** The key of a 32-byte seed. The public half is WebCrypto's work too: it stands in the JWK of a copy made to be exported. */
export async function signingKeyFromSeed(seed: Bytes): Promise<SigningKey> {
  must(seed.length === 32, "malformed", "the seed of a signing key has 32 bytes");
  const pkcs8 = concat(ed25519PrivatePrefix, seed);
  const open = await subtle.importKey("pkcs8", pkcs8, "Ed25519", true, ["sign"]);
  const { x } = await subtle.exportKey("jwk", open);
  const privateKey = await subtle.importKey("pkcs8", pkcs8, "Ed25519", false, ["sign"]);
  pkcs8.fill(0);
  return { privateKey, publicKey: (x ?? "").replaceAll("-", "+").replaceAll("_", "/") };
}

export async function sign(key: CryptoKey, message: Bytes): Promise<string> {
  return toBase64(await subtle.sign("Ed25519", key, message));
}

/** Decodes a public signing key and refuses the weak ones: of small order, or written as a number beyond the field. */
export function decodeVerifyKey(publicKey: string): Bytes {
  const bytes = fromBase64Exact(publicKey, 32);
  const y = bytes.slice();
  y[31] = (y[31] ?? 0) & 0x7f;
  must(!smallOrder.has(hex(y)), "weak_key", "an Ed25519 key of small order");
  const beyond = y[31] === 0x7f && y.subarray(1, 31).every((byte) => byte === 0xff) && (y[0] ?? 0) >= 0xed;
  must(!beyond, "weak_key", "an Ed25519 key that is not in canonical form");
  return bytes;
}

export async function importVerifyKey(publicKey: string): Promise<CryptoKey> {
  const bytes = decodeVerifyKey(publicKey);
  try {
    return await subtle.importKey("raw", bytes, "Ed25519", false, ["verify"]);
  } catch {
    throw new SealedError("weak_key", "not a point of the curve");
  }
}

/** Verifies a signature; one that is not 64 bytes in strict base64 does not fit either. */
export async function verify(publicKey: string, signature: string, message: Bytes): Promise<boolean> {
  const key = await importVerifyKey(publicKey);
  try {
    return await subtle.verify("Ed25519", key, fromBase64Exact(signature, 64), message);
  } catch {
    return false;
  }
}

/** A key pair that others seal to. */
export interface ExchangeKey {
  privateKey: CryptoKey;
  /** Unpadded base64 of the SPKI. */
  publicKey: string;
  kid: string;
}

export async function generateExchangeKey(): Promise<ExchangeKey> {
  const parameters = { ...oaep, modulusLength: rsaBits.made, publicExponent: new Uint8Array([1, 0, 1]) };
  const pair = await subtle.generateKey(parameters, false, ["encrypt", "decrypt"]);
  const spki = new Uint8Array(await subtle.exportKey("spki", pair.publicKey));
  return { privateKey: pair.privateKey, publicKey: toBase64(spki), kid: await exchangeKeyId(spki) };
}

/** The `kid` of an RSA key: unpadded base64url of the SHA-256 of its SPKI. */
export async function exchangeKeyId(spki: Bytes): Promise<string> {
  return toBase64Url(await sha256(spki));
}

/** Imports somebody's RSA key, of the allowed sizes, with the exponent 65537, in the one canonical spelling. */
export async function importExchangeKey(spki: Bytes): Promise<CryptoKey> {
  must(
    spki.length >= spkiBytes.min && spki.length <= spkiBytes.max,
    "weak_key",
    "an RSA key of a size that is not accepted",
  );
  let key: CryptoKey;
  try {
    key = await subtle.importKey("spki", spki, oaep, true, ["encrypt"]);
  } catch {
    throw new SealedError("weak_key", "not the SPKI of an RSA key");
  }
  const { n, e } = await subtle.exportKey("jwk", key);
  const modulus = atob((n ?? "").replaceAll("-", "+").replaceAll("_", "/"));
  const bits = modulus.length * 8 - Math.clz32(modulus.charCodeAt(0)) + 24;
  must(
    bits >= rsaBits.min && bits <= rsaBits.max && e === "AQAB",
    "weak_key",
    "an RSA key of another size or exponent",
  );
  must(modulus.charCodeAt(modulus.length - 1) % 2 === 1, "weak_key", "an even modulus");
  must(
    equalBytes(new Uint8Array(await subtle.exportKey("spki", key)), spki),
    "weak_key",
    "the SPKI is not in canonical form",
  );
  return key;
}

function hex(bytes: Bytes): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
