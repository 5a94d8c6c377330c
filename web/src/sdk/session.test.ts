import type { MatrixEvent } from "matrix-js-sdk";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createCrossSigning, isJsonObject, type JsonObject } from "../crypto";
import { KeyStore } from "./keystore";
import { createSession } from "./session";
import { deviceDatabase } from "./saved";
import { freshBrowser, restore, snapshot, until } from "./testing/browser";
import { Homeserver } from "./testing/homeserver";
import type { Credentials, Failure, Session } from "./types";

const alice = "@alice:hs.test";
const bob = "@bob:hs.test";
const eve = "@eve:hs.test";

let hs: Homeserver;
let open: Session[];

beforeEach(() => {
  freshBrowser();
  hs = new Homeserver();
  vi.stubGlobal("fetch", hs.fetch);
  open = [];
});

afterEach(async () => {
  for (const session of open) await session.logOut();
  vi.unstubAllGlobals();
});

async function signIn(credentials: Credentials): Promise<Session> {
  const session = await createSession(credentials, { transport: { fetch: hs.fetch, WebSocket: undefined } });
  open.push(session);
  return session;
}

/** A new account with an identity, syncing. */
async function join(
  userId: string,
  deviceId: string,
): Promise<{ session: Session; recoveryKey: string; credentials: Credentials }> {
  const credentials = hs.addDevice(userId, deviceId);
  const session = await signIn(credentials);
  const { recoveryKey, commit } = await session.createIdentity("password");
  await commit();
  await session.start();
  await until("the identity", () => session.identity.get() === "ready");
  return { session, recoveryKey, credentials };
}

async function direct(): Promise<{ a: Session; b: Session; roomId: string }> {
  const [{ session: a }, { session: b }] = [await join(alice, "A1"), await join(bob, "B1")];
  const roomId = await a.createDirect(bob);
  await until("the invitation", () => b.client.getRoom(roomId)?.getMyMembership() === "invite");
  await b.client.joinRoom(roomId);
  await until("both in the room", () => memberships(a, roomId) === 2 && memberships(b, roomId) === 2);
  return { a, b, roomId };
}

function memberships(session: Session, roomId: string): number {
  return session.client.getRoom(roomId)?.getJoinedMembers().length ?? 0;
}

function messages(session: Session, roomId: string): MatrixEvent[] {
  const events = session.client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? [];
  return events.filter((event) => event.getWireType() === "m.room.encrypted" || event.getType() === "m.room.message");
}

function bodies(session: Session, roomId: string): string[] {
  return messages(session, roomId).map((event) => String(event.getContent().body));
}

function failures(session: Session, roomId: string): (Failure | null)[] {
  return messages(session, roomId).map((event) => session.failure(event));
}

/** The encrypted events that the server holds. */
function wire(roomId: string): JsonObject[] {
  return hs
    .room(roomId)
    .events.map(({ event }) => event)
    .filter((event) => event.type === "m.room.encrypted");
}

function content(event: JsonObject | undefined): JsonObject {
  return isJsonObject(event?.content) ? event.content : {};
}

function sealedTo(): string[] {
  const rooms = hs.sentToDevice.filter(({ type }) => type === "m.room.encrypted");
  return rooms.flatMap(({ messages: m }) =>
    Object.entries(m).flatMap(([user, devices]) =>
      Object.keys(isJsonObject(devices) ? devices : {}).map((d) => `${user} ${d}`),
    ),
  );
}

describe("two people in a sealed room", () => {
  test("read each other, and the server reads nothing", async () => {
    const { a, b, roomId } = await direct();
    await a.sendText(roomId, "the first secret");
    await until("bob reads it", () => bodies(b, roomId).includes("the first secret"));
    await b.sendText(roomId, "the answer", messages(b, roomId)[0]?.getId());
    await until("alice reads it", () => bodies(a, roomId).includes("the answer"));
    expect(failures(a, roomId)).toEqual([null, null]);
    const everything =
      JSON.stringify([...hs.rooms.values()].map((room) => room.events)) + JSON.stringify(hs.sentToDevice);
    expect(everything).not.toContain("secret");
    expect(everything).not.toContain("in_reply_to");
    expect(a.isSealed(roomId)).toBe(true);
  });

  test("see ticks", async () => {
    const { a, b, roomId } = await direct();
    await a.sendText(roomId, "seen?");
    const mine = (): MatrixEvent | undefined => messages(a, roomId).at(-1);
    await until("delivered", () => mine() !== undefined && a.delivery(mine() as MatrixEvent) === "delivered");
    await until("bob has it", () => messages(b, roomId).length === 1);
    await b.markRead(roomId, messages(b, roomId)[0]?.getId() ?? "");
    await until("read", () => a.delivery(mine() as MatrixEvent) === "read");
  });

  test("send files that the server cannot read", async () => {
    const { a, b, roomId } = await direct();
    const text = "bytes of a file ".repeat(5000);
    const signal = new AbortController().signal;
    await a.sendFile(roomId, new File([text], "plan.txt", { type: "text/plain" }), {
      onProgress: () => undefined,
      signal,
    });
    await until("bob has it", () => bodies(b, roomId).includes("plan.txt"));
    const event = messages(b, roomId).at(-1) as MatrixEvent;
    const blob = await b.readAttachment(event, { thumbnail: false, signal });
    expect(await blob.text()).toBe(text);
    expect(blob.type).toBe("application/octet-stream");
    const [id, stored] = [...hs.media][0] ?? ["", new ArrayBuffer(0)];
    expect(new TextDecoder().decode(stored)).not.toContain("bytes of a file");
    const altered = new Uint8Array(stored);
    altered[7] = (altered[7] ?? 0) ^ 1;
    hs.media.set(id, altered.buffer);
    await expect(b.readAttachment(event, { thumbnail: false, signal })).rejects.toThrow("wrong_hash");
  });

  test("say nothing on the console, where identifiers have no business", async () => {
    const said = (["log", "info", "debug", "warn", "error"] as const).map((level) =>
      vi.spyOn(console, level).mockImplementation(() => undefined),
    );
    const { a, b, roomId } = await direct();
    await a.sendText(roomId, "hush");
    await until("bob reads it", () => bodies(b, roomId).includes("hush"));
    const lines = said.flatMap((spy) => spy.mock.calls).map((call) => call.map(String).join(" "));
    expect(lines.filter((line) => line.includes("hs.test"))).toEqual([]);
    for (const spy of said) spy.mockRestore();
  });

  test("do not begin to send a file that the server will refuse", async () => {
    const { a, roomId } = await direct();
    const progress = vi.fn();
    const file = new File([new Uint8Array(hs.uploadLimit + 1)], "film.mp4");
    await expect(
      a.sendFile(roomId, file, { onProgress: progress, signal: new AbortController().signal }),
    ).rejects.toMatchObject({ errcode: "M_TOO_LARGE", limit: hs.uploadLimit });
    expect(hs.media.size).toBe(0);
    expect(progress).not.toHaveBeenCalled();
  });

  test("encrypt reactions whole", async () => {
    const { a, b, roomId } = await direct();
    await a.sendText(roomId, "nice?");
    await until("bob reads it", () => bodies(b, roomId).includes("nice?"));
    const eventId = messages(b, roomId)[0]?.getId() ?? "";
    const relation = { rel_type: "m.annotation" as never, event_id: eventId, key: "👍" };
    await b.client.sendEvent(roomId, "m.reaction" as never, { "m.relates_to": relation } as never);
    await until("alice has it", () => messages(a, roomId).some((event) => event.getType() === "m.reaction"));
    expect(content(wire(roomId).at(-1))["m.relates_to"]).toEqual({ rel_type: "m.reference", event_id: eventId });
    expect(JSON.stringify(wire(roomId))).not.toContain("👍");
  });
});

describe("a server that lies", () => {
  test("cannot replay, move or alter a message, nor put words into anybody's mouth", async () => {
    const { a, b, roomId } = await direct();
    await a.sendText(roomId, "once");
    await until("bob reads it", () => bodies(b, roomId).includes("once"));
    const original = content(wire(roomId)[0]);
    const other = await a.createGroup({ name: "other", invite: [bob] });
    await b.client.joinRoom(other);
    await until("bob is in the other room", () => memberships(b, other) === 2);
    hs.append(roomId, { type: "m.room.encrypted", sender: alice, content: original });
    hs.append(roomId, { type: "m.room.encrypted", sender: bob, content: original });
    hs.append(roomId, { type: "m.room.encrypted", sender: alice, content: { ...original, index: 1 } });
    const relation = { rel_type: "m.thread", event_id: "$x" };
    hs.append(roomId, { type: "m.room.encrypted", sender: alice, content: { ...original, "m.relates_to": relation } });
    hs.append(roomId, { type: "m.room.message", sender: alice, content: { msgtype: "m.text", body: "plain" } });
    hs.append(other, { type: "m.room.encrypted", sender: alice, content: original });
    hs.append(roomId, {
      type: "m.room.encrypted",
      sender: alice,
      content: { ...original, algorithm: "m.megolm.v1.aes-sha2" },
    });
    await until("bob has them", () => failures(b, roomId).length === 7 && failures(b, roomId)[6] !== null);
    await until("decided", () =>
      failures(b, roomId)
        .slice(1)
        .every((failure) => failure !== null),
    );
    expect(failures(b, roomId)).toEqual([
      null,
      "replayed",
      "forged",
      "forged",
      "forged",
      "not_encrypted",
      "unknown_algorithm",
    ]);
    await until("decided there", () => failures(b, other)[0] === "forged");
  });

  test("cannot edit an encrypted message by a plain one", async () => {
    const { a, b, roomId } = await direct();
    await a.sendText(roomId, "as written");
    await until("bob reads it", () => bodies(b, roomId).includes("as written"));
    const edit = {
      msgtype: "m.text",
      body: "* forged",
      "m.new_content": { msgtype: "m.text", body: "forged" },
      "m.relates_to": { rel_type: "m.replace", event_id: messages(b, roomId)[0]?.getId() ?? "" },
    };
    hs.append(roomId, { type: "m.room.message", sender: alice, content: edit });
    await until("it came", () => messages(b, roomId).length === 2);
    await a.sendText(roomId, "next");
    await until("the next came", () => bodies(b, roomId).includes("next"));
    expect(bodies(b, roomId)).toEqual(["as written", "* forged", "next"]);
    expect(failures(b, roomId)[1]).toBe("not_encrypted");
  });

  test("cannot turn encryption off, or slip in a device or an identity", async () => {
    const { a, b, roomId } = await direct();
    await a.sendText(roomId, "before");
    await until("bob reads it", () => bodies(b, roomId).includes("before"));
    // A device that nobody signed, with keys that the server holds.
    const foreign = await signIn(hs.addDevice(bob, "SPY"));
    await foreign.start();
    await until("the spy's keys", () => hs.deviceKeys.get(bob)?.has("SPY") === true);
    hs.append(roomId, { type: "m.room.encryption", state_key: "", sender: bob, content: { algorithm: "none" } });
    hs.sentToDevice.length = 0;
    await a.sendText(roomId, "after");
    await until("bob reads it", () => bodies(b, roomId).includes("after"));
    expect(content(wire(roomId).at(-1)).algorithm).toBe("im.conclave.group.v1");
    expect(sealedTo()).not.toContain(`${bob} SPY`);
    expect(foreign.identity.get()).toBe("locked");
    // Another identity under bob's name: nothing more goes to him until alice has looked.
    await swapIdentity();
    await until("alice sees it", () => a.roomSafety(roomId).get().changed.includes(bob));
    await expect(a.sendText(roomId, "to whom?")).rejects.toThrow("identity_changed");
    expect(wire(roomId).length).toBe(2);
  });
});

test("what a room promises is looked at again once the server can be reached", async () => {
  const { a, roomId } = await direct();
  const safety = a.roomSafety(roomId);
  await until("it was looked at", () => hs.requests.filter((request) => request === "POST /keys/query").length > 2);
  let asked = 0;
  hs.intercept = (_method, path) => (path === "/keys/query" && asked++ >= 0 ? 0 : undefined);
  hs.addDevice(eve, "E1"); // has no identity: nobody seals anything to her
  hs.setMember(roomId, eve, "join", eve);
  await until("it was asked in vain", () => asked > 0);
  hs.intercept = () => undefined;
  await until("it is known that she cannot read", () => safety.get().withoutKeys.includes(eve));
});

/** Replaces bob's identity by one that is well made, of keys that are not his. */
async function swapIdentity(): Promise<void> {
  const fresh = await createCrossSigning(bob);
  const body = { master_key: fresh.objects.master, self_signing_key: fresh.objects.self_signing };
  await hs.fetch(`${hs.baseUrl}/_matrix/client/v3/keys/device_signing/upload`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { Authorization: `Bearer token-${bob}-SPY` },
  });
}

describe("sessions", () => {
  test("are replaced when somebody leaves, and the leaver gets nothing more", async () => {
    const { a, roomId } = await direct();
    const { session: e } = await join(eve, "E1");
    hs.setMember(roomId, eve, "join", eve);
    await until("eve is in", () => memberships(a, roomId) === 3 && memberships(e, roomId) === 3);
    await a.sendText(roomId, "for three");
    await until("eve reads it", () => bodies(e, roomId).includes("for three"));
    hs.setMember(roomId, eve, "leave", eve);
    await until("eve is out", () => memberships(a, roomId) === 2);
    hs.sentToDevice.length = 0;
    await a.sendText(roomId, "for two");
    const [first, second] = wire(roomId).map((event) => content(event).session_id);
    expect(first).not.toBe(second);
    expect(sealedTo()).toEqual([`${bob} B1`]);
  });

  test("heal when a key was lost on its way, for those who were entitled", async () => {
    const { a, b, roomId } = await direct();
    hs.intercept = (_method, path, body) => {
      if (path.startsWith("/sendToDevice/m.room.encrypted")) body.messages = {};
      return undefined;
    };
    await a.sendText(roomId, "lost at first");
    await until("bob cannot read it", () => failures(b, roomId)[0] === "no_key");
    hs.intercept = () => undefined;
    await until("bob asked and was answered", () => bodies(b, roomId).includes("lost at first"));
  });

  test("never use an index twice from a restored profile", async () => {
    const { a, b, roomId } = await direct();
    await a.sendText(roomId, "kept");
    const database = deviceDatabase(a.credentials);
    const copy = await snapshot(database);
    await a.sendText(roomId, "lost one");
    await a.sendText(roomId, "lost two");
    a.client.stopClient();
    await restore(database, copy);
    const again = await signIn(a.credentials);
    await again.start();
    await until("the room", () => again.client.getRoom(roomId) !== null);
    await again.sendText(roomId, "after the restore");
    await until("bob reads it", () => bodies(b, roomId).includes("after the restore"));
    const used = wire(roomId).map((event) => `${String(content(event).session_id)} ${String(content(event).index)}`);
    expect(new Set(used).size).toBe(4);
    expect(content(wire(roomId).at(-1))).toMatchObject({ index: 0 });
  });

  test("never use an index twice from two tabs", async () => {
    const { a, b, roomId } = await direct();
    const twin = await signIn(a.credentials);
    await twin.start();
    await until("the twin is in the room", () => memberships(twin, roomId) === 2);
    const sends = Array.from({ length: 10 }, (_, i) => (i % 2 ? a : twin).sendText(roomId, `from a tab ${i}`));
    await Promise.all(sends);
    await until("bob reads all", () => bodies(b, roomId).filter((body) => body.startsWith("from a tab")).length === 10);
    const used = wire(roomId).map((event) => `${String(content(event).session_id)} ${String(content(event).index)}`);
    expect(new Set(used).size).toBe(10);
    expect(new Set(used.map((use) => use.split(" ")[0])).size).toBe(1);
  });
});

describe("a message on its way", () => {
  test("is repeated until the server has it, once, and stands as sending meanwhile", async () => {
    const { a, b, roomId } = await direct();
    let failing = 2;
    hs.intercept = (method, path) => (method === "PUT" && path.includes("/send/") && failing-- > 0 ? 0 : undefined);
    const sent = a.sendText(roomId, "at last");
    await until("it waits", () => failing < 2);
    const pending = a.client.getRoom(roomId)?.getPendingEvents()[0];
    expect(pending && a.delivery(pending)).toBe("sending");
    await sent;
    await until("bob reads it", () => bodies(b, roomId).includes("at last"));
    expect(wire(roomId).length).toBe(1);
  });

  test("fails for good where the server refuses, and the next one goes", async () => {
    const { a, roomId } = await direct();
    let refuse = true;
    hs.intercept = (method, path) => (refuse && method === "PUT" && path.includes("/send/") ? 403 : undefined);
    await expect(a.sendText(roomId, "refused")).rejects.toThrow();
    const pending = a.client.getRoom(roomId)?.getPendingEvents()[0] as MatrixEvent;
    expect(a.delivery(pending)).toBe("failed");
    refuse = false;
    await a.sendText(roomId, "taken");
    expect(wire(roomId).length).toBe(1);
    await a.resend(roomId, pending.getId() ?? "");
    expect(wire(roomId).length).toBe(2);
  });

  test("with a file is one thing to send again once the file is there, not two", async () => {
    const { a, roomId } = await direct();
    let refuse = true;
    hs.intercept = (method, path) => (refuse && method === "PUT" && path.includes("/send/") ? 403 : undefined);
    const options = { onProgress: () => undefined, signal: new AbortController().signal };
    await a.sendFile(roomId, new File(["plan"], "plan.txt"), options); // whoever shows the upload is done with it
    const pending = (): MatrixEvent | undefined => a.client.getRoom(roomId)?.getPendingEvents()[0];
    await until("it failed", () => pending() !== undefined && a.delivery(pending() as MatrixEvent) === "failed");
    refuse = false;
    await a.resend(roomId, pending()?.getId() ?? "");
    expect([wire(roomId).length, hs.media.size]).toEqual([1, 1]);
  });

  test("that the browser has no room to keep goes all the same", async () => {
    const { a, b, roomId } = await direct();
    const full = vi.spyOn(KeyStore.prototype, "put");
    full.mockRejectedValueOnce(new DOMException("no room left", "QuotaExceededError"));
    await a.sendText(roomId, "on a full disk");
    await until("bob reads it", () => bodies(b, roomId).includes("on a full disk"));
    full.mockRestore();
  });

  test("survives a reload", async () => {
    const { a, b, roomId } = await direct();
    hs.intercept = (method, path) => (method === "PUT" && path.includes("/send/") ? 0 : undefined);
    void a.sendText(roomId, "written before the crash").catch(() => undefined);
    await until("it is tried", () => hs.requests.some((request) => request.includes("/send/")));
    a.client.stopClient();
    hs.intercept = () => undefined;
    const again = await signIn(a.credentials);
    await again.start();
    await until("bob reads it", () => bodies(b, roomId).includes("written before the crash"));
  });
});

describe("how far one has read", () => {
  /** Two messages that bob has, and what the server was told of his reading. */
  async function two(): Promise<{ a: Session; b: Session; roomId: string; told: string[] }> {
    const { a, b, roomId } = await direct();
    await a.sendText(roomId, "one");
    await a.sendText(roomId, "two");
    await until("bob has both", () => messages(b, roomId).length === 2);
    return { a, b, roomId, told: [] };
  }

  const idOf = (session: Session, roomId: string, i: number): string => messages(session, roomId)[i]?.getId() ?? "";

  test("is told again by itself once the server can be reached, and only the newest of it", async () => {
    const { a, b, roomId, told } = await two();
    let reachable = false;
    hs.intercept = (_method, path, body) => {
      if (!path.endsWith("/read_markers")) return undefined;
      told.push(String(body["m.fully_read"]));
      return reachable ? undefined : 0;
    };
    const first = b.markRead(roomId, idOf(b, roomId, 0));
    await until("it was tried", () => told.length === 1);
    await b.markRead(roomId, idOf(b, roomId, 1));
    reachable = true;
    await first;
    await until("read", () => a.delivery(messages(a, roomId)[1] as MatrixEvent) === "read");
    expect(told.slice(1)).toContain(idOf(b, roomId, 1));
    expect(told.slice(1)).not.toContain(idOf(b, roomId, 0));
  });

  test("is told of what was read while an earlier mark was on its way, after it", async () => {
    const { a, b, roomId, told } = await two();
    let second: Promise<void> | undefined;
    hs.intercept = (_method, path, body) => {
      if (!path.endsWith("/read_markers")) return undefined;
      told.push(String(body["m.fully_read"]));
      second ??= b.markRead(roomId, idOf(b, roomId, 1));
      return undefined;
    };
    await b.markRead(roomId, idOf(b, roomId, 0));
    await until("read", () => a.delivery(messages(a, roomId)[1] as MatrixEvent) === "read");
    expect(told).toEqual([idOf(b, roomId, 0), idOf(b, roomId, 1)]);
  });

  test("is not told again where the server refuses it", async () => {
    const { b, roomId, told } = await two();
    hs.intercept = (_method, path) => (path.endsWith("/read_markers") && told.push(path) > 0 ? 403 : undefined);
    await expect(b.markRead(roomId, idOf(b, roomId, 0))).rejects.toThrow();
    expect(told).toHaveLength(1);
  });
});

describe("signing in again", () => {
  test("with the recovery key makes the device one that others seal to", async () => {
    const { session: a, recoveryKey } = await join(alice, "A1");
    const second = await signIn(hs.addDevice(alice, "A2"));
    await second.start();
    await until("locked", () => second.identity.get() === "locked");
    await expect(second.unlock(`${recoveryKey}x`)).rejects.toThrow("wrong_key");
    await second.unlock(recoveryKey);
    expect(second.identity.get()).toBe("ready");
    const roomId = await a.createGroup({ name: "notes", invite: [] });
    await until("the second sees the room", () => second.client.getRoom(roomId) !== null);
    await a.sendText(roomId, "for both");
    await until("the second reads it", () => bodies(second, roomId).includes("for both"));
    await second.sendText(roomId, "from the second");
    await until("the first reads it", () => bodies(a, roomId).includes("from the second"));
  });

  test("while the server cannot be reached, and going on when it can", async () => {
    const { a, b, roomId } = await direct();
    a.client.stopClient();
    hs.intercept = () => 0;
    const again = await signIn(a.credentials);
    const started = again.start();
    await until("it tried", () => again.connection.get() === "offline");
    hs.intercept = () => undefined;
    await started;
    await until("the room", () => again.client.getRoom(roomId) !== null);
    await again.sendText(roomId, "back again");
    await until("bob reads it", () => bodies(b, roomId).includes("back again"));
  });

  test("after a reload everything is still readable", async () => {
    const { a, b, roomId } = await direct();
    await a.sendText(roomId, "one");
    await b.sendText(roomId, "two");
    await until("read", () => bodies(a, roomId).length === 2 && bodies(b, roomId).length === 2);
    for (const session of [a, b]) {
      const again = await signIn(session.credentials);
      expect(again.identity.get()).toBe("ready");
      await again.start();
      await until("all is back", () => ["one", "two"].every((body) => bodies(again, roomId).includes(body)));
      expect(failures(again, roomId)).toEqual([null, null]);
    }
  });
});
