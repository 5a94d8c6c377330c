/**
 * matrix-js-sdk as it comes from its makers, with its own rust crypto, against two federated servers:
 * `node run.mjs URL_A URL_B`. Writes lines of JSON: how each step went, and each kind of request that was made. The Go
 * test in internal/testserver/jssdk starts the servers and reads the lines.
 */
import assert from "node:assert/strict";
import { faults, step } from "./harness.mjs";
import { ownData, people, sessions } from "./accounts.mjs";
import { counts, media, relations, signals, threads } from "./conversation.mjs";
import { identities, messages, newDevices, verification } from "./encryption.mjs";
import { changing, directory, ending, finding } from "./rooms.mjs";
import { sliding } from "./sliding.mjs";

const [a, b] = process.argv.slice(2);
const world = { a, b };

await people(world);
await identities(world);
await verification(world);
await messages(world);
await relations(world);
await threads(world);
await signals(world);
await media(world);
await finding(world);
await counts(world);
await directory(world);
await changing(world);
await newDevices(world);
await ownData(world);
await sliding(world);
await ending(world);
await sessions(world);
await step("no request was unknown to a server or broke it", async () => {
  assert.deepEqual(faults, []);
});
process.exit(0);
