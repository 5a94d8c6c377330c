/**
 * Strict JSON. What is signed, or sealed, has one reading: no name twice, no number that another parser rounds, no text that is not
 * Unicode. JSON.parse keeps the last of two equal names in silence, so it is used for strings alone.
 */
import { SealedError } from "./errors";

export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [name: string]: Json;
}

const maxDepth = 64;
/** A string without an escape, a control character or a quotation mark: nearly all of them. */
const plain = /[ !#-[\]-\uffff]*/y;
const quoted = /"(?:[ !#-[\]-\uffff]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const number = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const space = /[ \t\n\r]*/y;

class Parser {
  private at = 0;
  private duplicate = "";
  private badNumber = "";

  constructor(private readonly text: string) {}

  parse(): Json {
    if (!this.text.isWellFormed()) this.fail("a lone surrogate");
    const value = this.value(0);
    this.skip(space);
    if (this.at !== this.text.length) this.fail("text after the value");
    // Told after the whole text is known to be JSON, so that a text with several faults has one answer.
    if (this.duplicate) throw new SealedError("duplicate_key", `the name ${this.duplicate} stands twice`);
    if (this.badNumber) this.fail(this.badNumber);
    return value;
  }

  private fail(what: string): never {
    throw new SealedError("malformed", `JSON: ${what} at ${this.at}`);
  }

  private skip(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.text);
    const found = match ? match[0] : "";
    this.at += found.length;
    return found;
  }

  private value(depth: number): Json {
    this.skip(space);
    switch (this.text[this.at]) {
      case "{":
        return this.object(depth + 1);
      case "[":
        return this.array(depth + 1);
      case '"':
        return this.string();
      case "t":
        return this.word("true", true);
      case "f":
        return this.word("false", false);
      case "n":
        return this.word("null", null);
      default:
        return this.number();
    }
  }

  private word<T extends boolean | null>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) this.fail("an unknown word");
    this.at += word.length;
    return value;
  }

  private number(): number {
    const digits = this.skip(number);
    if (digits === "") this.fail("no value");
    const value = Number(digits);
    if (!/^(?:0|-?[1-9][0-9]*)$/.test(digits) || !Number.isSafeInteger(value))
      this.badNumber ||= "a number that is no integer within ±(2^53−1)";
    return value;
  }

  private string(): string {
    plain.lastIndex = this.at + 1;
    const simple = plain.exec(this.text)?.[0] ?? "";
    if (this.text[this.at + 1 + simple.length] === '"') {
      this.at += simple.length + 2;
      return simple;
    }
    const literal = this.skip(quoted);
    if (literal === "") this.fail("a broken string");
    const value = JSON.parse(literal) as string;
    if (!value.isWellFormed()) this.fail("a lone surrogate");
    return value;
  }

  private array(depth: number): Json[] {
    if (depth > maxDepth) this.fail("nested too deep");
    const values: Json[] = [];
    this.at++;
    this.skip(space);
    if (this.take("]")) return values;
    do values.push(this.value(depth));
    while (this.more("]"));
    return values;
  }

  private object(depth: number): JsonObject {
    if (depth > maxDepth) this.fail("nested too deep");
    const members: JsonObject = {};
    this.at++;
    this.skip(space);
    if (this.take("}")) return members;
    do {
      this.skip(space);
      if (this.text[this.at] !== '"') this.fail("a name is missing");
      const name = this.string();
      this.skip(space);
      if (!this.take(":")) this.fail("a colon is missing");
      const value = this.value(depth);
      if (Object.hasOwn(members, name)) this.duplicate ||= JSON.stringify(name);
      // Defined rather than assigned: `__proto__` is a name like any other.
      Object.defineProperty(members, name, { value, enumerable: true, writable: true, configurable: true });
    } while (this.more("}"));
    return members;
  }

  private take(character: string): boolean {
    if (this.text[this.at] !== character) return false;
    this.at++;
    return true;
  }

  private more(end: string): boolean {
    this.skip(space);
    if (this.take(",")) return true;
    if (!this.take(end)) this.fail("a comma or an end is missing");
    return false;
  }
}

export function parseStrict(text: string): Json {
  return new Parser(text).parse();
}

export function parseObject(text: string): JsonObject {
  const value = parseStrict(text);
  if (!isJsonObject(value)) throw new SealedError("malformed", "not a JSON object");
  return value;
}

export function isJsonObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Order by code points, which is that of UTF-8; the order of UTF-16 differs beyond the basic plane. */
function byCodePoint(a: string, b: string): number {
  const x = a[Symbol.iterator]();
  const y = b[Symbol.iterator]();
  for (;;) {
    const p = x.next();
    const q = y.next();
    if (p.done || q.done) return (p.done ? 0 : 1) - (q.done ? 0 : 1);
    const difference = (p.value.codePointAt(0) ?? 0) - (q.value.codePointAt(0) ?? 0);
    if (difference !== 0) return difference;
  }
}

/** Canonical JSON of the Matrix appendices. Refuses what has no canonical form. */
export function canonical(value: Json): string {
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw new SealedError("malformed", "a lone surrogate");
    return JSON.stringify(value);
  }
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value))
      throw new SealedError("malformed", "a number that is no integer within ±(2^53−1)");
    return JSON.stringify(value);
  }
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  const members = Object.keys(value)
    .sort(byCodePoint)
    .map((name) => `${canonical(name)}:${canonical(value[name] ?? null)}`);
  return `{${members.join(",")}}`;
}

/**
 * What came as a JavaScript value, brought into a form that has a canonical one: members without a value disappear, as in JSON.stringify.
 */
export function toJson(value: unknown): Json {
  const text = JSON.stringify(value);
  if (text === undefined) throw new SealedError("malformed", "not a JSON value");
  return parseStrict(text);
}
