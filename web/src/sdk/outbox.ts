/**
 * Messages on their way. Each is written down before its first request, goes out in order with the others of its room, is repeated under one
 * transaction ID until the server has it or refuses it for good, and survives a reload.
 */
import { isJsonObject, SealedError, toJson, type JsonObject } from "../crypto";
import { ApiError } from "./http";
import { recordName, type KeyStore } from "./keystore";

const prefix = "outbox/";
const backoffMs = { first: 1000, most: 30_000 };

export interface Waiting {
  name: string;
  roomId: string;
  txnId: string;
  type: string;
  content: JsonObject;
}

/** What is known of an error of either HTTP client here. */
interface HttpFailure {
  httpStatus?: unknown;
  status?: unknown;
  errcode?: unknown;
  data?: { retry_after_ms?: unknown };
  retryAfterMs?: unknown;
  name?: unknown;
}

/** Whether the same request may succeed later. The protocol's own failures, and a refusal, do not change by waiting. */
export function isPassing(error: unknown): boolean {
  if (!error || error instanceof SealedError) return false;
  if (error instanceof ApiError && error.status === 0) return true;
  const { httpStatus, status, errcode, name } = error as HttpFailure;
  if (name === "ConnectionError" || name === "TimeoutError" || name === "AbortError") return true;
  const code = typeof httpStatus === "number" ? httpStatus : typeof status === "number" ? status : undefined;
  if (errcode === "M_LIMIT_EXCEEDED") return true;
  return code !== undefined && (code >= 500 || code === 429 || code === 408);
}

function waitMs(error: unknown, attempt: number): number {
  const { data, retryAfterMs } = error as HttpFailure;
  const asked = typeof retryAfterMs === "number" ? retryAfterMs : data?.retry_after_ms;
  const backoff = Math.min(backoffMs.first * 2 ** attempt, backoffMs.most);
  return typeof asked === "number" && asked > 0 ? Math.min(asked, 10 * backoffMs.most) : backoff;
}

export class Outbox {
  private readonly turns = new Map<string, Promise<unknown>>();
  private readonly sleepers = new Set<() => void>();
  private counter = 0;
  private stopped = false;

  constructor(private readonly store: KeyStore) {}

  /** Writes a message down. */
  async keep(roomId: string, txnId: string, type: string, content: JsonObject): Promise<Waiting> {
    const order = `${String(Date.now()).padStart(15, "0")}-${String(this.counter++).padStart(6, "0")}`;
    const waiting = { name: `${prefix}${order}-${recordName(txnId)}`, roomId, txnId, type, content };
    await this.store.put(waiting.name, { roomId, txnId, type, content });
    return waiting;
  }

  async forget(txnId: string): Promise<void> {
    const names = await this.store.names(prefix);
    const mine = names.filter((name) => name.endsWith(`-${recordName(txnId)}`));
    if (mine.length > 0) await this.store.write({ remove: mine });
  }

  /** What an earlier page left, in order. */
  async left(): Promise<Waiting[]> {
    const waiting: Waiting[] = [];
    for (const [name, { roomId, txnId, type, content }] of await this.store.list(prefix)) {
      if (typeof roomId !== "string" || typeof txnId !== "string" || typeof type !== "string") continue;
      if (isJsonObject(content)) waiting.push({ name, roomId, txnId, type, content });
    }
    return waiting;
  }

  isBusy(roomId: string): boolean {
    return this.turns.has(roomId);
  }

  /**
   * Sends one message after those of its room before it. `send` makes one attempt; `pause` is told when the message has to wait and answers
   * whether it is still wanted.
   */
  async run<T>(roomId: string, send: () => Promise<T>, pause: (error: unknown) => boolean): Promise<T> {
    const before = this.turns.get(roomId) ?? Promise.resolve();
    const mine = before.then(() => this.attempts(send, pause));
    const settled = mine.catch(() => undefined);
    this.turns.set(roomId, settled);
    try {
      return await mine;
    } finally {
      if (this.turns.get(roomId) === settled) this.turns.delete(roomId);
    }
  }

  private async attempts<T>(send: () => Promise<T>, pause: (error: unknown) => boolean): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await send();
      } catch (error) {
        if (this.stopped || !isPassing(error) || !pause(error)) throw error;
        await this.sleep(waitMs(error, attempt));
        if (this.stopped || !pause(error)) throw error;
      }
    }
  }

  private sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.sleepers.delete(end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.sleepers.add(end);
    });
  }

  /** The server can be reached again, or a message was withdrawn: whoever sleeps looks now. */
  wake(): void {
    for (const end of [...this.sleepers]) end();
  }

  stop(): void {
    this.stopped = true;
    this.wake();
  }
}

/** The content of a message as it is written down. */
export function outgoing(content: object): JsonObject {
  const json = toJson(content);
  if (!isJsonObject(json)) throw new SealedError("malformed", "a message without content");
  return json;
}
