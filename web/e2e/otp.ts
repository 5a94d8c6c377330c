/** An authenticator app (RFC 6238): SHA-1, six digits, a new code every 30 seconds. */
import { createHmac } from "node:crypto";

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

function decode(secret: string): Buffer {
  let bits = "";
  for (const sign of secret.replace(/[\s=]/g, "").toUpperCase()) {
    const value = alphabet.indexOf(sign);
    if (value < 0) throw new Error("this is no secret of an authenticator app");
    bits += value.toString(2).padStart(5, "0");
  }
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2)));
}

export function code(secret: string, step: number): string {
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(step));
  const hash = createHmac("sha1", decode(secret)).update(counter).digest();
  const at = (hash[19] ?? 0) & 15;
  return String((hash.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

/**
 * The phone of a person. A server takes each code once, and those of the steps before and after the present one as well: two codes can be
 * used at once, where a person would wait for the next. That of the step before would be refused if a step ended while it is typed.
 */
export class Phone {
  private used = -1;

  constructor(private readonly secret: string) {}

  next(): string {
    const now = Math.floor(Date.now() / 30_000);
    this.used = Math.max(this.used + 1, now);
    if (this.used > now + 1) throw new Error("two codes are in use already: the next comes in a while");
    return code(this.secret, this.used);
  }
}
