/** Signed JSON as the Matrix specification has it (appendices, "Signing JSON"). */
import { utf8 } from "./encoding";
import { SealedError } from "./errors";
import { canonical, isJsonObject, type JsonObject } from "./json";
import { sign, verify } from "./primitives";

function signedForm(object: JsonObject): string {
  const { signatures: _signatures, unsigned: _unsigned, ...rest } = object;
  return canonical(rest);
}

/** A copy of the object with one more signature. */
export async function signObject<T extends JsonObject>(
  object: T,
  userId: string,
  keyId: string,
  key: CryptoKey,
): Promise<T & JsonObject> {
  const signature = await sign(key, utf8(signedForm(object)));
  const signatures = isJsonObject(object.signatures) ? object.signatures : {};
  const own = isJsonObject(signatures[userId]) ? signatures[userId] : {};
  return { ...object, signatures: { ...signatures, [userId]: { ...own, [keyId]: signature } } };
}

/** Whether an object bears the signature of a key; `missing` is told apart from one that does not fit. */
export async function checkSignature(
  object: JsonObject,
  userId: string,
  keyId: string,
  publicKey: string,
): Promise<"valid" | "missing"> {
  const signatures = isJsonObject(object.signatures) ? object.signatures : {};
  const own = Object.hasOwn(signatures, userId) && isJsonObject(signatures[userId]) ? signatures[userId] : {};
  const signature = Object.hasOwn(own, keyId) ? own[keyId] : undefined;
  if (typeof signature !== "string") return "missing";
  if (await verify(publicKey, signature, utf8(signedForm(object)))) return "valid";
  throw new SealedError("forged_signature", `the signature by ${keyId} does not fit`);
}
