/** One WebSocket of the server (contract.md): responses of sync come in, calls go out and are answered. It lives once. */
import { isObject } from "./http";

export const socketProtocol = "m.json";
const openMs = 8000;
const callMs = 20_000;
/** A frame this long goes by HTTP: the server bounds what it reads from a socket. */
const maxCallBytes = 512 * 1024;
/** What may lie here unread before the socket is given up, to be resumed from the last token that was taken. */
const maxBacklog = 1000;

export type SyncFrame = Record<string, unknown> & { next_batch: string };

/** The server's refusal of a call. */
export class CallError extends Error {
  constructor(readonly body: Record<string, unknown>) {
    super(typeof body.error === "string" ? body.error : "the server refused a call");
  }
}

interface Call {
  resolve(result: Record<string, unknown>): void;
  reject(error: unknown): void;
  timer: ReturnType<typeof setTimeout>;
}

export class Socket {
  private readonly frames: SyncFrame[] = [];
  private readonly calls = new Map<number, Call>();
  private wake: (() => void) | undefined;
  private nextId = 1;
  private closeCode: number | undefined;

  private constructor(
    private readonly socket: WebSocket,
    /** The token up to which responses were taken. */
    private position: string,
    private readonly onClose: (code: number) => void,
  ) {
    socket.onmessage = (message: MessageEvent<unknown>) => this.receive(message.data);
    socket.onclose = (event) => this.closed(event.code);
  }

  /** Opens a socket that goes on from `since`. The URL has a ticket, never a token. */
  static open(create: () => WebSocket, since: string, onClose: (code: number) => void): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = create();
      const fail = (): void => {
        clearTimeout(timer);
        socket.close();
        reject(new Error("the socket did not open"));
      };
      const timer = setTimeout(fail, openMs);
      socket.onerror = fail;
      socket.onclose = fail;
      socket.onopen = () => {
        clearTimeout(timer);
        socket.onerror = null;
        resolve(new Socket(socket, since, onClose));
      };
    });
  }

  get isOpen(): boolean {
    return this.closeCode === undefined;
  }

  /** The token from which the next response goes on. */
  get since(): string {
    return this.position;
  }

  private receive(data: unknown): void {
    let frame: unknown;
    try {
      frame = typeof data === "string" ? JSON.parse(data) : undefined;
    } catch {
      frame = undefined;
    }
    if (!isObject(frame)) return this.close();
    if ("id" in frame) return this.answer(frame);
    if (typeof frame.next_batch !== "string" || this.frames.length >= maxBacklog) return this.close();
    this.frames.push(frame as SyncFrame);
    this.wake?.();
  }

  private answer(frame: Record<string, unknown>): void {
    const call = typeof frame.id === "number" ? this.calls.get(frame.id) : undefined;
    if (!call) return;
    this.calls.delete(frame.id as number);
    clearTimeout(call.timer);
    if (isObject(frame.error)) call.reject(new CallError(frame.error));
    else call.resolve(isObject(frame.result) ? frame.result : {});
  }

  private closed(code: number): void {
    if (this.closeCode !== undefined) return;
    this.closeCode = code;
    for (const call of this.calls.values()) {
      clearTimeout(call.timer);
      call.reject(new Error("the socket closed before the answer"));
    }
    this.calls.clear();
    this.wake?.();
    this.onClose(code);
  }

  close(): void {
    this.socket.close(1000);
    this.closed(1000);
  }

  /** The next response; null if none came in time, undefined if the socket has closed. */
  async next(timeoutMs: number, signal?: AbortSignal | null): Promise<SyncFrame | null | undefined> {
    if (this.frames.length === 0 && this.isOpen && timeoutMs > 0) await this.wait(timeoutMs, signal);
    const frame = this.frames.shift();
    if (frame) {
      this.position = frame.next_batch;
      return frame;
    }
    return this.isOpen ? null : undefined;
  }

  private wait(timeoutMs: number, signal?: AbortSignal | null): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        this.wake = undefined;
        resolve();
      };
      const abort = (): void => {
        end();
        reject(new DOMException("aborted", "AbortError"));
      };
      const timer = setTimeout(end, timeoutMs);
      this.wake = end;
      if (signal?.aborted) return abort();
      signal?.addEventListener("abort", abort);
    });
  }

  /** Calls a method. A CallError is the server's word; any other error means that nobody knows whether it ran. */
  call(method: string, params: Record<string, unknown>): Promise<Record<string, unknown>> {
    const id = this.nextId++;
    const text = JSON.stringify({ id, method, params });
    if (!this.isOpen || text.length > maxCallBytes) return Promise.reject(new Error("not by this socket"));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.calls.delete(id);
        reject(new Error("no answer"));
        // A socket that answers nothing is dead, whatever TCP says.
        this.close();
      }, callMs);
      this.calls.set(id, { resolve, reject, timer });
      this.socket.send(text);
    });
  }
}
