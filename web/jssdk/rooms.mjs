/** Rooms without encryption: finding them, changing them, leaving them. */
import assert from "node:assert/strict";
import { Direction, Visibility } from "matrix-js-sdk";
import { refused, step, until } from "./harness.mjs";

export async function finding(world) {
  const { alice, bob } = world;
  await step("public room, directory and alias", async () => {
    const { room_id: roomId } = await alice.client.createRoom({
      name: "Market square",
      topic: "everybody",
      preset: "public_chat",
      visibility: Visibility.Public,
      room_alias_name: "market",
    });
    world.market = roomId;
    await alice.room(roomId);
    const server = alice.id.slice(alice.id.indexOf(":") + 1);
    world.alias = `#market:${server}`;
    assert.equal((await bob.client.getRoomIdForAlias(world.alias)).room_id, roomId);
    const listed = await bob.client.publicRooms({ server, limit: 10, filter: { generic_search_term: "market" } });
    assert.deepEqual(
      listed.chunk.map((room) => room.room_id),
      [roomId],
    );
    assert.equal((await bob.client.getRoomSummary(world.alias, [server])).name, "Market square");
    await bob.client.joinRoom(world.alias);
    await bob.room(roomId);
    assert.ok((await bob.client.getJoinedRooms()).joined_rooms.includes(roomId));
    const also = `#square:${server}`;
    await alice.client.createAlias(also, roomId);
    assert.ok((await alice.client.getLocalAliases(roomId)).aliases.includes(also));
    await alice.client.deleteAlias(also);
  });
  await step("search", async () => {
    const id = await alice.say(world.market, "fresh strawberries today");
    await bob.event(world.market, id);
    for (const device of [alice, bob]) {
      await until(`${device.id} finds the message`, async () => {
        const found = await device.client.searchRoomEvents({ term: "strawberries" });
        return found.results.some((result) => result.context.getEvent().getId() === id);
      });
    }
  });
  await step("history: pages, context, time", async () => {
    const ids = [];
    for (let n = 0; n < 30; n++) ids.push(await alice.say(world.market, `offer ${n}`));
    await bob.event(world.market, ids.at(-1));
    const room = bob.client.getRoom(world.market);
    const timeline = await bob.client.getEventTimeline(room.getUnfilteredTimelineSet(), ids[3]);
    assert.ok(timeline.getEvents().some((event) => event.getId() === ids[3]));
    const before = timeline.getEvents().length;
    await bob.client.paginateEventTimeline(timeline, { backwards: true, limit: 5 });
    assert.ok(timeline.getEvents().length > before);
    const at = room.findEventById(ids.at(-1)).getTs();
    const nearest = await bob.client.timestampToEvent(world.market, at, Direction.Backward);
    assert.ok(ids.includes(nearest.event_id));
    assert.equal((await bob.client.fetchRoomEvent(world.market, ids[7])).content.body, "offer 7");
    assert.equal((await bob.client.getStateEvent(world.market, "m.room.name", "")).name, "Market square");
  });
}

/** People by their names. */
export async function directory(world) {
  const { alice, bob } = world;
  await step("user directory", async () => {
    await until("bob finds alice", async () => {
      const { results } = await bob.client.searchUserDirectory({ term: "alice", limit: 5 });
      return results.some((user) => user.user_id === alice.id && user.display_name === "Alice");
    });
  });
}

export async function changing(world) {
  const { alice, bob } = world;
  await step("space", async () => {
    const { room_id: space } = await alice.client.createRoom({
      name: "Town",
      preset: "public_chat",
      creation_content: { type: "m.space" },
    });
    const via = [alice.id.slice(alice.id.indexOf(":") + 1)];
    await alice.client.sendStateEvent(space, "m.space.child", { via, suggested: true }, world.market);
    const { rooms } = await alice.client.getRoomHierarchy(space);
    assert.deepEqual(rooms.map((room) => room.room_id).sort(), [space, world.market].sort());
  });
  await step("kick, ban, power", async () => {
    const { client } = alice;
    const membership = (value) =>
      until(`bob sees ${value}`, () => bob.client.getRoom(world.market)?.getMyMembership() === value);
    await refused("M_FORBIDDEN", () => bob.client.setRoomName(world.market, "Bob's square"));
    await client.setPowerLevel(world.market, bob.id, 50);
    await until("bob has power", () => bob.client.getRoom(world.market).getMember(bob.id).powerLevel === 50);
    await bob.client.setRoomName(world.market, "Bob's square");
    await until("the name", () => client.getRoom(world.market).name === "Bob's square");
    await client.kick(world.market, bob.id, "out");
    await membership("leave");
    await client.ban(world.market, bob.id, "stay out");
    await until("alice sees the ban", () => client.getRoom(world.market).getMember(bob.id).membership === "ban");
    await refused("M_FORBIDDEN", () => bob.client.joinRoom(world.alias));
    await client.unban(world.market, bob.id);
    await bob.client.joinRoom(world.alias);
    await membership("join");
  });
  await step("knock", async () => {
    const { room_id: roomId } = await alice.client.createRoom({
      preset: "private_chat",
      initial_state: [{ type: "m.room.join_rules", state_key: "", content: { join_rule: "knock" } }],
    });
    await bob.client.knockRoom(roomId, { viaServers: [alice.id.slice(alice.id.indexOf(":") + 1)], reason: "may I" });
    await until("alice hears the knock", () => alice.client.getRoom(roomId)?.getMember(bob.id)?.membership === "knock");
    await alice.client.invite(roomId, bob.id);
    await bob.accept(roomId, alice);
  });
  await step("ignored people", async () => {
    await bob.client.setIgnoredUsers([alice.id]);
    await until("alice is ignored", () => bob.client.isUserIgnored(alice.id));
    const unseen = await alice.say(world.market, "not for bob");
    await alice.client.setRoomTopic(world.market, "said after it");
    await until("what came after it", () => {
      const topic = bob.client.getRoom(world.market).currentState.getStateEvents("m.room.topic", "");
      return topic.getContent().topic === "said after it";
    });
    await bob.client.setIgnoredUsers([]);
    await until("alice is heard", () => !bob.client.isUserIgnored(alice.id));
    const seen = await alice.say(world.market, "for bob");
    await bob.event(world.market, seen);
    assert.equal(bob.client.getRoom(world.market).findEventById(unseen), undefined);
  });
  await step("report, OpenID, turn servers", async () => {
    const id = await alice.say(world.market, "buy now");
    await bob.event(world.market, id);
    await bob.client.reportEvent(world.market, id, -100, "spam");
    const token = await bob.client.getOpenIdToken();
    assert.ok(token.access_token && token.expires_in > 0);
    await bob.client.turnServer();
    await bob.client.getCapabilities();
  });
}

export async function ending(world) {
  const { alice, bob } = world;
  await step("room upgrade", async () => {
    const { room_id: old } = await alice.client.createRoom({
      name: "Old hall",
      preset: "public_chat",
      room_version: "10",
    });
    const via = [alice.id.slice(alice.id.indexOf(":") + 1)];
    await bob.client.joinRoom(old, { viaServers: via });
    await bob.room(old);
    const { replacement_room: next } = await alice.client.upgradeRoom(old, "12");
    await until("bob sees the tombstone", () => {
      const tombstone = bob.client.getRoom(old).currentState.getStateEvents("m.room.tombstone", "");
      return tombstone?.getContent().replacement_room === next;
    });
    await bob.client.joinRoom(next, { viaServers: via });
    const room = await bob.room(next);
    assert.equal(room.findPredecessor().roomId, old);
    assert.equal(room.getVersion(), "12");
    assert.equal(room.name, "Old hall");
    world.old = old;
  });
  await step("leave and forget", async () => {
    await bob.client.leave(world.old);
    await until(
      "alice sees bob leave",
      () => alice.client.getRoom(world.old).getMember(bob.id)?.membership === "leave",
    );
    await bob.client.forget(world.old);
    assert.equal(bob.client.getRoom(world.old), null);
    await refused("M_FORBIDDEN", () => bob.client.getStateEvent(world.old, "m.room.name", ""));
  });
}
