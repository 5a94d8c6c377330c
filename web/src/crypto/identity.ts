/** Cross-signing: the identity of a user, which vouches for the user's devices. Exactly the Matrix specification's. */
import type { Bytes } from "./encoding";
import { must, SealedError } from "./errors";
import { Form } from "./form";
import { canonical, type JsonObject } from "./json";
import { decodeVerifyKey, randomBytes, signingKeyFromSeed, type SigningKey } from "./primitives";
import { checkSignature, signObject } from "./signing";

export type Usage = "master" | "self_signing" | "user_signing";

/** The verified public identity of a user: keys in unpadded base64. */
export interface Identity {
  userId: string;
  master: string;
  selfSigning: string;
  /** Known for oneself only: servers give it to its owner. */
  userSigning: string;
}

/** The public keys as /keys/query gives them out, as text of which nothing is believed. */
export interface PublishedIdentity {
  master: string;
  selfSigning: string;
  userSigning?: string;
}

/** A new identity. The seeds leave this object for secret storage alone; sign with the keys. */
export interface NewCrossSigning {
  seeds: Record<Usage, Bytes>;
  keys: Record<Usage, SigningKey>;
  objects: Record<Usage, JsonObject>;
}

export async function createCrossSigning(userId: string): Promise<NewCrossSigning> {
  return crossSigningFromSeeds(userId, {
    master: randomBytes(32),
    self_signing: randomBytes(32),
    user_signing: randomBytes(32),
  });
}

export async function crossSigningFromSeeds(userId: string, seeds: Record<Usage, Bytes>): Promise<NewCrossSigning> {
  const keys = {
    master: await signingKeyFromSeed(seeds.master),
    self_signing: await signingKeyFromSeed(seeds.self_signing),
    user_signing: await signingKeyFromSeed(seeds.user_signing),
  };
  const object = (usage: Usage): JsonObject => ({
    user_id: userId,
    usage: [usage],
    keys: { [`ed25519:${keys[usage].publicKey}`]: keys[usage].publicKey },
  });
  const byMaster = (usage: Usage): Promise<JsonObject> =>
    signObject(object(usage), userId, `ed25519:${keys.master.publicKey}`, keys.master.privateKey);
  return {
    seeds,
    keys,
    objects: {
      master: object("master"),
      self_signing: await byMaster("self_signing"),
      user_signing: await byMaster("user_signing"),
    },
  };
}

/**
 * Reads an identity and checks it against the pin: the master key of this user as it was seen first. With an empty pin, which is right at
 * first sight only, any master key passes, and the caller pins it before anything else.
 */
export async function readIdentity(published: PublishedIdentity, userId: string, pin: string): Promise<Identity> {
  must(published.master !== "" && published.selfSigning !== "", "no_identity", "the cross-signing keys are not there");
  const master = readCrossSigningKey(published.master, userId, "master");
  must(pin === "" || master.key === pin, "identity_changed", "another master key than the pinned one");
  const below = async (text: string, usage: Usage): Promise<string> => {
    const { key, object } = readCrossSigningKey(text, userId, usage);
    const signature = await checkSignature(object, userId, `ed25519:${master.key}`, master.key);
    must(signature === "valid", "forged_signature", "the master key did not sign");
    return key;
  };
  return {
    userId,
    master: master.key,
    selfSigning: await below(published.selfSigning, "self_signing"),
    userSigning: published.userSigning ? await below(published.userSigning, "user_signing") : "",
  };
}

/** Checks everything about a cross-signing key but its signature. */
function readCrossSigningKey(text: string, userId: string, usage: Usage): { key: string; object: JsonObject } {
  const form = Form.read(text);
  const owner = form.name("user_id");
  const usages = form.texts("usage");
  const keys = form.object("keys");
  form.check();
  const ids = Object.keys(keys.members);
  must(usages.length === 1 && usages[0] === usage && ids.length === 1, "malformed", `not exactly one key for ${usage}`);
  must(owner === userId, "wrong_device", "a cross-signing key of another user");
  const id = ids[0] ?? "";
  const key = keys.members[id];
  if (typeof key !== "string" || id !== `ed25519:${key}`)
    throw new SealedError("malformed", "the key is not named by itself");
  decodeVerifyKey(key);
  return { key, object: form.members };
}

/** The text in which an object of the server is handed to the checks here. */
export function asText(object: JsonObject | undefined): string {
  return object === undefined ? "" : canonical(object);
}
