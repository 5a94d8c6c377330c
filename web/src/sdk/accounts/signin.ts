/** Signing in: which ways a server has, and each of them. */
import { ApiError, isObject, request } from "../http";
import type { Credentials } from "../types";
import type { FactorType, PasskeyChallenge } from "../uia";
import { deviceBody, readCredentials, type WantedDevice } from "./credentials";

const steps = "/_matrix/client/unstable/im.conclave.login";
const login = "/_matrix/client/v3/login";
const types = {
  password: "m.login.password",
  token: "m.login.token",
  sso: "m.login.sso",
  steps: "im.conclave.login.sign_in",
};
const maxProviders = 20;
/** The server's own pages, which one of ours offers to old clients as one more way: here one is on such a page already. */
const ownPages = "conclave";

const factors: readonly string[] = ["totp", "passkey", "recovery"] satisfies FactorType[];

export interface Provider {
  /** Null where the server has one way alone and does not name it. */
  id: string | null;
  name: string | null;
}

/** What a server offers. */
export interface LoginWays {
  password: boolean;
  /** Step by step, with a second factor or a passkey alone: our own servers. */
  steps: boolean;
  /** By the organization's own sign-in. */
  providers: Provider[];
}

/** Somebody on the way to a session. */
export interface SigningIn {
  /** What proves to the server what was shown so far. It lives in the memory of the page alone. */
  secret: string;
  /** Any one of them is still to be shown; none: the session can be opened. */
  needs: FactorType[];
  /** Until when, in ms. */
  expires: number;
}

export type FactorAnswer =
  | { type: "totp" | "recovery"; code: string }
  | { type: "passkey"; challenge: string; credential: Record<string, unknown> };

export async function loginWays(baseUrl: string): Promise<LoginWays> {
  const answer = await request(baseUrl, "GET", login);
  const flows = (Array.isArray(answer.flows) ? answer.flows : []).filter(isObject);
  const has = (type: string): boolean => flows.some((flow) => flow.type === type);
  const steps = has(types.steps);
  const providers = flows.flatMap(providersOf).filter(({ id }) => !steps || (id !== null && id !== ownPages));
  return { password: has(types.password), steps, providers };
}

function providersOf(flow: Record<string, unknown>): Provider[] {
  if (flow.type !== types.sso) return [];
  const listed = Array.isArray(flow.identity_providers) ? flow.identity_providers.filter(isObject) : [];
  const named = listed.slice(0, maxProviders).flatMap(({ id, name }): Provider[] => {
    if (typeof id !== "string") return [];
    return [{ id, name: typeof name === "string" && name !== "" ? name.slice(0, 100) : null }];
  });
  return named.length > 0 ? named : [{ id: null, name: null }];
}

/** Who somebody is, from what they typed: an e-mail address has an @ further in, a Matrix ID begins with one. */
export function identifierOf(user: string): Record<string, string> {
  const typed = user.trim();
  return typed.indexOf("@") > 0
    ? { type: "m.id.thirdparty", medium: "email", address: typed }
    : { type: "m.id.user", user: typed };
}

export function readSigningIn(answer: Record<string, unknown>): SigningIn {
  const { sign_in: secret, needs, expires_in_ms: lasts } = answer;
  if (typeof secret !== "string" || !Array.isArray(needs) || typeof lasts !== "number")
    throw new ApiError(500, { error: "The answer of the server lacks what a sign-in needs." });
  const open = needs.filter((need): need is FactorType => factors.includes(String(need)));
  if (open.length === 0 && needs.length > 0) throw new Error("factor_unknown");
  return { secret, needs: open, expires: Date.now() + lasts };
}

/** A sign-in that goes on with a second factor, where a refusal holds one. */
export function signingInOf(error: unknown): SigningIn | null {
  const inside = error instanceof ApiError ? error.body["im.conclave.sign_in"] : undefined;
  return isObject(inside) ? readSigningIn(inside) : null;
}

export async function signInPassword(baseUrl: string, user: string, password: string): Promise<SigningIn> {
  const body = { identifier: identifierOf(user), password };
  return readSigningIn(await request(baseUrl, "POST", `${steps}/sign_in`, { body }));
}

export async function signInFactor(baseUrl: string, secret: string, answer: FactorAnswer): Promise<SigningIn> {
  return readSigningIn(await request(baseUrl, "POST", `${steps}/factor`, { body: { sign_in: secret, ...answer } }));
}

/** Asks for a passkey: as the second factor of a sign-in, or without one of whoever it may be. */
export async function passkeyChallenge(baseUrl: string, secret?: string): Promise<PasskeyChallenge> {
  const path = secret === undefined ? `${steps}/passkey/challenge` : `${steps}/factor/challenge`;
  const body = secret === undefined ? {} : { sign_in: secret };
  const { options, challenge } = await request(baseUrl, "POST", path, { body });
  if (typeof challenge !== "string") throw new ApiError(500, { error: "The answer of the server lacks a challenge." });
  return { options, challenge };
}

export async function signInPasskey(
  baseUrl: string,
  challenge: string,
  credential: Record<string, unknown>,
): Promise<SigningIn> {
  return readSigningIn(await request(baseUrl, "POST", `${steps}/passkey`, { body: { challenge, credential } }));
}

async function open(baseUrl: string, by: Record<string, unknown>, device: WantedDevice): Promise<Credentials> {
  return readCredentials(baseUrl, await request(baseUrl, "POST", login, { body: { ...by, ...deviceBody(device) } }));
}

/** Opens the session of a sign-in that needs nothing more. It is used up by it. */
export function openSignIn(baseUrl: string, secret: string, device: WantedDevice): Promise<Credentials> {
  return open(baseUrl, { type: types.steps, sign_in: secret }, device);
}

/** The way of every homeserver, for those that know no other. */
export function logInPassword(
  baseUrl: string,
  user: string,
  password: string,
  device: WantedDevice,
): Promise<Credentials> {
  return open(baseUrl, { type: types.password, identifier: identifierOf(user), password }, device);
}

/** By the token that comes back from the organization's sign-in. */
export function logInToken(baseUrl: string, token: string, device: WantedDevice): Promise<Credentials> {
  return open(baseUrl, { type: types.token, token, "im.conclave.enrols": true }, device);
}

/** Where the organization's sign-in begins; it leads back to an address of ours, with a token. */
export function providerPage(baseUrl: string, provider: Provider, back: string): string {
  const id = provider.id === null ? "" : `/${encodeURIComponent(provider.id)}`;
  return `${baseUrl.replace(/\/+$/, "")}${login}/sso/redirect${id}?redirectUrl=${encodeURIComponent(back)}`;
}

/** Ends a session that was opened by mistake, as far as the server can be reached. */
export async function endSession({ baseUrl, accessToken }: Credentials): Promise<void> {
  await request(baseUrl, "POST", "/_matrix/client/v3/logout", { body: {}, token: accessToken }).catch(() => undefined);
}

/** Whether the server wants a second factor of a session's owner who has none, and by when (ms). */
export interface FactorRule {
  wanted: boolean;
  due: number | null;
}

export async function factorRule({ baseUrl, accessToken }: Credentials): Promise<FactorRule> {
  const path = "/_matrix/client/unstable/im.conclave.account/factors";
  try {
    const answer = await request(baseUrl, "GET", path, { token: accessToken });
    const none = answer.totp !== true && !(typeof answer.passkeys === "number" && answer.passkeys > 0);
    const due = typeof answer.due_ts === "number" ? answer.due_ts : null;
    return { wanted: answer.required === true && none, due };
  } catch (error) {
    // Another homeserver has no such rule.
    if (error instanceof ApiError && (error.status === 404 || error.status === 405))
      return { wanted: false, due: null };
    throw error;
  }
}
