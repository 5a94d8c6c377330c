/** The search for a proof of work, by itself: it runs in a worker, and in tests without one. */
import { sha256 } from "@noble/hashes/sha2.js";
import { utf8 } from "../../crypto/encoding";
import type { Puzzle } from "./flows";

/** How many of the first bits are zero. */
function zeroBits(hash: Uint8Array): number {
  let bits = 0;
  for (const byte of hash) {
    bits += Math.clz32(byte) - 24;
    if (byte !== 0) break;
  }
  return bits;
}

/**
 * Looks through `count` numbers from `from` on for one that, written behind the seed, gives a SHA-256 that begins with enough zero bits.
 * Null where none of them does.
 */
export function search({ seed, difficulty }: Puzzle, from: number, count: number): string | null {
  const seeded = sha256.create().update(utf8(seed));
  const hash = sha256.create();
  const digest = new Uint8Array(32);
  for (let nonce = from; nonce < from + count; nonce++) {
    // Into the same objects each time: two thirds of the time would go into making new ones.
    seeded
      ._cloneInto(hash)
      .update(utf8(String(nonce)))
      .digestInto(digest);
    if (zeroBits(digest) >= difficulty) return String(nonce);
  }
  return null;
}
