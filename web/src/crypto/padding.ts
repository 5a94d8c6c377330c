/** Padding, so that the length of a ciphertext says little about what was written. */
import { maxPlaintext } from "./bounds";
import { must } from "./errors";

const smallest = 256;

/** 256, or beyond that the Padmé length, which costs at most 12%. */
export function paddedLength(length: number): number {
  let padded = smallest;
  if (length > smallest) {
    const exponent = 31 - Math.clz32(length);
    const free = exponent - (32 - Math.clz32(exponent));
    const mask = 2 ** free - 1;
    padded = Math.ceil(length / (mask + 1)) * (mask + 1);
  }
  must(length <= maxPlaintext && padded <= maxPlaintext, "oversize", `a plaintext of ${length} bytes`);
  return padded;
}
