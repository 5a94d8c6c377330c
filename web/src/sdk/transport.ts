/**
 * The fetch of the Matrix client: /sync is answered from the frames of the WebSocket, and what the socket has methods for goes through it; the
 * rest, and all of it while there is no socket, is HTTP. Both roads use the same transaction IDs, so a request whose answer was lost on one
 * can be repeated on the other.
 */
import { isObject } from "./http";
import { Value } from "./observable";
import { CallError, Socket, socketProtocol, type SyncFrame } from "./socket";
import type { Connection, Credentials, Ending } from "./types";

const socketPath = "/_matrix/client/unstable/im.conclave.ws";
const closeRevoked = 4001;
const closeDraining = 1012;
const ticketMs = 8000;
const retryMs = { first: 1000, most: 60_000, unsupported: 30 * 60_000 };

/** The status that the HTTP endpoint would have answered with: a socket's errors come without one. */
const statusOf: Record<string, number> = {
  M_FORBIDDEN: 403,
  M_UNKNOWN_TOKEN: 401,
  M_MISSING_TOKEN: 401,
  M_NOT_FOUND: 404,
  M_LIMIT_EXCEEDED: 429,
  M_TOO_LARGE: 413,
  M_UNKNOWN: 500,
};

interface Route {
  method: string;
  pattern: RegExp;
  call: string;
  params(parts: string[], body: Record<string, unknown>): Record<string, unknown>;
}

/** The endpoints that are also methods of the socket. */
const routes: Route[] = [
  {
    method: "PUT",
    pattern: /^\/_matrix\/client\/v3\/rooms\/([^/]+)\/send\/([^/]+)\/([^/]+)$/,
    call: "send",
    params: ([room_id, type, txn_id], content) => ({ room_id, type, txn_id, content }),
  },
  {
    method: "POST",
    pattern: /^\/_matrix\/client\/v3\/rooms\/([^/]+)\/receipt\/([^/]+)\/([^/]+)$/,
    call: "receipt",
    params: ([room_id, type, event_id], { thread_id }) => ({
      room_id,
      type,
      event_id,
      ...(typeof thread_id === "string" ? { thread_id } : {}),
    }),
  },
  {
    method: "POST",
    pattern: /^\/_matrix\/client\/v3\/rooms\/([^/]+)\/read_markers$/,
    call: "read_markers",
    params: ([room_id], body) => ({ ...body, room_id }),
  },
  {
    method: "PUT",
    pattern: /^\/_matrix\/client\/v3\/rooms\/([^/]+)\/typing\/[^/]+$/,
    call: "typing",
    params: ([room_id], body) => ({ ...body, room_id }),
  },
];

/** What the body of a 401 says of the session; null where that is not what it is about. */
export function endingOf(body: unknown): Ending | null {
  if (!isObject(body)) return null;
  if (body.errcode === "M_USER_LOCKED") return "locked";
  if (body.errcode !== "M_UNKNOWN_TOKEN" && body.errcode !== "M_MISSING_TOKEN") return null;
  return body.soft_logout === true ? "soft" : "signed_out";
}

export interface TransportOptions {
  fetch?: typeof globalThis.fetch;
  WebSocket?: typeof globalThis.WebSocket | undefined;
}

function json(status: number, body: unknown): Response {
  return new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json" } });
}

export class Transport {
  readonly connection = new Value<Connection>("connecting");
  readonly ended = new Value<Ending | null>(null);
  private socket: Socket | undefined;
  private last: { since: string; frame: SyncFrame } | undefined;
  private retryAt = 0;
  private failures = 0;
  private stopped = false;
  private readonly http: typeof globalThis.fetch;
  private readonly Socket: typeof globalThis.WebSocket | undefined;

  constructor(
    private readonly credentials: Credentials,
    options: TransportOptions = {},
  ) {
    this.http = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    this.Socket = "WebSocket" in options ? options.WebSocket : globalThis.WebSocket;
  }

  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : String(input));
    const method = init?.method ?? "GET";
    if (method === "GET" && url.pathname.endsWith("/_matrix/client/v3/sync")) return this.sync(url, init);
    const route = routes.find((candidate) => candidate.method === method && candidate.pattern.test(url.pathname));
    if (route && this.socket?.isOpen) {
      const answer = await this.call(this.socket, route, url, init);
      if (answer) return answer;
    }
    return this.plain(input, init);
  };

  /** Before the first sync it is other requests that tell whether the server can be reached. */
  private async plain(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    try {
      const response = await this.asked(input, init);
      if (this.connection.get() === "offline") this.connection.set("connecting");
      return response;
    } catch (error) {
      const aborted = error instanceof DOMException && error.name === "AbortError";
      if (!aborted && this.connection.get() !== "live") this.connection.set("offline");
      throw error;
    }
  }

  /** By HTTP, with an eye on what the answer says of the session. */
  private async asked(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    const response = await this.http(input, init);
    if (response.status === 401) {
      const body: unknown = await response
        .clone()
        .json()
        .catch(() => null);
      const ending = endingOf(body);
      if (ending !== null) this.end(ending);
    }
    return response;
  }

  end(ending: Ending): void {
    this.stopped = true;
    if (this.ended.get() === null) this.ended.set(ending);
  }

  /** By the socket; undefined where HTTP has to try, because nobody knows whether the call ran. */
  private async call(socket: Socket, route: Route, url: URL, init?: RequestInit): Promise<Response | undefined> {
    const parts = (route.pattern.exec(url.pathname) ?? []).slice(1).map(decodeURIComponent);
    let body: unknown = {};
    try {
      if (typeof init?.body === "string") body = JSON.parse(init.body);
      if (!isObject(body)) return undefined;
      return json(200, await socket.call(route.call, route.params(parts, body)));
    } catch (error) {
      if (!(error instanceof CallError)) return undefined;
      const errcode = typeof error.body.errcode === "string" ? error.body.errcode : "M_UNKNOWN";
      return json(statusOf[errcode] ?? 400, error.body);
    }
  }

  private async sync(url: URL, init?: RequestInit): Promise<Response> {
    const since = url.searchParams.get("since");
    const timeout = Number(url.searchParams.get("timeout") ?? 0);
    if (since !== null && this.Socket && !this.stopped) {
      const frame = await this.fromSocket(url, since, timeout, init?.signal);
      if (frame) return json(200, frame);
    }
    return this.poll(url, init);
  }

  private async fromSocket(
    url: URL,
    since: string,
    timeoutMs: number,
    signal?: AbortSignal | null,
  ): Promise<SyncFrame | undefined> {
    // The client asks again for what it was given and could not process.
    if (this.last?.since === since) return this.last.frame;
    let socket = this.socket;
    if (socket && socket.since !== since) {
      socket.close();
      socket = undefined;
    }
    socket ??= await this.open(url, since);
    if (!socket) return undefined;
    const frame = await socket.next(timeoutMs, signal);
    if (frame === undefined) return undefined;
    // Nothing new in the time that the client gave: an answer that says so, as the server's would.
    if (frame === null) return { next_batch: since };
    // A frame without news leads nowhere: what follows it is asked for with the same token, and is not the same answer.
    this.last = frame.next_batch === since ? undefined : { since, frame };
    this.failures = 0;
    return frame;
  }

  private async open(url: URL, since: string): Promise<Socket | undefined> {
    const Socket_ = this.Socket;
    if (!Socket_ || Date.now() < this.retryAt) return undefined;
    try {
      const ticket = await this.ticket();
      if (ticket === undefined) return undefined;
      const target = new URL(this.credentials.baseUrl);
      target.protocol = target.protocol === "https:" ? "wss:" : "ws:";
      target.pathname = `${socketPath}/sync`;
      for (const [name, value] of url.searchParams) if (name !== "timeout") target.searchParams.set(name, value);
      target.searchParams.set("ticket", ticket);
      let opened: Socket | undefined = undefined;
      opened = await Socket.open(
        () => new Socket_(target.href, socketProtocol),
        since,
        (code) => this.closed(opened, code),
      );
      if (this.stopped) {
        opened.close();
        return undefined;
      }
      this.socket = opened;
      this.connection.set("live");
      return opened;
    } catch {
      this.backOff();
      return undefined;
    }
  }

  private async ticket(): Promise<string | undefined> {
    const response = await this.asked(`${this.credentials.baseUrl}${socketPath}/ticket`, {
      method: "POST",
      body: "{}",
      headers: { Authorization: `Bearer ${this.credentials.accessToken}`, "Content-Type": "application/json" },
      signal: AbortSignal.timeout(ticketMs),
    });
    const body: unknown = await response.json().catch(() => null);
    if (response.ok && isObject(body) && typeof body.ticket === "string") return body.ticket;
    // Another homeserver: the long poll serves, and the question is not asked again soon.
    if (response.status === 404 || response.status === 405) this.retryAt = Date.now() + retryMs.unsupported;
    else this.backOff();
    return undefined;
  }

  private closed(socket: Socket | undefined, code: number): void {
    if (this.socket === socket) this.socket = undefined;
    if (code === closeRevoked) {
      void this.lookWhy();
      return;
    }
    // A server that restarts has many to take back: they come at different moments.
    if (code === closeDraining) this.retryAt = Date.now() + Math.random() * 2000;
    else if (code !== 1000 && code !== 4008) this.backOff();
    if (!this.stopped) this.connection.set("connecting");
  }

  /** The socket says only that the session has ended; how, another request is told. */
  private async lookWhy(): Promise<void> {
    this.connection.set("connecting");
    this.backOff();
    const { baseUrl, accessToken } = this.credentials;
    await this.asked(`${baseUrl}/_matrix/client/v3/account/whoami`, {
      headers: { Authorization: `Bearer ${accessToken}` },
      signal: AbortSignal.timeout(ticketMs),
    }).catch(() => undefined); // the next sync is told it too
  }

  private backOff(): void {
    const wait = Math.min(retryMs.first * 2 ** this.failures, retryMs.most);
    this.failures++;
    this.retryAt = Date.now() + wait * (0.5 + Math.random() / 2);
  }

  private async poll(url: URL, init?: RequestInit): Promise<Response> {
    // While a socket is only waiting for its next attempt the poll is short, so that the attempt is not late.
    if (this.Socket && Number(url.searchParams.get("timeout") ?? 0) > 0) {
      const wait = Math.max(this.retryAt - Date.now(), 0);
      const timeout = Math.min(Number(url.searchParams.get("timeout")), Math.max(wait, 1000));
      url.searchParams.set("timeout", String(Math.ceil(timeout)));
    }
    try {
      const response = await this.asked(url.href, init);
      if (response.ok) this.connection.set(url.searchParams.has("since") ? "polling" : "connecting");
      else if (response.status >= 500) this.connection.set("offline");
      return response;
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) this.connection.set("offline");
      throw error;
    }
  }

  stop(): void {
    this.stopped = true;
    this.socket?.close();
  }
}
