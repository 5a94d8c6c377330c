import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { until } from "./testing/browser";
import { Transport } from "./transport";

const credentials = { baseUrl: "https://hs.test", userId: "@a:hs.test", deviceId: "A", accessToken: "secret-token" };
const syncUrl = "https://hs.test/_matrix/client/v3/sync?filter=f&timeout=30000";

class FakeSocket {
  static opened: FakeSocket[] = [];
  static onCreated: (socket: FakeSocket) => void = () => undefined;
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onerror: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  sent: { id: number; method: string; params: Record<string, unknown> }[] = [];

  constructor(
    readonly url: string,
    readonly protocol: string,
  ) {
    FakeSocket.opened.push(this);
    FakeSocket.onCreated(this);
    queueMicrotask(() => this.onopen?.());
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text) as FakeSocket["sent"][number]);
  }
  close(): void {}
  push(frame: unknown): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
  drop(code: number): void {
    this.onclose?.({ code });
  }
}

let http: { method: string; url: URL }[];
let status: (url: URL) => Response;
let transport: Transport;

beforeEach(() => {
  FakeSocket.opened = [];
  FakeSocket.onCreated = () => undefined;
  http = [];
  status = (url) => Response.json(url.pathname.endsWith("/ticket") ? { ticket: "once" } : { next_batch: "polled" });
  const fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const url = new URL(String(input));
    http.push({ method: init?.method ?? "GET", url });
    return status(url);
  };
  transport = new Transport(credentials, { fetch, WebSocket: FakeSocket as unknown as typeof WebSocket });
});

afterEach(() => transport.stop());

async function answer(request: Promise<Response>): Promise<unknown> {
  return (await request).json();
}

async function live(): Promise<FakeSocket> {
  const first = transport.fetch(`${syncUrl}&since=s1`);
  await until("a socket", () => FakeSocket.opened.length === 1 && transport.connection.get() === "live");
  const socket = FakeSocket.opened[0] as FakeSocket;
  socket.push({ next_batch: "s2" });
  expect(await answer(first)).toEqual({ next_batch: "s2" });
  return socket;
}

test("the first sync is HTTP, the next come from a socket whose URL has no token", async () => {
  await answer(transport.fetch(syncUrl));
  expect(http.map(({ url }) => url.pathname)).toEqual(["/_matrix/client/v3/sync"]);
  const socket = await live();
  const url = new URL(socket.url);
  expect(url.protocol).toBe("wss:");
  expect(Object.fromEntries(url.searchParams)).toEqual({ filter: "f", since: "s1", ticket: "once" });
  expect(socket.url).not.toContain(credentials.accessToken);
  expect(socket.protocol).toBe("m.json");
});

test("frames are answers in their order, each from where the one before led, and the last is given again", async () => {
  const socket = await live();
  socket.push({ next_batch: "s3", n: 1 });
  socket.push({ next_batch: "s4", n: 2 });
  expect(await answer(transport.fetch(`${syncUrl}&since=s2`))).toEqual({ next_batch: "s3", n: 1 });
  expect(await answer(transport.fetch(`${syncUrl}&since=s2`))).toEqual({ next_batch: "s3", n: 1 });
  expect(await answer(transport.fetch(`${syncUrl}&since=s3`))).toEqual({ next_batch: "s4", n: 2 });
  expect(FakeSocket.opened.length).toBe(1);
});

test("a frame without news is not taken for the answer of the next request", async () => {
  const socket = await live();
  socket.push({ next_batch: "s2" });
  expect(await answer(transport.fetch(`${syncUrl}&since=s2`))).toEqual({ next_batch: "s2" });
  const next = transport.fetch(`${syncUrl}&since=s2`);
  socket.push({ next_batch: "s3" });
  expect(await answer(next)).toEqual({ next_batch: "s3" });
});

test("sending goes through the socket with its transaction ID; what got no answer is repeated by HTTP", async () => {
  const socket = await live();
  const path = "https://hs.test/_matrix/client/v3/rooms/!r%3Ahs.test/send/m.room.encrypted/txn1";
  const body = JSON.stringify({ a: 1 });
  const sent = transport.fetch(path, { method: "PUT", body });
  await until("it went", () => socket.sent.length === 1);
  expect(socket.sent[0]).toMatchObject({
    method: "send",
    params: { room_id: "!r:hs.test", type: "m.room.encrypted", txn_id: "txn1", content: { a: 1 } },
  });
  socket.push({ id: socket.sent[0]?.id, result: { event_id: "$1" } });
  expect(await answer(sent)).toEqual({ event_id: "$1" });

  const refused = transport.fetch(path, { method: "PUT", body });
  await until("it went", () => socket.sent.length === 2);
  socket.push({ id: socket.sent[1]?.id, error: { errcode: "M_FORBIDDEN", error: "no" } });
  expect((await refused).status).toBe(403);

  const lost = transport.fetch(path, { method: "PUT", body });
  await until("it went", () => socket.sent.length === 3);
  socket.drop(1006);
  await lost;
  expect(http.at(-1)?.url.href).toBe(path);
});

test("a lost socket is resumed from its token, and one that is closed for good is asked about", async () => {
  const socket = await live();
  const waiting = transport.fetch(`${syncUrl}&since=s2`);
  socket.drop(4008);
  await answer(waiting);
  expect(transport.ended.get()).toBe(null);
  const next = transport.fetch(`${syncUrl}&since=s2`);
  await until("another socket", () => FakeSocket.opened.length === 2 && transport.connection.get() === "live");
  const second = FakeSocket.opened[1] as FakeSocket;
  expect(new URL(second.url).searchParams.get("since")).toBe("s2");
  status = (url) =>
    url.pathname.endsWith("/whoami")
      ? Response.json({ errcode: "M_USER_LOCKED", soft_logout: true }, { status: 401 })
      : Response.json({ next_batch: "polled" });
  second.drop(4001);
  await next;
  await until("the end", () => transport.ended.get() !== null);
  expect(transport.ended.get()).toBe("locked");
});

test.each([
  [{ errcode: "M_UNKNOWN_TOKEN" }, "signed_out"],
  [{ errcode: "M_UNKNOWN_TOKEN", soft_logout: true }, "soft"],
  [{ errcode: "M_USER_LOCKED", soft_logout: true }, "locked"],
  [{ errcode: "M_FORBIDDEN", flows: [], session: "s" }, null],
])("a 401 with %j ends the session as %s", async (body, ending) => {
  status = () => Response.json(body, { status: 401 });
  const response = await transport.fetch("https://hs.test/_matrix/client/v3/devices");
  expect(await response.json()).toEqual(body); // whoever asked still reads it
  expect(transport.ended.get()).toBe(ending);
});

test("a server without sockets is polled, and not asked for tickets at every turn", async () => {
  status = (url) =>
    url.pathname.endsWith("/ticket") ? Response.json({}, { status: 404 }) : Response.json({ next_batch: "p" });
  await answer(transport.fetch(`${syncUrl}&since=s1`));
  await answer(transport.fetch(`${syncUrl}&since=p`));
  expect(transport.connection.get()).toBe("polling");
  expect(http.filter(({ url }) => url.pathname.endsWith("/ticket")).length).toBe(1);
  expect(http.at(-1)?.url.searchParams.get("timeout")).toBe("30000");
});

test("a server that cannot be reached shows as offline", async () => {
  status = () => {
    throw new TypeError("fetch failed");
  };
  await expect(transport.fetch(`${syncUrl}&since=s1`)).rejects.toThrow();
  expect(transport.connection.get()).toBe("offline");
});

test("garbage from the socket closes it", async () => {
  const socket = await live();
  const waiting = transport.fetch(`${syncUrl}&since=s2`);
  const close = vi.spyOn(socket, "close");
  socket.onmessage?.({ data: "{" });
  expect(await answer(waiting)).toEqual({ next_batch: "polled" });
  expect(close).toHaveBeenCalled();
});

test("a socket that opens after the end of its session is closed again", async () => {
  const close = vi.spyOn(FakeSocket.prototype, "close");
  FakeSocket.onCreated = () => transport.stop();
  await transport.fetch(`${syncUrl}&since=s1`);
  expect(FakeSocket.opened).toHaveLength(1);
  expect(close).toHaveBeenCalledTimes(1);
  expect(transport.connection.get()).not.toBe("live");
  close.mockRestore();
});
