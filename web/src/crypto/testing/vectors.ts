/** The vectors that hold the two implementations together: their form, and how each kind is run here (keys/sealed/testdata/README.md). */
import {
  canonical,
  decryptBlob,
  decryptMessage,
  Form,
  importExchangeKey,
  exchangeKeyId,
  isJsonObject,
  mergeSessions,
  messageKey,
  openSealed,
  paddedLength,
  parseStrict,
  qualifyDevice,
  readFileKey,
  readIdentity,
  readRoomKey,
  rotationReason,
  SealedError,
  stepRatchet,
  toBase64,
  type Bytes,
  type Identity,
  type InboundSession,
  type Json,
  type JsonObject,
  type Receiver,
} from "..";

export interface VectorCase {
  name: string;
  kind: string;
  comment: string;
  input: JsonObject;
  expect?: JsonObject;
  failure?: string;
}

type Run = (input: Form) => Promise<JsonObject> | JsonObject;

/** The text of a member that may be null or absent. */
function optional(form: Form, name: string): string {
  return form.has(name) && form.members[name] !== null ? form.text(name) : "";
}

function optionalObject(form: Form, name: string): Form | null {
  return isJsonObject(form.members[name]) ? form.object(name) : null;
}

async function identityOf(userId: string, keys: Form | null, pin: string): Promise<Identity> {
  if (!keys) throw new SealedError("no_identity", "the cross-signing keys are not there");
  const published = { master: optional(keys, "master_key_json"), selfSigning: optional(keys, "self_signing_key_json") };
  return readIdentity(published, userId, pin);
}

function sessionOf(form: Form): InboundSession {
  return {
    roomId: form.text("room_id"),
    sessionId: form.text("session_id"),
    sender: form.text("sender"),
    senderDevice: form.text("sender_device"),
    senderKey: form.text("sender_key"),
    ratchet: form.text("ratchet"),
    index: form.integer("index"),
    historyVisibility: form.text("history_visibility"),
    source: form.text("source") === "vouched" ? "vouched" : "direct",
  };
}

/** Reads an event that a vector gives as text, with the content as the text that it was. */
function eventOf(text: string): { form: Form; content: string } {
  const form = Form.read(text, 2 * 64 * 1024);
  return { form, content: contentText(text) };
}

/** The raw text of the member `content`, so that what is wrong inside it stays wrong. */
function contentText(text: string): string {
  const at = /"content"\s*:\s*/.exec(text);
  if (!at) return "";
  const start = at.index + at[0].length;
  let depth = 0;
  let quoted = false;
  for (let i = start; i < text.length; i++) {
    const character = text[i];
    if (quoted) {
      if (character === "\\") i++;
      else if (character === '"') quoted = false;
    } else if (character === '"') quoted = true;
    else if (character === "{") depth++;
    else if (character === "}" && --depth === 0) return text.slice(start, i + 1);
  }
  return "";
}

const runs: Record<string, Run> = {
  canonical: (input) => ({ canonical: canonical(parseStrict(input.text("text_json"))) }),

  padding: (input) => ({ padded: paddedLength(input.integer("length")) }),

  async ratchet(input) {
    const ratchet = await stepRatchet(input.bytes("ratchet", 32), input.integer("steps"));
    const { key, nonce } = await messageKey(ratchet, input.bytes("salt", 16));
    return { ratchet: toBase64(ratchet), key: toBase64(key), nonce: toBase64(nonce) };
  },

  async device_keys(input) {
    const userId = input.text("user_id");
    const identity = await identityOf(userId, optionalObject(input, "cross_signing"), input.text("pinned_master"));
    const keys = await qualifyDevice(input.text("device_keys_json"), userId, input.text("device_id"), identity);
    return { ed25519: keys.signing, rsa_oaep_256: keys.exchange, kid: keys.kid, dehydrated: keys.dehydrated };
  },

  async cross_signing(input) {
    const published = {
      master: optional(input, "master_key_json"),
      selfSigning: optional(input, "self_signing_key_json"),
      userSigning: optional(input, "user_signing_key_json"),
    };
    const identity = await readIdentity(published, input.text("user_id"), input.text("pinned_master"));
    return { master: identity.master, self_signing: identity.selfSigning, user_signing: identity.userSigning };
  },

  async sealed(input) {
    const { form: event, content } = eventOf(input.text("event_json"));
    const opened = await openSealed(
      { type: event.text("type"), sender: event.text("sender"), content },
      await receiverOf(input),
      input.integer("now"),
    );
    return {
      type: opened.type,
      content_json: canonical(opened.content),
      msg_id: opened.msgId,
      sender: opened.sender,
      sender_device: opened.senderDevice,
      sender_key: opened.senderKey,
    };
  },

  async room_key(input) {
    const origin = {
      sender: input.text("sender"),
      senderDevice: input.text("sender_device"),
      senderKey: input.text("sender_key"),
      source: "direct" as const,
    };
    const fresh = await readRoomKey(input.text("content_json"), origin);
    const known = optionalObject(input, "known");
    const held = known ? await mergeSessions(sessionOf(known), fresh) : fresh;
    return {
      room_id: held.roomId,
      session_id: held.sessionId,
      ratchet: held.ratchet,
      index: held.index,
      history_visibility: held.historyVisibility,
    };
  },

  async group(input) {
    const { form: event, content } = eventOf(input.text("event_json"));
    const known = optionalObject(input, "session");
    const session = known ? sessionOf(known) : undefined;
    const seen = new Map<number, string>();
    for (const entry of Array.isArray(input.members.seen) ? input.members.seen : []) {
      if (!isJsonObject(entry)) throw new Error("seen");
      seen.set(Number(entry.index), String(entry.event_id));
    }
    const opened = await decryptMessage(
      {
        eventId: event.text("event_id"),
        roomId: input.text("room_id"),
        sender: event.text("sender"),
        type: event.text("type"),
        content,
      },
      async (sessionId) => (session?.sessionId === sessionId ? session : undefined),
      async (_sessionId, index) => seen.get(index),
    );
    return { type: opened.type, content_json: canonical(opened.content), index: opened.index };
  },

  async attachment(input) {
    const file = readFileKey(input.text("file_json"));
    const plaintext = await decryptBlob(file, new Blob([input.bytes("ciphertext")]), "application/octet-stream");
    return { plaintext: toBase64(await plaintext.arrayBuffer()) };
  },

  rotation(input) {
    const flag = (name: string): boolean => input.members[name] === true;
    const reason = rotationReason({
      messages: input.integer("messages"),
      ageMs: input.integer("age_ms"),
      encryption: input.members,
      left: flag("left"),
      limited: flag("limited"),
      lostHolder: flag("lost_holder"),
      rulesChanged: flag("rules_changed"),
    });
    return { rotate: reason !== "", reason };
  },
};

async function receiverOf(input: Form): Promise<Receiver> {
  const recipient = input.object("recipient");
  const sender = input.object("sender");
  const { privateKey, kid } = await exchangeKeyOf(recipient.bytes("exchange_pkcs8"));
  const seen = input.texts("seen_msg_ids");
  return {
    userId: recipient.text("user_id"),
    deviceId: recipient.text("device_id"),
    masterKey: recipient.text("master_key"),
    formerMasterKeys: recipient.texts("former_master_keys"),
    exchangeKey: (wanted) => (wanted === kid ? privateKey : undefined),
    async lookup(userId) {
      const identity = await identityOf(userId, optionalObject(sender, "cross_signing"), sender.text("pinned_master"));
      const known = sender.members.known_device_keys_json;
      return { identity, deviceKeys: typeof known === "string" ? known : null };
    },
    isSeen: async (msgId) => seen.includes(msgId),
  };
}

/** The key pair of a vector's PKCS #8: the public half is made of the JWK of the private one. */
export async function exchangeKeyOf(
  pkcs8: Bytes,
): Promise<{ privateKey: CryptoKey; publicKey: string; kid: string; exchangeKey: CryptoKey }> {
  const oaep = { name: "RSA-OAEP", hash: "SHA-256" };
  const open = await crypto.subtle.importKey("pkcs8", pkcs8, oaep, true, ["decrypt"]);
  const { kty, n, e } = await crypto.subtle.exportKey("jwk", open);
  const jwk: JsonWebKey = { kty: kty ?? "", n: n ?? "", e: e ?? "" };
  const exported = await crypto.subtle.importKey("jwk", jwk, oaep, true, ["encrypt"]);
  const spki = new Uint8Array(await crypto.subtle.exportKey("spki", exported));
  return {
    privateKey: open,
    publicKey: toBase64(spki),
    kid: await exchangeKeyId(spki),
    exchangeKey: await importExchangeKey(spki),
  };
}

/** Runs one case: what came out, or the class of the failure. A kind that is not known is an error, never passed over. */
export async function runCase(vector: VectorCase): Promise<{ output: JsonObject } | { failure: string }> {
  const run = runs[vector.kind];
  if (!run) throw new Error(`unknown kind of vector: ${vector.kind}`);
  const input = new Form(vector.input);
  try {
    const output = await run(input);
    input.check();
    return { output };
  } catch (error) {
    if (error instanceof SealedError) return { failure: error.failure };
    throw error;
  }
}

/** The members of an output that a case names. */
export function named(output: JsonObject, expect: JsonObject): JsonObject {
  return Object.fromEntries(Object.keys(expect).map((name): [string, Json] => [name, output[name] ?? null]));
}
