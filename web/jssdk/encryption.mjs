/** Megolm as the SDK does it: identities, verification, backup, new devices. */
import assert from "node:assert/strict";
import { VerificationPhase, VerifierEvent, decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/index.js";
import { login } from "./device.mjs";
import { step, until } from "./harness.mjs";

/** Both publish their identities; Alice puts hers and a backup's key into secret storage. */
export async function identities(world) {
  const { alice, bob } = world;
  await step("cross-signing", async () => {
    for (const device of [alice, bob]) {
      // The first keys need no authentication, those that replace them do.
      await device.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: (makeRequest) => makeRequest(null) });
    }
    const before = await alice.crypto.getCrossSigningKeyId();
    await alice.crypto.bootstrapCrossSigning({
      setupNewCrossSigning: true,
      authUploadDeviceSigningKeys: (makeRequest) => alice.byPassword(makeRequest),
    });
    assert.notEqual(await alice.crypto.getCrossSigningKeyId(), before);
    for (const device of [alice, bob]) {
      await until(`${device.id} trusts its own identity`, () => device.crypto.isCrossSigningReady());
      await until(`${device.id} signed its own device`, async () => {
        const own = await device.crypto.getDeviceVerificationStatus(device.id, device.client.getDeviceId());
        return own.crossSigningVerified;
      });
    }
  });
  await step("secret storage and key backup", async () => {
    const key = await alice.crypto.createRecoveryKeyFromPassphrase();
    world.recoveryKey = key.encodedPrivateKey;
    alice.secret = key.privateKey;
    await alice.crypto.bootstrapSecretStorage({
      createSecretStorageKey: () => Promise.resolve(key),
      setupNewSecretStorage: true,
      setupNewKeyBackup: true,
    });
    assert.equal((await alice.crypto.getSecretStorageStatus()).ready, true);
    world.backup = await alice.crypto.getActiveSessionBackupVersion();
    assert.equal((await alice.crypto.getKeyBackupInfo()).version, world.backup);
  });
}

/** Shows the same seven emoji to both sides of a request that was accepted, and confirms them. */
async function compareEmoji(asking, asked) {
  await until("both sides ready", () => [asking, asked].every((request) => request.phase === VerificationPhase.Ready));
  const mine = await asking.startVerification("m.sas.v1");
  const theirs = await until("the other side's verifier", () => asked.verifier);
  const shown = (verifier) => new Promise((done) => verifier.on(VerifierEvent.ShowSas, (callbacks) => done(callbacks)));
  const both = [mine, theirs].map(shown);
  const verified = [mine.verify(), theirs.verify()];
  const callbacks = await Promise.race([Promise.all(both), Promise.all(verified)]);
  const [left, right] = callbacks.map((side) => side.sas.emoji);
  assert.equal(left.length, 7);
  assert.deepEqual(left, right);
  await Promise.all(callbacks.map((side) => side.confirm()));
  await Promise.all(verified);
  await until("both sides done", () => [asking, asked].every((request) => request.phase === VerificationPhase.Done));
}

/** Alice and Bob compare emoji in an encrypted room of two, between two servers. */
export async function verification(world) {
  const { alice, bob } = world;
  await step("direct room, encrypted", async () => {
    const roomId = await alice.encryptedRoom(undefined, [bob.id], { is_direct: true, preset: "trusted_private_chat" });
    await alice.client.setAccountData("m.direct", { [bob.id]: [roomId] });
    const invited = await bob.room(roomId, "invite");
    assert.equal(invited.getDMInviter(), alice.id);
    await bob.accept(roomId, alice);
    world.dm = roomId;
    await bob.event(roomId, await alice.say(roomId, "psst"));
  });
  await step("verification by emoji between two servers", async () => {
    const asking = await alice.crypto.requestVerificationDM(bob.id, world.dm);
    const asked = await until("bob is asked", () => bob.requests.find((request) => request.roomId === world.dm));
    await asked.accept();
    await compareEmoji(asking, asked);
    for (const [device, other] of [
      [alice, bob],
      [bob, alice],
    ]) {
      await until(`${device.id} trusts ${other.id}`, async () =>
        (await device.crypto.getUserVerificationStatus(other.id)).isCrossSigningVerified(),
      );
      const status = await device.crypto.getDeviceVerificationStatus(other.id, other.client.getDeviceId());
      assert.equal(status.crossSigningVerified, true);
    }
  });
}

/** A room with history, which devices that come later read from the backup. */
export async function messages(world) {
  const { alice, bob } = world;
  await step("encrypted room between two servers", async () => {
    world.room = await alice.encryptedRoom("Plans", [bob.id]);
    await bob.accept(world.room, alice);
    world.first = await alice.say(world.room, "from A to B");
    const atBob = await bob.event(world.room, world.first);
    assert.equal(atBob.getContent().body, "from A to B");
    assert.equal(atBob.getWireType(), "m.room.encrypted");
    const answer = await bob.say(world.room, "from B to A");
    assert.equal((await alice.event(world.room, answer)).getContent().body, "from B to A");
    const shield = await bob.crypto.getEncryptionInfoForEvent(atBob);
    assert.equal(shield.shieldColour, 0);
  });
}

/** Alice signs in anew: with her recovery key, and once more with the emoji of a device that she has. */
export async function newDevices(world) {
  const { alice } = world;
  await step("key backup", async () => {
    // The SDK waits up to ten seconds before it sends them. What it says of the backup itself is from its start.
    const sessions = (await alice.crypto.exportRoomKeys()).length;
    const counted = () => alice.client.http.authedRequest("GET", "/room_keys/version");
    await until("all sessions in the backup", async () => (await counted()).count >= sessions);
  });
  await step("new device reads its history from the backup", async () => {
    const late = await login(world.a, "alice", "alice's second");
    world.elsewhere = await late.start();
    const old = await until(
      "the old message",
      () => late.client.getRoom(world.room)?.findEventById(world.first) ?? older(late, world.room),
    );
    await until("it cannot be read", () => old.isDecryptionFailure());
    // The SDK takes the private keys only when it knows the public ones, and asks for those once.
    await until("it knows the identity", () => late.crypto.userHasCrossSigningKeys(alice.id));
    late.secret = decodeRecoveryKey(world.recoveryKey);
    await late.crypto.bootstrapCrossSigning({});
    await late.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    const restored = await late.crypto.restoreKeyBackup();
    assert.equal(restored.imported, restored.total);
    assert.ok(restored.imported >= 2);
    assert.equal((await late.event(world.room, world.first)).getContent().body, "from A to B");
  });
  await step("own device verified by secret storage", async () => {
    const id = world.elsewhere.client.getDeviceId();
    for (const [device, whose] of [
      [world.elsewhere, alice.id],
      [alice, alice.id],
      [world.bob, alice.id],
    ]) {
      await until(
        `${device.id} trusts the new device`,
        async () => (await device.crypto.getDeviceVerificationStatus(whose, id))?.crossSigningVerified,
      );
    }
    const told = await world.bob.say(world.room, "for the new device too");
    await world.elsewhere.event(world.room, told);
    const back = await world.elsewhere.say(world.room, "from the new device");
    assert.equal((await world.bob.event(world.room, back)).getContent().body, "from the new device");
  });
  await step("own device verified by emoji, secrets handed over", async () => {
    const third = await (await login(world.a, "alice", "alice's third")).start();
    await Promise.all([alice.knows(third), third.knows(alice)]);
    const asking = await third.crypto.requestOwnUserVerification();
    const asked = await until("the first device is asked", () =>
      alice.requests.find((request) => request.isSelfVerification && request.transactionId === asking.transactionId),
    );
    await asked.accept();
    await compareEmoji(asking, asked);
    await until("the private keys", async () => {
      const { privateKeysCachedLocally: keys } = await third.crypto.getCrossSigningStatus();
      return keys.masterKey && keys.selfSigningKey && keys.userSigningKey;
    });
    await until("the backup's key", () => third.crypto.getSessionBackupPrivateKey());
    third.stop();
    await third.client.logout();
  });
}

/** Looks one page further back for the room's oldest message that one cares for. */
async function older(device, roomId) {
  const room = device.client.getRoom(roomId);
  if (room) await device.client.scrollback(room, 30);
  return null;
}
