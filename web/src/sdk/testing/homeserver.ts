/**
 * A homeserver in memory, for tests of the client's protocol side: enough of the client-server API for rooms, keys and messages between
 * devices, and hooks with which it lies. It is a stand-in for a hostile server; the real one is tested by the browser tests.
 */
import { isJsonObject, toJson, type Json, type JsonObject } from "../../crypto";
import type { Credentials } from "../types";

interface Device {
  userId: string;
  deviceId: string;
  token: string;
  inbox: { at: number; event: JsonObject }[];
}

interface StoredEvent {
  at: number;
  event: JsonObject;
}

interface RoomRecord {
  id: string;
  events: StoredEvent[];
  receipts: Map<string, { at: number; type: string; eventId: string; userId: string }>;
}

type Handler = (
  device: Device,
  parts: string[],
  body: JsonObject,
  url: URL,
  signal?: AbortSignal | null,
) => Promise<Json>;

class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly errcode: string,
  ) {
    super(errcode);
  }
}

export class Homeserver {
  readonly baseUrl = "https://hs.test";
  readonly devices: Device[] = [];
  readonly rooms = new Map<string, RoomRecord>();
  readonly deviceKeys = new Map<string, Map<string, JsonObject>>();
  readonly crossSigning = new Map<string, JsonObject>();
  readonly accountData = new Map<string, JsonObject>();
  readonly media = new Map<string, ArrayBuffer>();
  /** The largest file that it takes. */
  readonly uploadLimit = 1_000_000;
  /** Every to-device request, as it came. */
  readonly sentToDevice: { sender: string; type: string; messages: JsonObject }[] = [];
  readonly requests: string[] = [];
  /** Changes or refuses a request before it is handled: return a status to fail it. */
  intercept: (method: string, path: string, body: JsonObject) => number | undefined = () => undefined;
  /** Changes an answer of /keys/query. */
  lieAboutKeys: (answer: JsonObject) => JsonObject = (answer) => answer;
  private readonly transactions = new Map<string, Json>();
  private readonly changed = new Map<string, number>();
  private position = 1;
  private waiters = new Set<() => void>();

  addDevice(userId: string, deviceId: string): Credentials {
    const token = `token-${userId}-${deviceId}`;
    this.devices.push({ userId, deviceId, token, inbox: [] });
    return { baseUrl: this.baseUrl, userId, deviceId, accessToken: token };
  }

  private advance(): number {
    this.position++;
    const { waiters } = this;
    this.waiters = new Set();
    for (const wake of waiters) wake();
    return this.position;
  }

  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : String(input));
    const method = init?.method ?? "GET";
    const path = url.pathname.replace(/^\/_matrix\/client\/(v3|v1|unstable|r0)/, "");
    this.requests.push(`${method} ${path}`);
    try {
      const media = await this.handleMedia(method, url, init);
      if (media) return media;
      const body = toJson(typeof init?.body === "string" ? JSON.parse(init.body) : {});
      const object = isJsonObject(body) ? body : {};
      const failing = this.intercept(method, path, object);
      if (failing === 0) throw new TypeError("fetch failed");
      if (failing !== undefined) throw new Refusal(failing, "M_UNKNOWN");
      const answer = await this.route(method, path, object, url, init);
      return Response.json(answer);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return Response.json({ errcode: error.errcode, error: error.errcode }, { status: error.status });
    }
  };

  private device(init?: RequestInit): Device {
    const token = new Headers(init?.headers).get("Authorization")?.replace(/^Bearer /, "");
    const device = this.devices.find((candidate) => candidate.token === token);
    if (!device) throw new Refusal(401, "M_UNKNOWN_TOKEN");
    return device;
  }

  private async handleMedia(method: string, url: URL, init?: RequestInit): Promise<Response | undefined> {
    if (method === "POST" && url.pathname.endsWith("/upload") && url.pathname.includes("/media/")) {
      const id = `m${this.media.size}`;
      this.media.set(id, await new Response(init?.body ?? null).arrayBuffer());
      return Response.json({ content_uri: `mxc://hs.test/${id}` });
    }
    if (url.pathname.endsWith("/media/config")) return Response.json({ "m.upload.size": this.uploadLimit });
    const download = /\/media\/download\/hs\.test\/([^/?]+)$/.exec(url.pathname);
    if (!download) return undefined;
    this.device(init);
    return new Response(this.media.get(download[1] ?? "") ?? null);
  }

  private async route(method: string, path: string, body: JsonObject, url: URL, init?: RequestInit): Promise<Json> {
    if (path === "/_matrix/client/versions" || path.endsWith("/versions")) return { versions: ["v1.11"] };
    for (const [verb, pattern, handler] of this.routes) {
      const match = verb === method ? pattern.exec(path) : null;
      if (match) return handler(this.device(init), match.slice(1).map(decodeURIComponent), body, url, init?.signal);
    }
    throw new Refusal(404, "M_UNRECOGNIZED");
  }

  private readonly routes: [string, RegExp, Handler][] = [
    ["GET", /^\/sync$/, async (device, _parts, _body, url, signal) => this.sync(device, url, signal)],
    ["POST", /^\/user\/[^/]+\/filter$/, async () => ({ filter_id: "f" })],
    ["GET", /^\/pushrules\/?$/, async () => ({ global: {}, device: {} })],
    ["GET", /^\/capabilities$/, async () => ({ capabilities: {} })],
    ["POST", /^\/logout$/, async () => ({})],
    ["POST", /^\/createRoom$/, async (device, _parts, body) => this.createRoom(device, body)],
    [
      "POST",
      /^\/join\/([^/]+)$/,
      async (device, [room]) => this.setMember(room ?? "", device.userId, "join", device.userId),
    ],
    [
      "POST",
      /^\/rooms\/([^/]+)\/leave$/,
      async (device, [room]) => this.setMember(room ?? "", device.userId, "leave", device.userId),
    ],
    [
      "PUT",
      /^\/rooms\/([^/]+)\/send\/([^/]+)\/([^/]+)$/,
      async (device, parts, body) => this.send(device, parts, body),
    ],
    [
      "GET",
      /^\/rooms\/([^/]+)\/members$/,
      async (_device, [room]) => ({ chunk: this.state(room ?? "").filter((e) => e.type === "m.room.member") }),
    ],
    ["POST", /^\/rooms\/([^/]+)\/receipt\/([^/]+)\/([^/]+)$/, async (device, parts) => this.receipt(device, parts)],
    [
      "POST",
      /^\/rooms\/([^/]+)\/read_markers$/,
      async (device, [room], body) => this.receipt(device, [room ?? "", "m.read", String(body["m.read"])]),
    ],
    ["PUT", /^\/rooms\/([^/]+)\/typing\/([^/]+)$/, async () => ({})],
    ["POST", /^\/keys\/upload$/, async (device, _parts, body) => this.uploadKeys(device, body)],
    ["POST", /^\/keys\/query$/, async (_device, _parts, body) => this.lieAboutKeys(this.queryKeys(body))],
    ["POST", /^\/keys\/device_signing\/upload$/, async (device, _parts, body) => this.uploadIdentity(device, body)],
    ["POST", /^\/keys\/signatures\/upload$/, async (_device, _parts, body) => this.uploadSignatures(body)],
    ["PUT", /^\/sendToDevice\/([^/]+)\/([^/]+)$/, async (device, parts, body) => this.toDevice(device, parts, body)],
    [
      "GET",
      /^\/user\/([^/]+)\/account_data\/([^/]+)$/,
      async (device, [, type]) => this.readAccountData(device, type ?? ""),
    ],
    [
      "PUT",
      /^\/user\/([^/]+)\/account_data\/([^/]+)$/,
      async (device, [, type], body) => this.writeAccountData(device, type ?? "", body),
    ],
  ];

  // Rooms.

  room(roomId: string): RoomRecord {
    const room = this.rooms.get(roomId);
    if (!room) throw new Refusal(404, "M_NOT_FOUND");
    return room;
  }

  /** The present state of a room: the newest event of each type and key. */
  state(roomId: string): JsonObject[] {
    const newest = new Map<string, JsonObject>();
    for (const { event } of this.room(roomId).events) {
      if (typeof event.state_key === "string") newest.set(`${String(event.type)}|${event.state_key}`, event);
    }
    return [...newest.values()];
  }

  membership(roomId: string, userId: string): string {
    const member = this.state(roomId).find((event) => event.type === "m.room.member" && event.state_key === userId);
    return member && isJsonObject(member.content) ? String(member.content.membership) : "leave";
  }

  /** Puts an event into a room, as whatever its sender says: a server can. */
  append(roomId: string, event: JsonObject): string {
    const room = this.room(roomId);
    const eventId = `$${roomId.slice(1, 4)}-${this.position}`;
    const at = this.advance();
    const replaced = this.state(roomId).find((old) => old.type === event.type && old.state_key === event.state_key);
    const unsigned = {
      ...(isJsonObject(event.unsigned) ? event.unsigned : {}),
      ...(event.state_key !== undefined && replaced ? { replaces_state: replaced.event_id ?? "" } : {}),
    };
    const whole = { event_id: eventId, origin_server_ts: Date.now(), room_id: roomId, ...event, unsigned };
    room.events.push({ at, event: whole });
    return eventId;
  }

  setMember(roomId: string, userId: string, membership: string, sender: string): JsonObject {
    this.append(roomId, { type: "m.room.member", state_key: userId, sender, content: { membership } });
    for (const other of this.devices)
      if (this.membership(roomId, other.userId) === "join") this.changed.set(userId, this.position);
    return { room_id: roomId };
  }

  private createRoom(device: Device, body: JsonObject): JsonObject {
    const roomId = `!r${this.rooms.size}:hs.test`;
    this.rooms.set(roomId, { id: roomId, events: [], receipts: new Map() });
    const sender = device.userId;
    this.append(roomId, { type: "m.room.create", state_key: "", sender, content: { room_version: "12" } });
    this.setMember(roomId, sender, "join", sender);
    this.append(roomId, {
      type: "m.room.history_visibility",
      state_key: "",
      sender,
      content: { history_visibility: "shared" },
    });
    for (const state of Array.isArray(body.initial_state) ? body.initial_state : []) {
      if (isJsonObject(state)) this.append(roomId, { ...state, sender });
    }
    for (const user of Array.isArray(body.invite) ? body.invite : [])
      this.setMember(roomId, String(user), "invite", sender);
    return { room_id: roomId };
  }

  private send(device: Device, [roomId, type, txnId]: string[], content: JsonObject): Json {
    const name = `${device.token}|${txnId}`;
    const done = this.transactions.get(name);
    if (done !== undefined) return done;
    if (this.membership(roomId ?? "", device.userId) !== "join") throw new Refusal(403, "M_FORBIDDEN");
    const unsigned = { transaction_id: txnId ?? "" };
    const event = { type: type ?? "", sender: device.userId, content, unsigned };
    const answer = { event_id: this.append(roomId ?? "", event) };
    this.transactions.set(name, answer);
    return answer;
  }

  private receipt(device: Device, [roomId, type, eventId]: string[]): JsonObject {
    const room = this.room(roomId ?? "");
    const at = this.advance();
    room.receipts.set(`${type}|${device.userId}`, {
      at,
      type: type ?? "",
      eventId: eventId ?? "",
      userId: device.userId,
    });
    return {};
  }

  // Keys.

  private uploadKeys(device: Device, body: JsonObject): JsonObject {
    const mine = this.deviceKeys.get(device.userId) ?? new Map<string, JsonObject>();
    this.deviceKeys.set(device.userId, mine);
    const fresh = isJsonObject(body.device_keys) ? body.device_keys : {};
    const known = mine.get(device.deviceId);
    mine.set(device.deviceId, known ? mergeSignatures(known, fresh) : fresh);
    this.changed.set(device.userId, this.advance());
    return { one_time_key_counts: {} };
  }

  private queryKeys(body: JsonObject): JsonObject {
    const users = Object.keys(isJsonObject(body.device_keys) ? body.device_keys : {});
    const pick = (kind: string): JsonObject =>
      Object.fromEntries(
        users.flatMap((user) => {
          const key = this.crossSigning.get(user)?.[kind];
          return key === undefined ? [] : [[user, key]];
        }),
      );
    return {
      device_keys: Object.fromEntries(users.map((user) => [user, Object.fromEntries(this.deviceKeys.get(user) ?? [])])),
      master_keys: pick("master_key"),
      self_signing_keys: pick("self_signing_key"),
      failures: {},
    };
  }

  private uploadIdentity(device: Device, body: JsonObject): JsonObject {
    this.crossSigning.set(device.userId, body);
    this.changed.set(device.userId, this.advance());
    return {};
  }

  private uploadSignatures(body: JsonObject): JsonObject {
    for (const [user, objects] of Object.entries(body)) {
      for (const [id, object] of Object.entries(isJsonObject(objects) ? objects : {})) {
        const known = this.deviceKeys.get(user)?.get(id);
        if (known && isJsonObject(object)) this.deviceKeys.get(user)?.set(id, mergeSignatures(known, object));
      }
      this.changed.set(user, this.advance());
    }
    return { failures: {} };
  }

  private toDevice(device: Device, [type]: string[], body: JsonObject): JsonObject {
    const messages = isJsonObject(body.messages) ? body.messages : {};
    this.sentToDevice.push({ sender: device.userId, type: type ?? "", messages });
    for (const [user, devices] of Object.entries(messages)) {
      for (const [id, content] of Object.entries(isJsonObject(devices) ? devices : {})) {
        for (const target of this.devices.filter((d) => d.userId === user && (id === "*" || d.deviceId === id))) {
          target.inbox.push({ at: this.position + 1, event: { type: type ?? "", sender: device.userId, content } });
        }
      }
    }
    this.advance();
    return {};
  }

  private readAccountData(device: Device, type: string): JsonObject {
    const content = this.accountData.get(`${device.userId}|${type}`);
    if (!content) throw new Refusal(404, "M_NOT_FOUND");
    return content;
  }

  private writeAccountData(device: Device, type: string, content: JsonObject): JsonObject {
    this.accountData.set(`${device.userId}|${type}`, content);
    return {};
  }

  // Sync.

  private async sync(device: Device, url: URL, signal?: AbortSignal | null): Promise<JsonObject> {
    const since = Number(url.searchParams.get("since") ?? 0);
    device.inbox = device.inbox.filter((message) => message.at > since);
    if (since >= this.position && Number(url.searchParams.get("timeout")) > 0) await this.wait(signal);
    const rooms = [...this.rooms.values()];
    const join = rooms.filter((room) => this.membership(room.id, device.userId) === "join");
    const invite = rooms.filter((room) => this.membership(room.id, device.userId) === "invite");
    return {
      next_batch: String(this.position),
      to_device: { events: device.inbox.map(({ event }) => event) },
      device_lists: {
        changed: [...this.changed].filter(([, at]) => since > 0 && at > since).map(([user]) => user),
        left: [],
      },
      device_one_time_keys_count: {},
      rooms: {
        join: Object.fromEntries(join.map((room) => [room.id, this.joined(room, device.userId, since)])),
        invite: Object.fromEntries(invite.map((room) => [room.id, { invite_state: { events: this.state(room.id) } }])),
        leave: {},
      },
    };
  }

  private joined(room: RoomRecord, userId: string, since: number): JsonObject {
    const own = room.events.findLast(({ event }) => event.type === "m.room.member" && event.state_key === userId);
    const from = own && own.at > since ? 0 : since;
    const news = room.events.filter(({ at }) => at > from);
    const receipts = [...room.receipts.values()].filter(({ at }) => at > from);
    return {
      timeline: { events: news.map(({ event }) => event), limited: from === 0, prev_batch: "p" },
      state: { events: from === 0 ? this.state(room.id) : [] },
      ephemeral: {
        events: receipts.map(({ type, eventId, userId: user }) => ({
          type: "m.receipt",
          content: { [eventId]: { [type]: { [user]: { ts: 1 } } } },
        })),
      },
      account_data: { events: [] },
      unread_notifications: {},
    };
  }

  private wait(signal?: AbortSignal | null): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiters.add(resolve);
      signal?.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
    });
  }
}

function mergeSignatures(known: JsonObject, fresh: JsonObject): JsonObject {
  const [a, b] = [known.signatures, fresh.signatures].map((value) => (isJsonObject(value) ? value : {}));
  const users = new Set([...Object.keys(a ?? {}), ...Object.keys(b ?? {})]);
  const both = [...users].map((user): [string, JsonObject] => {
    const of = (from?: JsonObject): JsonObject => (isJsonObject(from?.[user]) ? from[user] : {});
    return [user, { ...of(a), ...of(b) }];
  });
  return { ...known, signatures: Object.fromEntries(both) };
}
