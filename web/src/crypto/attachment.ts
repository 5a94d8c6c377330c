/**
 * Attachments: the specification's EncryptedFile v2. Encrypted and checked in a stream, with bounded memory; WebCrypto cannot hash in parts,
 * so the SHA-256 here is that of @noble/hashes.
 */
import { sha256 } from "@noble/hashes/sha2.js";
import { equalBytes, fromBase64Url, toBase64, toBase64Url, type Bytes } from "./encoding";
import { must } from "./errors";
import { Form } from "./form";
import type { JsonObject } from "./json";
import { randomBytes } from "./primitives";

/** A multiple of the AES block, so that the counter of each part is a whole number. */
const partBytes = 1 << 20;
const blockBytes = 16;

export interface FileKey {
  url: string;
  key: Bytes;
  /** Eight random bytes, then a counter that begins at 0. */
  iv: Bytes;
  hash: Bytes;
}

export interface EncryptedStream {
  stream: ReadableStream<Bytes>;
  /** The key once the stream has been read to its end; its `url` is empty until the upload has one. */
  done: Promise<FileKey>;
}

/** Encrypts a stream under a fresh key. CTR keeps lengths, so the ciphertext is as long as what goes in. */
export function encryptStream(source: ReadableStream<Uint8Array>): EncryptedStream {
  const key = randomBytes(32);
  const iv = new Uint8Array(blockBytes);
  iv.set(randomBytes(8));
  const hash = sha256.create();
  const { promise, resolve, reject } = Promise.withResolvers<FileKey>();
  // Nobody need wait for the key of an upload that failed.
  promise.catch(() => undefined);
  const parts = inParts(source);
  const cipher = keyStream(key, iv, "encrypt");
  const stream = new ReadableStream<Bytes>({
    async pull(controller) {
      try {
        const next = await parts.next();
        if (next.done) {
          resolve({ url: "", key, iv, hash: Uint8Array.from(hash.digest()) });
          controller.close();
          return;
        }
        const encrypted = await cipher(next.value);
        hash.update(encrypted);
        controller.enqueue(encrypted);
      } catch (error) {
        reject(error);
        controller.error(error);
      }
    },
    async cancel(reason) {
      reject(reason);
      await parts.return(undefined);
    },
  });
  return { stream, done: promise };
}

/**
 * Checks the hash of a ciphertext and decrypts it. `ciphertext` can be read twice (a Blob is kept on disk where it is large): once for the
 * hash, and only if that is right once more to decrypt, so that no byte is used before all are known to be the sender's.
 */
export async function decryptBlob(file: FileKey, ciphertext: Blob, type: string): Promise<Blob> {
  const hash = sha256.create();
  for await (const part of inParts(ciphertext.stream())) hash.update(part);
  must(equalBytes(hash.digest(), file.hash), "wrong_hash", "the file is not the one that was sent");
  const cipher = keyStream(file.key, file.iv, "decrypt");
  const parts: BlobPart[] = [];
  for await (const part of inParts(ciphertext.stream())) parts.push(new Blob([await cipher(part)]));
  return new Blob(parts, { type });
}

/** The key of an attachment for the content of an event. */
export function fileContent(file: FileKey): JsonObject {
  return {
    v: "v2",
    url: file.url,
    iv: toBase64(file.iv),
    key: { kty: "oct", alg: "A256CTR", ext: true, key_ops: ["encrypt", "decrypt"], k: toBase64Url(file.key) },
    hashes: { sha256: toBase64(file.hash) },
  };
}

/** Reads an EncryptedFile. The counter must begin at 0: libraries carry differently out of its 64 bits. */
export function readFileKey(text: string): FileKey {
  const form = Form.read(text);
  if (form.text("v") !== "v2") form.fail("malformed", "another version");
  const key = form.object("key");
  const hashes = form.object("hashes");
  const url = form.text("url");
  const iv = form.bytes("iv", blockBytes);
  form.check();
  const right =
    key.text("kty") === "oct" &&
    key.text("alg") === "A256CTR" &&
    key.members.ext === true &&
    key.texts("key_ops").includes("decrypt");
  must(right && iv.subarray(8).every((byte) => byte === 0), "malformed", "a key for another use");
  const secret = fromBase64Url(key.text("k"));
  const hash = hashes.bytes("sha256", 32);
  key.check();
  hashes.check();
  must(secret.length === 32, "malformed", "a key of another length");
  return { url, key: secret, iv, hash };
}

/** En- or decrypts one part after the other, each a multiple of the block but the last. */
function keyStream(key: Bytes, iv: Bytes, direction: "encrypt" | "decrypt"): (part: Bytes) => Promise<Bytes> {
  const imported = crypto.subtle.importKey("raw", key, "AES-CTR", false, [direction]);
  let block = 0n;
  return async (part) => {
    const counter = iv.slice();
    new DataView(counter.buffer).setBigUint64(8, block);
    block += BigInt(Math.ceil(part.length / blockBytes));
    return new Uint8Array(
      await crypto.subtle[direction]({ name: "AES-CTR", counter, length: 64 }, await imported, part),
    );
  };
}

/** The stream in parts of one size, whatever its own chunks are. */
async function* inParts(source: ReadableStream<Uint8Array>): AsyncGenerator<Bytes, void, undefined> {
  const reader = source.getReader();
  let part = new Uint8Array(partBytes);
  let filled = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      for (let taken = 0; taken < value.length;) {
        const piece = value.subarray(taken, taken + partBytes - filled);
        part.set(piece, filled);
        taken += piece.length;
        filled += piece.length;
        if (filled < partBytes) continue;
        yield part;
        part = new Uint8Array(partBytes);
        filled = 0;
      }
    }
    if (filled > 0) yield part.subarray(0, filled);
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
