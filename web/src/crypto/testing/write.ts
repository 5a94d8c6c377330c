/** Makes the vectors of this side. Every key in them was made for them and protects nothing. */
import { CompactEncrypt } from "jose";
import {
  algorithmGroup,
  canonical,
  concat,
  createCrossSigning,
  encryptMessage,
  encryptStream,
  fileContent,
  messageKey,
  paddedLength,
  preparePlaintext,
  publicDeviceKeys,
  randomBytes,
  roomKeyContent,
  sealPayload,
  sealTo,
  sign,
  signingKeyFromSeed,
  signObject,
  signOwnership,
  stepRatchet,
  toBase64,
  toBase64Url,
  utf8,
  type Bytes,
  type DeviceKeys,
  type InboundSession,
  type JsonObject,
  type NewCrossSigning,
  type OwnDevice,
} from "..";
import { exchangeKeyOf, type VectorCase } from "./vectors";

const room = "!room:ts.example";
const now = 1_790_000_000;

interface Person {
  userId: string;
  device: OwnDevice;
  seed: Bytes;
  pkcs8: Bytes;
  cross: NewCrossSigning;
  signedKeys: JsonObject;
  keys: DeviceKeys;
}

async function person(userId: string, deviceId: string): Promise<Person> {
  const parameters = {
    name: "RSA-OAEP",
    hash: "SHA-256",
    modulusLength: 3072,
    publicExponent: new Uint8Array([1, 0, 1]),
  };
  const pair = await crypto.subtle.generateKey(parameters, true, ["encrypt", "decrypt"]);
  const pkcs8 = new Uint8Array(await crypto.subtle.exportKey("pkcs8", pair.privateKey));
  const seed = randomBytes(32);
  const exchange = await exchangeKeyOf(pkcs8);
  const signing = await signingKeyFromSeed(seed);
  const device: OwnDevice = { userId, deviceId, signing, exchange };
  const cross = await createCrossSigning(userId);
  const signedKeys = await vouch(cross, await publicDeviceKeys(device));
  const { kid, publicKey, exchangeKey } = exchange;
  const keys = {
    userId,
    deviceId,
    signing: signing.publicKey,
    exchange: publicKey,
    exchangeKey,
    kid,
    dehydrated: false,
  };
  return { userId, device, seed, pkcs8, cross, signedKeys, keys };
}

function vouch(cross: NewCrossSigning, deviceKeys: JsonObject): Promise<JsonObject> {
  const { publicKey, privateKey } = cross.keys.self_signing;
  return signObject(deviceKeys, String(deviceKeys.user_id), `ed25519:${publicKey}`, privateKey);
}

function crossSigningInput(cross: NewCrossSigning): JsonObject {
  return {
    master_key_json: canonical(cross.objects.master),
    self_signing_key_json: canonical(cross.objects.self_signing),
  };
}

class Writer {
  readonly cases: VectorCase[] = [];

  good(name: string, comment: string, input: JsonObject, expect: JsonObject): void {
    this.cases.push({ name, kind: name.slice(0, name.indexOf("/")), comment, input, expect });
  }

  bad(name: string, failure: string, comment: string, input: JsonObject): void {
    this.cases.push({ name, kind: name.slice(0, name.indexOf("/")), comment, input, failure });
  }
}

export async function writeVectors(): Promise<VectorCase[]> {
  const writer = new Writer();
  const [alice, bob] = await Promise.all([person("@alice:ts.example", "ALICE"), person("@bob:ts.example", "BOB")]);
  simple(writer);
  await ratchets(writer);
  await identities(writer, alice);
  await devices(writer, alice, bob);
  await sealed(writer, alice, bob);
  await groups(writer, alice, bob);
  await attachments(writer);
  return writer.cases;
}

function simple(w: Writer): void {
  const texts: [string, string, string][] = [
    ["order", '{"b":1,"a":2,"\u{1f600}":3,"\uffee":4,"":5}', "by code points, where UTF-16 would put the emoji first"],
    ["escapes", '{"a":"\\u0041\\u0001\\n\\/\\u007f\\ud83d\\ude00"}', "the shortest form of each character"],
    ["proto", '{"__proto__":{"constructor":1},"a":[]}', "a name like any other"],
    ["numbers", "[0,-1,9007199254740991,-9007199254740991]", "the widest integers"],
  ];
  for (const [name, text, comment] of texts) {
    const expected = {
      order: '{"":5,"a":2,"b":1,"\uffee":4,"\u{1f600}":3}',
      escapes: '{"a":"A\\u0001\\n/\u007f\u{1f600}"}',
      proto: '{"__proto__":{"constructor":1},"a":[]}',
      numbers: "[0,-1,9007199254740991,-9007199254740991]",
    }[name];
    w.good(`canonical/${name}`, comment, { text_json: text }, { canonical: expected ?? "" });
  }
  const broken: [string, string, string][] = [
    ["twice", "duplicate_key", '{"a":1,"\\u0061":2}'],
    ["deep twice", "duplicate_key", '[{"a":{"b":1,"b":1}}]'],
    ["fraction", "malformed", "[1.0]"],
    ["exponent", "malformed", "[1e2]"],
    ["minus zero", "malformed", "[-0]"],
    ["beyond", "malformed", "[9007199254740992]"],
    ["lone surrogate", "malformed", '["\\ud800"]'],
    ["trailing", "malformed", "{} {}"],
    ["comma", "malformed", "[1,]"],
    ["control", "malformed", '["\t"]'],
    ["leading zero", "malformed", "[01]"],
    ["depth", "malformed", "[".repeat(65) + "]".repeat(65)],
    ["empty", "malformed", ""],
  ];
  for (const [name, failure, text] of broken) w.bad(`canonical/${name}`, failure, "not strict", { text_json: text });
  for (const length of [0, 255, 256, 257, 1000, 4097, 40_960]) {
    w.good(`padding/${length}`, "256, then Padmé", { length }, { padded: paddedLength(length) });
  }
  w.bad("padding/beyond", "oversize", "the bound itself", { length: 40_961 });
  const calm = { messages: 1, age_ms: 1, left: false, limited: false, lost_holder: false, rules_changed: false };
  const rotations: [string, JsonObject, string][] = [
    ["none", {}, ""],
    ["left", { left: true, limited: true }, "left"],
    ["limited", { limited: true }, "limited"],
    ["lost holder", { lost_holder: true }, "lost_holder"],
    ["rules", { rules_changed: true, messages: 100 }, "rules_changed"],
    ["hundred", { messages: 100 }, "messages"],
    ["never raised", { messages: 100, rotation_period_msgs: 1_000_000 }, "messages"],
    ["floor", { messages: 9, rotation_period_msgs: 1 }, ""],
    ["week", { age_ms: 604_800_000 }, "age"],
    ["hour", { age_ms: 3_600_000, rotation_period_ms: 1 }, "age"],
  ];
  for (const [name, more, reason] of rotations) {
    w.good(`rotation/${name}`, "bounds only tighten", { ...calm, ...more }, { rotate: reason !== "", reason });
  }
}

async function ratchets(w: Writer): Promise<void> {
  for (const steps of [0, 1, 99]) {
    const [start, salt] = [randomBytes(32), randomBytes(16)];
    const ratchet = await stepRatchet(start, steps);
    const { key, nonce } = await messageKey(ratchet, salt);
    const input = { ratchet: toBase64(start), steps, salt: toBase64(salt) };
    const expect = { ratchet: toBase64(ratchet), key: toBase64(key), nonce: toBase64(nonce) };
    w.good(`ratchet/${steps} steps`, "HMAC to step, HKDF for the message", input, expect);
  }
}

async function identities(w: Writer, alice: Person): Promise<void> {
  const { objects, keys } = alice.cross;
  const input = {
    user_id: alice.userId,
    ...crossSigningInput(alice.cross),
    user_signing_key_json: canonical(objects.user_signing),
    pinned_master: "",
  };
  const expect = {
    master: keys.master.publicKey,
    self_signing: keys.self_signing.publicKey,
    user_signing: keys.user_signing.publicKey,
  };
  w.good("cross_signing/first sight", "no pin yet", input, expect);
  w.good("cross_signing/pinned", "the pinned key", { ...input, pinned_master: keys.master.publicKey }, expect);
  const other = await createCrossSigning(alice.userId);
  const stranger = { ...input, pinned_master: other.keys.master.publicKey };
  w.bad("cross_signing/another pin", "identity_changed", "a server swapped the identity", stranger);
  const foreign = { ...input, self_signing_key_json: canonical(other.objects.self_signing) };
  w.bad("cross_signing/foreign part", "forged_signature", "signed by another master key", foreign);
  w.bad("cross_signing/other user", "wrong_device", "of somebody else", { ...input, user_id: "@eve:ts.example" });
  const weak = {
    user_id: alice.userId,
    usage: ["master"],
    keys: { "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" },
  };
  w.bad("cross_signing/small order", "weak_key", "the point one", { ...input, master_key_json: canonical(weak) });
  const usage = { ...objects.master, usage: ["master", "self_signing"] };
  w.bad("cross_signing/two uses", "malformed", "exactly one word", { ...input, master_key_json: canonical(usage) });
  w.bad("cross_signing/none", "no_identity", "not there", { ...input, self_signing_key_json: "" });
}

async function devices(w: Writer, alice: Person, bob: Person): Promise<void> {
  const base = {
    user_id: alice.userId,
    device_id: "ALICE",
    device_keys_json: canonical(alice.signedKeys),
    cross_signing: crossSigningInput(alice.cross),
    pinned_master: alice.cross.keys.master.publicKey,
  };
  const { signing, exchange, kid } = alice.keys;
  w.good("device_keys/good", "signed by itself and by its owner", base, {
    ed25519: signing,
    rsa_oaep_256: exchange,
    kid,
    dehydrated: false,
  });
  const own = await publicDeviceKeys(alice.device);
  const change = (object: JsonObject): JsonObject => ({ ...base, device_keys_json: canonical(object) });
  w.bad("device_keys/unsigned", "unsigned_device", "a server added it", change(own));
  w.bad(
    "device_keys/by another",
    "unsigned_device",
    "signed by another's identity",
    change(await vouch(bob.cross, own)),
  );
  w.bad("device_keys/altered", "forged_signature", "a member added later", change({ ...alice.signedKeys, x: 1 }));
  w.bad("device_keys/other device", "wrong_device", "asked for another", { ...base, device_id: "OTHER" });
  w.bad("device_keys/no identity", "no_identity", "the owner has none", { ...base, cross_signing: null });
  w.bad("device_keys/megolm", "unknown_algorithm", "of another protocol", change({ ...own, algorithms: ["m.olm.v1"] }));
  const keyLike = alice.cross.keys.master.publicKey;
  const named = { ...own, device_id: keyLike };
  w.bad("device_keys/named like a key", "bad_device_id", "could be taken for one", {
    ...change(named),
    device_id: keyLike,
  });
  const twice = canonical(alice.signedKeys).replace("{", '{"user_id":"@alice:ts.example",');
  w.bad("device_keys/twice", "duplicate_key", "a name stands twice", { ...base, device_keys_json: twice });
  const short = { ...own, keys: { "ed25519:ALICE": signing, "rsa-oaep-256:ALICE": exchange.slice(0, 300) } };
  w.bad("device_keys/cut", "weak_key", "not the SPKI of a key", change(short));
}

async function sealed(w: Writer, alice: Person, bob: Person): Promise<void> {
  const sender = {
    device: alice.device,
    deviceKeys: alice.signedKeys,
    masterKey: alice.cross.keys.master.publicKey,
  };
  const bobMaster = bob.cross.keys.master.publicKey;
  const content = { body: "grüße", list: [1, 2] };
  const envelope = await sealTo(sender, bob.keys, bobMaster, "im.conclave.room_key", content, now);
  const input = (sealedContent: JsonObject, more: JsonObject = {}): JsonObject => ({
    event_json: canonical({ type: "m.room.encrypted", sender: alice.userId, content: sealedContent }),
    recipient: {
      user_id: bob.userId,
      device_id: "BOB",
      signing_seed: toBase64(bob.seed),
      exchange_pkcs8: toBase64(bob.pkcs8),
      master_key: bobMaster,
      former_master_keys: [],
    },
    sender: {
      cross_signing: crossSigningInput(alice.cross),
      pinned_master: alice.cross.keys.master.publicKey,
      known_device_keys_json: canonical(alice.signedKeys),
    },
    seen_msg_ids: [],
    now: now + 60,
    ...more,
  });
  w.good("sealed/good", "as it should be", input(envelope), {
    type: "im.conclave.room_key",
    content_json: canonical(content),
    sender: alice.userId,
    sender_device: "ALICE",
    sender_key: alice.keys.signing,
  });
  const gone = { cross_signing: crossSigningInput(alice.cross), pinned_master: "", known_device_keys_json: null };
  w.good("sealed/device gone", "what came inside serves", input(envelope, { sender: gone }), { sender: alice.userId });
  const call = await sealTo(sender, bob.keys, bobMaster, "m.call.invite", content, now);
  w.good("sealed/call", "young enough", input(call), { type: "m.call.invite" });
  w.bad("sealed/old call", "expired", "five minutes old", input(call, { now: now + 300 }));
  const text = await sealTo(sender, bob.keys, bobMaster, "m.room.message", content, now);
  w.bad("sealed/text", "unknown_type", "nothing of this type travels sealed", input(text));
  const payload: JsonObject = {
    type: "im.conclave.room_key",
    content,
    sender: alice.userId,
    sender_device: "ALICE",
    sender_device_keys: alice.signedKeys,
    sender_master_key: sender.masterKey,
    recipient: bob.userId,
    recipient_device: "BOB",
    recipient_kid: bob.keys.kid,
    recipient_master_key: bobMaster,
    msg_id: "once",
    iat: now,
  };
  const sealedWith = async (more: JsonObject): Promise<JsonObject> =>
    sealPayload(alice.device, bob.keys, { ...payload, ...more });
  const replay = input(await sealedWith({}), { seen_msg_ids: ["once"] });
  w.bad("sealed/replayed", "replayed_message", "msg_id was seen", replay);
  const own = await publicDeviceKeys(alice.device);
  const stranger = await createCrossSigning(alice.userId);
  const wrong: [string, string, JsonObject][] = [
    ["other sender", "wrong_sender", { sender: bob.userId }],
    ["other recipient", "wrong_recipient", { recipient: "@eve:ts.example" }],
    ["other device", "wrong_recipient", { recipient_device: "EVE" }],
    ["other kid", "wrong_recipient", { recipient_kid: alice.keys.kid }],
    ["foreign identity", "foreign_identity", { recipient_master_key: stranger.keys.master.publicKey }],
    ["other master", "identity_changed", { sender_master_key: stranger.keys.master.publicKey }],
    ["unsigned sender", "unsigned_device", { sender_device_keys: own }],
    ["number for a text", "malformed", { msg_id: 7 }],
  ];
  for (const [name, failure, more] of wrong) {
    w.bad(`sealed/${name}`, failure, "one member of the payload is wrong", input(await sealedWith(more)));
  }
  const dehydratedKeys = { ...own, dehydrated: true };
  const resigned = await signObject(dehydratedKeys, alice.userId, "ed25519:ALICE", alice.device.signing.privateKey);
  const asleep = await vouch(alice.cross, resigned);
  const sleeper = {
    cross_signing: crossSigningInput(alice.cross),
    pinned_master: "",
    known_device_keys_json: canonical(asleep),
  };
  const fromSleeper = input(await sealedWith({ sender_device_keys: asleep }), { sender: sleeper });
  w.bad("sealed/dehydrated", "dehydrated_sender", "it only receives", fromSleeper);
  await sealedHeaders(w, bob, input, envelope);
}

async function sealedHeaders(
  w: Writer,
  bob: Person,
  input: (content: JsonObject) => JsonObject,
  envelope: JsonObject,
): Promise<void> {
  const withHeader = async (header: JsonObject): Promise<JsonObject> => {
    const jwe = await new CompactEncrypt(utf8("a.b.c"))
      .setProtectedHeader({ alg: "RSA-OAEP-256", enc: "A256GCM", cty: "JWT", kid: bob.keys.kid, ...header })
      .encrypt(bob.keys.exchangeKey);
    return { ...envelope, ciphertext: jwe };
  };
  const more = await withHeader({ typ: "JOSE" });
  w.bad("sealed/more in the header", "altered_header", "not exactly the members", input(more));
  w.bad("sealed/foreign key", "wrong_recipient", "another kid", input(await withHeader({ kid: "a".repeat(43) })));
  w.bad("sealed/algorithm", "unknown_algorithm", "another one", input({ ...envelope, algorithm: "m.olm.v1" }));
  const compact = String(envelope.ciphertext);
  const cut = { ...envelope, ciphertext: compact.slice(0, compact.lastIndexOf(".")) };
  w.bad("sealed/four parts", "malformed", "not a compact JWE", input(cut));
  const parts = compact.split(".");
  const body = parts[3] ?? "";
  parts[3] = (body.startsWith("A") ? "B" : "A") + body.slice(1);
  w.bad("sealed/bit", "undecryptable", "the tag fails", input({ ...envelope, ciphertext: parts.join(".") }));
  const huge = { ...envelope, ciphertext: compact + "A".repeat(65_536) };
  w.bad("sealed/huge", "oversize", "over 64 KiB", input(huge));
}

async function groups(w: Writer, alice: Person, bob: Person): Promise<void> {
  const signing = await signingKeyFromSeed(randomBytes(32));
  const start = randomBytes(32);
  const session: InboundSession = {
    roomId: room,
    sessionId: signing.publicKey,
    sender: alice.userId,
    senderDevice: "ALICE",
    senderKey: alice.keys.signing,
    ratchet: toBase64(start),
    index: 3,
    historyVisibility: "shared",
    source: "direct",
  };
  await roomKeys(w, session, signing.privateKey, bob);
  const known = sessionInput(session);
  const slot = async (index: number, roomId = room) => ({
    roomId,
    sender: alice.userId,
    senderDevice: "ALICE",
    sessionId: signing.publicKey,
    signingKey: signing.privateKey,
    ratchet: await stepRatchet(start, Math.max(index - 3, 0)),
    index,
  });
  const encrypt = async (content: JsonObject, index = 5, type = "m.room.message"): Promise<JsonObject> =>
    encryptMessage(await slot(index), preparePlaintext(room, type, content));
  const input = (content: JsonObject, more: JsonObject = {}): JsonObject => ({
    session: known,
    room_id: room,
    event_json: canonical({ event_id: "$e", sender: alice.userId, type: "m.room.encrypted", content }),
    seen: [],
    ...more,
  });
  const text = { body: "ein Satz 🙂", msgtype: "m.text" };
  const message = await encrypt(text);
  w.good("group/text", "a message", input(message), {
    type: "m.room.message",
    content_json: canonical(text),
    index: 5,
  });
  const again = input(message, { seen: [{ index: 5, event_id: "$e" }] });
  w.good("group/same event again", "pagination brings an event again", again, { index: 5 });
  const edit = { ...text, "m.relates_to": { rel_type: "m.replace", event_id: "$o" } };
  const encryptedEdit = await encrypt(edit);
  w.good("group/edit", "its relation is outside too", input(encryptedEdit), { content_json: canonical(edit) });
  const reaction = { "m.relates_to": { rel_type: "m.annotation", event_id: "$o", key: "👍" } };
  const encryptedReaction = await encrypt(reaction, 6, "m.reaction");
  w.good("group/reaction", "outside a mere reference", input(encryptedReaction), { type: "m.reaction", index: 6 });
  const reply = { ...text, "m.relates_to": { "m.in_reply_to": { event_id: "$o" } } };
  w.good("group/reply", "nothing outside", input(await encrypt(reply)), { content_json: canonical(reply) });
  const relation = (value: JsonObject): JsonObject => input({ ...message, "m.relates_to": value });
  const moved = input({ ...encryptedEdit, "m.relates_to": { rel_type: "m.replace", event_id: "$x" } });
  w.bad("group/moved relation", "forged_signature", "it is in the AAD, which is signed", moved);
  w.bad(
    "group/more relation",
    "altered_relation",
    "more than two members",
    relation({ rel_type: "a", event_id: "$o", k: 1 }),
  );
  const honestOutside = preparePlaintext(room, "m.room.message", text);
  const lying = { ...honestOutside, relation: { rel_type: "m.replace", event_id: "$o" } };
  const lie = await encryptMessage(await slot(5), lying);
  w.bad("group/relation only outside", "altered_relation", "its own sender lies", input(lie));
  const elsewhere = await encryptMessage(await slot(5), preparePlaintext("!other:ts.example", "m.room.message", text));
  w.bad("group/inner room", "wrong_room", "encrypted for another room", input(elsewhere));
  const redaction = await encrypt({ redacts: "$o" }, 7, "m.room.redaction");
  w.bad("group/redaction", "unknown_type", "the servers' word", input(redaction));
  w.bad(
    "group/replayed",
    "replayed_index",
    "on another event",
    input(message, { seen: [{ index: 5, event_id: "$1" }] }),
  );
  w.bad("group/no key", "no_key", "the session is not known", input(message, { session: null }));
  w.bad("group/other room", "wrong_room", "copied to another room", input(message, { room_id: "!x:ts.example" }));
  const early = await encrypt(text, 2);
  w.bad("group/before", "unknown_index", "given from 3 on", input(early));
  w.bad("group/index", "forged_signature", "another index", input({ ...message, index: 6 }));
  w.bad("group/far", "oversize", "no session goes so far", input({ ...message, index: 1024 }));
  w.bad("group/device", "wrong_sender", "of another device", input({ ...message, device_id: "BOB" }));
  w.bad("group/algorithm", "unknown_algorithm", "Megolm", input({ ...message, algorithm: "m.megolm.v1.aes-sha2" }));
  w.bad("group/padding", "malformed", "base64 with padding", input({ ...message, salt: `${String(message.salt)}==` }));
  const bobs = canonical({ event_id: "$e", sender: bob.userId, type: "m.room.encrypted", content: message });
  w.bad("group/other sender", "wrong_sender", "of another user", input(message, { event_json: bobs }));
  w.bad("group/bit", "undecryptable", "signed, but the tag fails", input(await brokenTag(alice, signing, start)));
}

/** A message that its session signed, with a ciphertext that does not open: only its own sender can make one. */
async function brokenTag(
  alice: Person,
  signing: { publicKey: string; privateKey: CryptoKey },
  start: Bytes,
): Promise<JsonObject> {
  const ciphertext = randomBytes(272);
  const salt = toBase64(start.slice(0, 16));
  const head = { algorithm: algorithmGroup, device_id: "ALICE", session_id: signing.publicKey, index: 5, salt };
  const aad = utf8(canonical({ ...head, room_id: room, sender: alice.userId, relates_to: null }));
  const signed = concat(utf8("im.conclave.group.v1\0"), aad, new Uint8Array([0]), ciphertext);
  return { ...head, ciphertext: toBase64(ciphertext), signature: await sign(signing.privateKey, signed) };
}

async function roomKeys(w: Writer, session: InboundSession, key: CryptoKey, bob: Person): Promise<void> {
  const { sender, senderDevice, senderKey, roomId, historyVisibility } = session;
  const proof = await signOwnership(key, roomId, historyVisibility, sender, senderKey);
  const content = await roomKeyContent(session, proof, 8);
  const origin = { sender, sender_device: senderDevice, sender_key: senderKey };
  const input = (value: JsonObject, known: JsonObject | null = null): JsonObject => ({
    content_json: canonical(value),
    ...origin,
    known,
  });
  const expect = { room_id: roomId, session_id: session.sessionId, index: 8, history_visibility: "shared" };
  w.good("room_key/fresh", "a session not known before", input(content), { ...expect, ratchet: content.ratchet ?? "" });
  const lower = { ...expect, index: 3, ratchet: session.ratchet };
  w.good("room_key/known from earlier", "the lower index stays", input(content, sessionInput(session)), lower);
  const other = sessionInput({ ...session, ratchet: toBase64(randomBytes(32)) });
  w.bad("room_key/conflict", "conflicting_session", "another ratchet", input(content, other));
  w.good("room_key/over vouched", "a direct share wins", input(content, { ...other, source: "vouched" }), expect);
  w.bad("room_key/not its device", "forged_signature", "the proof names another", {
    ...input(content),
    sender_key: bob.keys.signing,
  });
  w.bad("room_key/far", "oversize", "an index beyond", input({ ...content, index: 1024 }));
  w.bad("room_key/visibility", "malformed", "no such word", input({ ...content, history_visibility: "hidden" }));
  w.bad("room_key/algorithm", "unknown_algorithm", "another", input({ ...content, algorithm: "m.megolm.v1.aes-sha2" }));
  const weak = { ...content, session_id: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" };
  w.bad("room_key/small order", "weak_key", "anybody can sign for it", input(weak));
}

function sessionInput(session: InboundSession): JsonObject {
  return {
    room_id: session.roomId,
    session_id: session.sessionId,
    sender: session.sender,
    sender_device: session.senderDevice,
    sender_key: session.senderKey,
    ratchet: session.ratchet,
    index: session.index,
    history_visibility: session.historyVisibility,
    source: session.source,
  };
}

async function attachments(w: Writer): Promise<void> {
  for (const length of [0, 1, 16, 1000]) {
    const plaintext = randomBytes(length);
    const { stream, done } = encryptStream(new Blob([plaintext]).stream());
    const ciphertext = await new Response(stream).arrayBuffer();
    const file = fileContent({ ...(await done), url: "mxc://ts.example/f" });
    const input = { file_json: canonical(file), ciphertext: toBase64(ciphertext) };
    w.good(`attachment/${length} bytes`, "CTR keeps the length", input, { plaintext: toBase64(plaintext) });
    if (length !== 1000) continue;
    const altered = new Uint8Array(ciphertext);
    altered[500] = (altered[500] ?? 0) ^ 1;
    w.bad("attachment/bit", "wrong_hash", "one bit", { ...input, ciphertext: toBase64(altered) });
    w.bad("attachment/version", "malformed", "v1", { ...input, file_json: canonical({ ...file, v: "v1" }) });
    const counter = { ...file, iv: toBase64(new Uint8Array(16).fill(1)) };
    w.bad("attachment/counter", "malformed", "does not begin at 0", { ...input, file_json: canonical(counter) });
    const key = { kty: "oct", alg: "A256CTR", ext: true, key_ops: ["decrypt"], k: toBase64Url(randomBytes(31)) };
    w.bad("attachment/key", "malformed", "31 bytes", { ...input, file_json: canonical({ ...file, key }) });
  }
}
