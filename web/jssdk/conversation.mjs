/** What people do in an encrypted room, each on a server of their own. */
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { ReceiptType } from "matrix-js-sdk";
import { refused, step, until } from "./harness.mjs";

const relation = (relType, eventId, more = {}) => ({
  "m.relates_to": { rel_type: relType, event_id: eventId, ...more },
});

export async function relations(world) {
  const { alice, bob, room } = world;
  await step("edit", async () => {
    const id = await alice.say(room, "helo");
    await bob.event(room, id);
    await alice.say(room, "* hello", {
      "m.new_content": { msgtype: "m.text", body: "hello" },
      ...relation("m.replace", id),
    });
    await until("the edit", () => bob.client.getRoom(room).findEventById(id).getContent().body === "hello");
    world.edited = id;
  });
  await step("reaction", async () => {
    await bob.client.sendEvent(room, "m.reaction", relation("m.annotation", world.edited, { key: "👍" }));
    await until("the reaction", () => {
      const found = alice.client
        .getRoom(room)
        .relations.getChildEventsForEvent(world.edited, "m.annotation", "m.reaction");
      return found?.getSortedAnnotationsByKey()?.some(([key, events]) => key === "👍" && events.size === 1);
    });
    const { events } = await alice.client.relations(room, world.edited, "m.annotation", "m.reaction");
    assert.equal(events.length, 1);
    const twice = relation("m.annotation", world.edited, { key: "👍" });
    await refused("M_DUPLICATE_ANNOTATION", () => bob.client.sendEvent(room, "m.reaction", twice));
    for (const event of bob.client.getRoom(room).getPendingEvents()) bob.client.cancelPendingEvent(event);
  });
  await step("reply", async () => {
    const id = await bob.say(room, "hello to you", { "m.relates_to": { "m.in_reply_to": { event_id: world.edited } } });
    assert.equal((await alice.event(room, id)).replyEventId, world.edited);
  });
  await step("redaction", async () => {
    const id = await bob.say(room, "a mistake");
    await alice.event(room, id);
    await bob.client.redactEvent(room, id, undefined, { reason: "typed too fast" });
    const gone = await until("the redaction", () => {
      const event = alice.client.getRoom(room).findEventById(id);
      return event?.isRedacted() && event;
    });
    assert.deepEqual(gone.getContent(), {});
    assert.equal(gone.getRedactionEvent().content.reason, "typed too fast");
  });
}

export async function threads(world) {
  const { alice, bob, room } = world;
  const threadOf = (device) => device.client.getRoom(room).getThread(world.thread);
  await step("thread", async () => {
    world.thread = await alice.say(room, "let us talk about the garden");
    await bob.event(room, world.thread);
    await alice.startThread(room, world.thread);
    await alice.say(room, "roses", {}, world.thread);
    world.inThread = await alice.say(room, "or tulips", {}, world.thread);
    const thread = await until("the thread at bob's", () => threadOf(bob)?.length === 2 && threadOf(bob));
    assert.equal((await bob.event(room, world.inThread)).threadRootId, world.thread);
    assert.equal(thread.replyToEvent.getId(), world.inThread);
  });
  await step("receipt in a thread", async () => {
    const there = bob.client.getRoom(room);
    // In encrypted rooms the SDK counts by itself, and takes threads for read until a first receipt in one of them.
    await bob.client.sendReadReceipt(await bob.event(room, world.inThread));
    await until("the first receipt", () => there.getOldestThreadedReceiptTs() < Infinity);
    await alice.say(room, "or both", {}, world.thread);
    await until("the thread is unread", () => there.getThreadUnreadNotificationCount(world.thread, "total") > 0);
    world.inThread = await alice.say(room, "all of them", {}, world.thread);
    await bob.client.sendReadReceipt(await bob.event(room, world.inThread));
    await until("none unread in the thread", () => there.getThreadUnreadNotificationCount(world.thread, "total") === 0);
    await until("alice sees bob's receipt in the thread", () => {
      const receipt = threadOf(alice)?.getReadReceiptForUserId(bob.id, true);
      return receipt?.eventId === world.inThread && receipt.data.thread_id === world.thread;
    });
  });
  await step("list of threads", async () => {
    for (const device of [alice, bob]) {
      const there = device.client.getRoom(room);
      await there.createThreadsTimelineSets();
      await there.fetchRoomThreads();
      assert.deepEqual(
        there.getThreads().map((thread) => thread.id),
        [world.thread],
      );
      const [all, mine] = there.threadsTimelineSets;
      assert.deepEqual(
        all
          .getLiveTimeline()
          .getEvents()
          .map((event) => event.getId()),
        [world.thread],
      );
      // Bob read the thread and did not take part.
      assert.equal(mine.getLiveTimeline().getEvents().length, device === alice ? 1 : 0);
    }
  });
}

/** What the server counts, which the SDK takes as it is in rooms without encryption. */
export async function counts(world) {
  const { alice, bob, market: room } = world;
  await step("unread counts by thread", async () => {
    const there = bob.client.getRoom(room);
    const root = await alice.say(room, "shall we move the stalls");
    await alice.startThread(room, root);
    await alice.say(room, "to the church", {}, root);
    const last = await alice.say(room, "Bob?", { "m.mentions": { user_ids: [bob.id] } }, root);
    const unread = (type) => there.getThreadUnreadNotificationCount(root, type);
    await until("two unread in the thread", () => unread("total") === 2 && unread("highlight") === 1);
    assert.ok(there.getRoomUnreadNotificationCount("total") > 0);
    await bob.client.sendReadReceipt(await bob.event(room, root));
    await until(
      "only the thread is unread",
      () => there.getRoomUnreadNotificationCount("total") === 0 && unread("total") === 2,
    );
    await bob.client.sendReadReceipt(await bob.event(room, last));
    await until("nothing is unread", () => unread("total") === 0 && unread("highlight") === 0);
  });
}

export async function signals(world) {
  const { alice, bob, room } = world;
  await step("typing", async () => {
    await alice.client.sendTyping(room, true, 20_000);
    await until("bob sees alice type", () => bob.client.getRoom(room).getMember(alice.id).typing);
    await alice.client.sendTyping(room, false, 0);
    await until("bob sees alice stop", () => !bob.client.getRoom(room).getMember(alice.id).typing);
  });
  await step("read receipts and unread counts", async () => {
    const there = bob.client.getRoom(room);
    const id = await alice.say(room, "please read");
    const event = await bob.event(room, id);
    await until("unread", () => there.getRoomUnreadNotificationCount("total") > 0);
    await bob.client.sendReadReceipt(event);
    await until("alice sees that bob read", () => alice.client.getRoom(room).getEventReadUpTo(bob.id) === id);
    await until("nothing unread", () => there.getRoomUnreadNotificationCount("total") === 0);
    const hidden = await alice.say(room, "read this in private");
    await bob.client.sendReadReceipt(await bob.event(room, hidden), ReceiptType.ReadPrivate);
    await until("nothing unread again", () => there.getRoomUnreadNotificationCount("total") === 0);
    assert.equal(alice.client.getRoom(room).getEventReadUpTo(bob.id), id);
    await bob.client.setRoomReadMarkers(room, hidden, await bob.event(room, hidden));
    await until("the marker", () => there.getAccountData("m.fully_read")?.getContent().event_id === hidden);
    await until("alice sees the later receipt", () => alice.client.getRoom(room).getEventReadUpTo(bob.id) === hidden);
  });
  await step("presence", async () => {
    // What a device says of itself with each /sync would take the place of what is set here.
    alice.client.setSyncPresence("unavailable");
    await alice.client.setPresence({ presence: "unavailable", status_msg: "in the garden" });
    await until("bob sees alice's presence", () => {
      const user = bob.client.getUser(alice.id);
      return user?.presence === "unavailable" && user.presenceStatusMsg === "in the garden";
    });
    assert.equal((await bob.client.getPresence(alice.id)).presence, "unavailable");
    alice.client.setSyncPresence("online");
  });
}

const plain = new TextEncoder().encode("what the camera saw\n".repeat(5000));
const base64 = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");

/** Encrypts an attachment as the specification says (Sending encrypted attachments, version v2). */
async function encrypt(bytes) {
  const key = await webcrypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
  const iv = new Uint8Array(16);
  webcrypto.getRandomValues(iv.subarray(0, 8));
  const sealed = await webcrypto.subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, bytes);
  const sha256 = base64(await webcrypto.subtle.digest("SHA-256", sealed));
  return {
    sealed,
    file: { v: "v2", key: await webcrypto.subtle.exportKey("jwk", key), iv: base64(iv), hashes: { sha256 } },
  };
}

async function decrypt(bytes, { key, iv, hashes }) {
  assert.equal(base64(await webcrypto.subtle.digest("SHA-256", bytes)), hashes.sha256);
  const imported = await webcrypto.subtle.importKey("jwk", key, "AES-CTR", false, ["decrypt"]);
  return webcrypto.subtle.decrypt({ name: "AES-CTR", counter: Buffer.from(iv, "base64"), length: 64 }, imported, bytes);
}

/** Fetches media by the address that the SDK makes of it. */
async function download(device, mxc, ...size) {
  const address = device.client.mxcUrlToHttp(
    mxc,
    ...(size.length ? size : [undefined, undefined, undefined]),
    false,
    true,
    true,
  );
  const headers = { Authorization: `Bearer ${device.client.getAccessToken()}` };
  return device.client.http.opts.fetchFn(address, { headers });
}

/** A picture of one red point. */
const png = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==",
  "base64",
);

export async function media(world) {
  const { alice, bob, room } = world;
  await step("encrypted attachment between two servers", async () => {
    const { sealed, file } = await encrypt(plain);
    const { content_uri: url } = await alice.client.uploadContent(new Blob([sealed]), {
      includeFilename: false,
      type: "application/octet-stream",
    });
    const id = await alice.say(room, "camera.txt", { msgtype: "m.file", file: { url, ...file } });
    const content = (await bob.event(room, id)).getContent();
    const answer = await download(bob, content.file.url);
    assert.equal(answer.status, 200);
    const opened = await decrypt(await answer.arrayBuffer(), content.file);
    assert.deepEqual(Buffer.from(opened), Buffer.from(plain));
    const stranger = await fetch(bob.client.mxcUrlToHttp(url, undefined, undefined, undefined, false, true, true));
    assert.equal(stranger.status, 401);
  });
  await step("avatar and thumbnail", async () => {
    const { content_uri: url } = await alice.client.uploadContent(png, { name: "face.png", type: "image/png" });
    await alice.client.setAvatarUrl(url);
    await until("bob sees the avatar", () => bob.client.getRoom(room).getMember(alice.id).getMxcAvatarUrl() === url);
    const answer = await download(bob, url, 32, 32, "crop");
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get("content-type"), /^image\//);
    assert.ok((await alice.client.getMediaConfig(true))["m.upload.size"] > 0);
    const lost = await download(bob, url.replace(/[^/]+$/, "nothing"));
    assert.equal(lost.status, 404);
  });
}
