/** Simplified sliding sync, by the SDK's own client for it. */
import assert from "node:assert/strict";
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";
import { login } from "./device.mjs";
import { step, until } from "./harness.mjs";

/** One more device of Bob's, which never asks for /sync. */
export async function sliding(world) {
  const { bob, alice } = world;
  await step("sliding sync", async () => {
    assert.ok(await bob.client.doesServerSupportUnstableFeature("org.matrix.simplified_msc3575"));
    const device = await login(world.b, "bob", "bob's sliding");
    const { client } = device;
    const lists = new Map([["all", { ranges: [[0, 19]], timeline_limit: 10, required_state: [["*", "*"]] }]]);
    const slidingSync = new SlidingSync(
      world.b,
      lists,
      { timeline_limit: 20, required_state: [["*", "*"]] },
      client,
      10_000,
    );
    await client.startClient({ slidingSync, threadSupport: true });
    await until("the room in the list", () => client.getRoom(world.room)?.getMyMembership() === "join");
    assert.ok(slidingSync.getListData("all").joinedCount > 1);
    await alice.knows(device);
    const id = await alice.say(world.room, "to the sliding device");
    assert.equal((await device.event(world.room, id)).getContent().body, "to the sliding device");
    const back = await device.say(world.room, "from the sliding device");
    await alice.event(world.room, back);
    device.stop();
    await client.logout();
  });
}
