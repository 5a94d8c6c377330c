/**
 * Reads the members of an object whose shape is known. The first thing that is wrong is kept, so that a caller reads everything and looks
 * once, with `check`. A member of another type is as bad as a missing one.
 */
import { maxEnvelope, maxName } from "./bounds";
import { fromBase64, utf8, type Bytes } from "./encoding";
import { must, SealedError, type FailureClass } from "./errors";
import { isJsonObject, parseObject, type JsonObject } from "./json";

export class Form {
  private error: SealedError | undefined;

  constructor(readonly members: JsonObject) {}

  /** Scans text strictly, of at most `limit` bytes. */
  static read(text: string, limit: number = maxEnvelope): Form {
    // A code unit has at least one byte, so what is far too long is refused before it is encoded.
    must(text.length <= limit && utf8(text).length <= limit, "oversize", `more than ${limit} bytes`);
    return new Form(parseObject(text));
  }

  fail(failure: FailureClass, detail: string): void {
    this.error ??= new SealedError(failure, detail);
  }

  check(): void {
    if (this.error) throw this.error;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.members, name);
  }

  text(name: string): string {
    const value = this.has(name) ? this.members[name] : undefined;
    if (typeof value === "string") return value;
    this.fail("malformed", `"${name}" is no text`);
    return "";
  }

  /** An identifier: a text that is neither empty nor too long. */
  name(name: string): string {
    const text = this.text(name);
    if (text === "" || utf8(text).length > maxName) this.fail("malformed", `"${name}" is no identifier`);
    return text;
  }

  algorithm(want: string): void {
    if (this.text("algorithm") !== want) this.fail("unknown_algorithm", `not ${want}`);
  }

  /** Strict base64, of a certain length if one is given. */
  bytes(name: string, length?: number): Bytes {
    try {
      const bytes = fromBase64(this.text(name));
      if (length === undefined || bytes.length === length) return bytes;
    } catch (error) {
      if (!(error instanceof SealedError)) throw error;
    }
    this.fail("malformed", `"${name}" is not the base64 that it has to be`);
    return new Uint8Array(length ?? 0);
  }

  /** A number that is not negative. */
  integer(name: string): number {
    const value = this.has(name) ? this.members[name] : undefined;
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
    this.fail("malformed", `"${name}" is no number`);
    return 0;
  }

  object(name: string): Form {
    const value = this.has(name) ? this.members[name] : undefined;
    if (isJsonObject(value)) return new Form(value);
    this.fail("malformed", `"${name}" is no object`);
    return new Form({});
  }

  texts(name: string): string[] {
    const value = this.has(name) ? this.members[name] : undefined;
    if (Array.isArray(value) && value.every((text) => typeof text === "string")) return value;
    this.fail("malformed", `"${name}" is no list of texts`);
    return [];
  }

  /** Whether there is no member but these, each of them. */
  isExactly(...names: string[]): boolean {
    return Object.keys(this.members).length === names.length && names.every((name) => this.has(name));
  }
}
