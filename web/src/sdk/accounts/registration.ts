/** Making an account by oneself. */
import { ApiError, request } from "../http";
import type { Credentials } from "../types";
import { deviceBody, readCredentials, type WantedDevice } from "./credentials";
import { challengeOf, type Challenge, type Policy } from "./flows";

const path = "/_matrix/client/v3/register";

export interface RegistrationInfo {
  /** Nobody can make an account here where it is not. */
  open: boolean;
  /** The ways there are, each with the stages that have to be passed. */
  flows: string[][];
  policies: Policy[];
  /** An administrator has to approve each account, and reads why it is wanted. */
  approval: boolean;
}

export interface RegisterOptions {
  localpart: string;
  password: string;
  device: WantedDevice;
  /** Why somebody wants an account, for the administrator who has to approve it. */
  reason?: string;
}

export type Registered = { done: Credentials } | { left: Challenge };

export async function registrationInfo(baseUrl: string): Promise<RegistrationInfo> {
  try {
    await request(baseUrl, "POST", path, { body: {} });
  } catch (error) {
    const challenge = challengeOf(error);
    if (challenge !== null) {
      const { flows, policies, approval } = challenge;
      return { open: true, flows, policies, approval };
    }
    if (error instanceof ApiError && error.status === 403)
      return { open: false, flows: [], policies: [], approval: false };
    throw error;
  }
  // A server that registers somebody without a name or password is none that we speak to.
  throw new ApiError(500, { error: "The server answered the registration in a way nobody expects." });
}

export async function isNameFree(baseUrl: string, localpart: string): Promise<boolean> {
  try {
    await request(baseUrl, "GET", `${path}/available?username=${encodeURIComponent(localpart)}`);
    return true;
  } catch (error) {
    if (error instanceof ApiError && (error.errcode === "M_USER_IN_USE" || error.errcode === "M_EXCLUSIVE"))
      return false;
    throw error;
  }
}

/** Whether an account could be made with an invitation now. */
export async function isTokenValid(baseUrl: string, token: string): Promise<boolean> {
  const endpoint = "/_matrix/client/v1/register/m.login.registration_token/validity";
  const answer = await request(baseUrl, "GET", `${endpoint}?token=${encodeURIComponent(token)}`);
  return answer.valid === true;
}

/** One request to make an account, with the answer to one stage: it is made, or something is left to do. */
export async function register(
  baseUrl: string,
  options: RegisterOptions,
  auth?: Record<string, unknown>,
): Promise<Registered> {
  const body = {
    username: options.localpart,
    password: options.password,
    ...deviceBody(options.device),
    inhibit_login: false,
    ...(options.reason === undefined ? {} : { "im.conclave.reason": options.reason }),
    ...(auth === undefined ? {} : { auth }),
  };
  try {
    return { done: readCredentials(baseUrl, await request(baseUrl, "POST", path, { body })) };
  } catch (error) {
    const left = challengeOf(error);
    if (left === null) throw error;
    return { left };
  }
}

/** Whether a refusal says that there is a request for the account, which an administrator has to approve. */
export function isAwaiting(error: unknown): boolean {
  return error instanceof ApiError && error.body["im.conclave.awaiting_approval"] === true;
}
