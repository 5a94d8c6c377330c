/**
 * Passkeys (WebAuthn), between the JSON of the server and the browser: options of the server become those of navigator.credentials, and
 * what it gives becomes the JSON that the server reads. What goes wrong is an outcome, not an exception: people close such windows often.
 *
 * Browsers have parse…OptionsFromJSON and toJSON for it, but not all that this client runs in (Safari before 18.4).
 */
import { fromBase64Url, toBase64Url } from "../crypto/encoding";
import { isObject } from "./http";

/**
 * Why there is no passkey.
 *
 * `cancelled`: the person closed the window, or waited for too long; browsers do not tell which, nor whether there is a passkey at all.
 * `unsupported`: this browser or device has none, or none that fits what the server asks for. `exists`: this device has one of this account
 * already. `wrong_site`: the page is not at the address that the server's passkeys are for, or is not secure. `failed`: anything else.
 */
export type PasskeyProblem = "cancelled" | "unsupported" | "exists" | "wrong_site" | "failed";

/** The JSON of a credential as the server takes it in `credential`, or why there is none. */
export type PasskeyOutcome = { ok: true; credential: Record<string, unknown> } | { ok: false; problem: PasskeyProblem };

export interface UsePasskeyOptions {
  /** Waits behind the suggestions of an input with autocomplete="webauthn" instead of opening a window. */
  conditional?: boolean;
  signal?: AbortSignal;
}

/** Whether this browser has passkeys at all. They need a page that came over HTTPS, or from this machine. */
export function hasPasskeys(): boolean {
  return typeof globalThis.PublicKeyCredential === "function" && globalThis.navigator?.credentials !== undefined;
}

/** Whether passkeys can be offered among an input's suggestions. */
export async function suggestsPasskeys(): Promise<boolean> {
  if (!hasPasskeys()) return false;
  try {
    return (await globalThis.PublicKeyCredential.isConditionalMediationAvailable?.()) === true;
  } catch {
    return false;
  }
}

/** A browser does one of these at a time: what waits behind suggestions makes room for what somebody has asked for. */
let waiting: AbortController | undefined;

function begin(signal: AbortSignal | undefined, conditional: boolean): AbortSignal {
  waiting?.abort();
  const mine = new AbortController();
  waiting = conditional ? mine : undefined;
  return signal ? AbortSignal.any([signal, mine.signal]) : mine.signal;
}

/** Makes a passkey from the `options` of the server's answer (…/passkeys/begin): `{publicKey: {…}}`. */
export async function createPasskey(
  options: unknown,
  { signal }: { signal?: AbortSignal } = {},
): Promise<PasskeyOutcome> {
  if (!hasPasskeys()) return { ok: false, problem: "unsupported" };
  try {
    const publicKey = creationOptions(options);
    const made = await navigator.credentials.create({ publicKey, signal: begin(signal, false) });
    if (made === null) return { ok: false, problem: "failed" };
    return { ok: true, credential: madeJson(made as PublicKeyCredential) };
  } catch (error) {
    return { ok: false, problem: problemOf(error) };
  }
}

/** Asks for a passkey by the `options` of the server's answer to one of its challenges: `{publicKey: {…}}`. */
export async function usePasskey(options: unknown, how: UsePasskeyOptions = {}): Promise<PasskeyOutcome> {
  if (!hasPasskeys()) return { ok: false, problem: "unsupported" };
  try {
    const request: CredentialRequestOptions = {
      publicKey: requestOptions(options),
      signal: begin(how.signal, how.conditional === true),
    };
    if (how.conditional === true) request.mediation = "conditional";
    const shown = await navigator.credentials.get(request);
    if (shown === null) return { ok: false, problem: "cancelled" };
    return { ok: true, credential: shownJson(shown as PublicKeyCredential) };
  } catch (error) {
    return { ok: false, problem: problemOf(error) };
  }
}

function problemOf(error: unknown): PasskeyProblem {
  switch (error instanceof Error || error instanceof DOMException ? error.name : "") {
    case "NotAllowedError":
    case "AbortError":
      return "cancelled";
    case "InvalidStateError":
      return "exists";
    case "NotSupportedError":
    case "ConstraintError":
      return "unsupported";
    case "SecurityError":
      return "wrong_site";
  }
  return "failed";
}

/** A member of the options that is an object; throws where it is none. */
function member(from: unknown, name: string): Record<string, unknown> {
  const found = isObject(from) ? from[name] : undefined;
  if (!isObject(found)) throw new TypeError(`the server's options lack ${name}`);
  return found;
}

function bytes(from: Record<string, unknown>, name: string): ArrayBuffer {
  const text = from[name];
  if (typeof text !== "string") throw new TypeError(`the server's options lack ${name}`);
  return fromBase64Url(text.replace(/=+$/, "")).buffer;
}

/** A list of passkeys by their IDs, as the server names them. */
function descriptors(list: unknown): PublicKeyCredentialDescriptor[] {
  return (Array.isArray(list) ? list : []).filter(isObject).map((item) => ({
    type: "public-key",
    id: bytes(item, "id"),
    ...(Array.isArray(item.transports) ? { transports: item.transports as AuthenticatorTransport[] } : {}),
  }));
}

// What the browser reads besides bytes it checks itself, member by member.
function creationOptions(options: unknown): PublicKeyCredentialCreationOptions {
  const wanted = member(options, "publicKey");
  const user = member(wanted, "user");
  return {
    ...wanted,
    challenge: bytes(wanted, "challenge"),
    user: { ...user, id: bytes(user, "id") },
    excludeCredentials: descriptors(wanted.excludeCredentials),
  } as unknown as PublicKeyCredentialCreationOptions;
}

function requestOptions(options: unknown): PublicKeyCredentialRequestOptions {
  const wanted = member(options, "publicKey");
  return {
    ...wanted,
    challenge: bytes(wanted, "challenge"),
    allowCredentials: descriptors(wanted.allowCredentials),
  } as unknown as PublicKeyCredentialRequestOptions;
}

function head(credential: PublicKeyCredential): Record<string, unknown> {
  return {
    id: credential.id,
    rawId: toBase64Url(credential.rawId),
    type: credential.type,
    // Nothing here asks for extensions, and what they give need not be JSON.
    clientExtensionResults: {},
    ...(credential.authenticatorAttachment ? { authenticatorAttachment: credential.authenticatorAttachment } : {}),
  };
}

function madeJson(credential: PublicKeyCredential): Record<string, unknown> {
  const response = credential.response as AuthenticatorAttestationResponse;
  return {
    ...head(credential),
    response: {
      clientDataJSON: toBase64Url(response.clientDataJSON),
      attestationObject: toBase64Url(response.attestationObject),
      transports: response.getTransports?.() ?? [],
    },
  };
}

function shownJson(credential: PublicKeyCredential): Record<string, unknown> {
  const response = credential.response as AuthenticatorAssertionResponse;
  return {
    ...head(credential),
    response: {
      clientDataJSON: toBase64Url(response.clientDataJSON),
      authenticatorData: toBase64Url(response.authenticatorData),
      signature: toBase64Url(response.signature),
      ...(response.userHandle ? { userHandle: toBase64Url(response.userHandle) } : {}),
    },
  };
}
