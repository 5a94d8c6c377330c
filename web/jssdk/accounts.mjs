/** Accounts, sessions and what belongs to a person alone. */
import assert from "node:assert/strict";
import { Device, login, password, register, uiaSession, visitor } from "./device.mjs";
import { refused, step, until } from "./harness.mjs";

/** Alice on server A, Bob on server B, each with one device that syncs. */
export async function people(world) {
  const { a, b } = world;
  await step("register", async () => {
    const flows = await visitor(a).loginFlows();
    assert.ok(flows.flows.some((flow) => flow.type === "m.login.password"));
    assert.equal(await visitor(a).isUsernameAvailable("alice"), true);
    world.alice = await register(a, "alice");
    world.bob = await register(b, "bob");
    assert.equal(
      await visitor(a)
        .isUsernameAvailable("alice")
        .catch((error) => error.errcode),
      false,
    );
    await Promise.all([world.alice.start(), world.bob.start()]);
    assert.equal((await world.alice.client.whoami()).user_id, world.alice.id);
  });
  await step("profile", async () => {
    await world.alice.client.setDisplayName("Alice");
    await world.bob.client.setDisplayName("Bob");
    assert.equal((await world.bob.client.getProfileInfo(world.alice.id)).displayname, "Alice");
  });
}

/** The session's ends: other devices, the password, the account. */
export async function sessions(world) {
  const { a, bob, b } = world;
  await step("devices", async () => {
    const second = await login(b, "bob", "bob's second");
    const ids = async () => (await bob.client.getDevices()).devices.map((device) => device.device_id);
    const id = second.client.getDeviceId();
    assert.ok((await ids()).includes(id));
    await bob.client.setDeviceDetails(id, { display_name: "to be gone" });
    assert.equal((await bob.client.getDevice(id)).display_name, "to be gone");
    await bob.byPassword((auth) => bob.client.deleteMultipleDevices([id], auth ?? undefined));
    assert.ok(!(await ids()).includes(id));
    await refused("M_UNKNOWN_TOKEN", () => second.client.whoami());
  });
  await step("password, logout and deactivation", async () => {
    const carol = await register(a, "carol");
    const changed = `${password} changed`;
    const identifier = { type: "m.id.user", user: carol.id };
    const session = await uiaSession(() => carol.client.setPassword(null, changed, false));
    await carol.client.setPassword({ type: "m.login.password", identifier, password, session }, changed, false);
    await refused("M_FORBIDDEN", () => login(a, "carol", "with the old password"));
    const again = await visitor(a).loginRequest({ type: "m.login.password", identifier, password: changed });
    const other = await Device.open(a, again, "carol's other");
    await other.client.logout(true);
    await refused("M_UNKNOWN_TOKEN", () => other.client.whoami());
    const end = await uiaSession(() => carol.client.deactivateAccount(undefined, true));
    await carol.client.deactivateAccount(
      { type: "m.login.password", identifier, password: changed, session: end },
      true,
    );
    await refused("M_UNKNOWN_TOKEN", () => carol.client.whoami());
    carol.stop();
  });
}

/** What one device of a person changes and another sees. */
export async function ownData(world) {
  const { alice, elsewhere, room } = world;
  await step("account data and tags", async () => {
    await alice.client.setAccountData("org.example.note", { text: "kept" });
    await until(
      "account data on the other device",
      () => elsewhere.client.getAccountData("org.example.note")?.getContent().text === "kept",
    );
    assert.deepEqual(await elsewhere.client.getAccountDataFromServer("org.example.note"), { text: "kept" });
    await alice.client.setRoomAccountData(room, "org.example.room", { colour: "red" });
    await until(
      "the room's account data",
      () => elsewhere.client.getRoom(room).getAccountData("org.example.room")?.getContent().colour === "red",
    );
    await alice.client.setRoomTag(room, "m.favourite", { order: 0.5 });
    await until("the tag", () => elsewhere.client.getRoom(room).tags["m.favourite"]?.order === 0.5);
    await alice.client.deleteRoomTag(room, "m.favourite");
    await until("the tag's end", () => elsewhere.client.getRoom(room).tags["m.favourite"] === undefined);
  });
  await step("push rules and pushers", async () => {
    const { client } = alice;
    await client.addPushRule("global", "content", "words", {
      pattern: "lunch",
      actions: ["notify", { set_tweak: "highlight" }],
    });
    const rules = () => elsewhere.client.pushRules?.global.content ?? [];
    await until("the rule on the other device", () => rules().some((rule) => rule.rule_id === "words" && rule.enabled));
    await client.setPushRuleEnabled("global", "content", "words", false);
    await until("the rule switched off", () => rules().some((rule) => rule.rule_id === "words" && !rule.enabled));
    await client.setPushRuleActions("global", "content", "words", ["notify"]);
    await client.deletePushRule("global", "content", "words");
    await until("the rule's end", () => !rules().some((rule) => rule.rule_id === "words"));
    await client.setRoomMutePushRule("global", room, true);
    await until("the room muted", () => elsewhere.client.getRoomPushRule("global", room) !== undefined);
    await client.setRoomMutePushRule("global", room, false);
    const pusher = {
      app_id: "org.example.app",
      pushkey: "key",
      kind: "http",
      app_display_name: "App",
      device_display_name: "Phone",
      lang: "en",
    };
    await client.setPusher({ ...pusher, data: { url: "https://push.example.org/_matrix/push/v1/notify" } });
    assert.equal((await client.getPushers()).pushers.length, 1);
    await client.removePusher("key", "org.example.app");
    assert.equal((await client.getPushers()).pushers.length, 0);
  });
}
