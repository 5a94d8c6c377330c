/** Getting in: registration and sign-in, before there is a session. */
import { ApiError, isObject, request } from "./http";
import type { Credentials, LoginOptions, RegisterOptions, RegistrationInfo } from "./types";

const dummy = "m.login.dummy";
const registrationToken = "m.login.registration_token";
const offered = new Set([dummy, registrationToken]);
/** A flow has one or two stages that this client knows; a server that keeps asking is not followed. */
const maxRounds = 5;

export async function registrationInfo(baseUrl: string): Promise<RegistrationInfo> {
  try {
    await request(baseUrl, "POST", "/_matrix/client/v3/register", { body: {} });
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return { open: true, stages: chooseFlow(error.body) };
    if (error instanceof ApiError && error.status === 403) return { open: false, stages: [] };
    throw error;
  }
  // A server that registers somebody without a name or password is none that we speak to.
  throw new ApiError(500, { error: "The server answered the registration in a way nobody expects." });
}

export async function isNameFree(baseUrl: string, localpart: string): Promise<boolean> {
  try {
    await request(baseUrl, "GET", `/_matrix/client/v3/register/available?username=${encodeURIComponent(localpart)}`);
    return true;
  } catch (error) {
    if (error instanceof ApiError && (error.errcode === "M_USER_IN_USE" || error.errcode === "M_EXCLUSIVE"))
      return false;
    throw error;
  }
}

export async function register(baseUrl: string, options: RegisterOptions): Promise<Credentials> {
  const body: Record<string, unknown> = {
    username: options.localpart,
    password: options.password,
    initial_device_display_name: options.deviceName,
    inhibit_login: false,
  };
  for (let round = 0; round < maxRounds; round++) {
    try {
      return readCredentials(baseUrl, await request(baseUrl, "POST", "/_matrix/client/v3/register", { body }));
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
      // An errcode here is the refusal of the stage just tried, for example of a wrong token.
      if (typeof error.body.errcode === "string") throw error;
      body.auth = nextStage(error.body, options);
    }
  }
  throw new ApiError(401, { error: "The server asks for ever more steps to register." });
}

export async function logIn(baseUrl: string, options: LoginOptions): Promise<Credentials> {
  const answer = await request(baseUrl, "POST", "/_matrix/client/v3/login", {
    body: {
      type: "m.login.password",
      identifier: { type: "m.id.user", user: options.user },
      password: options.password,
      initial_device_display_name: options.deviceName,
    },
  });
  return readCredentials(baseUrl, answer);
}

function nextStage(challenge: Record<string, unknown>, options: RegisterOptions): Record<string, unknown> {
  const done = Array.isArray(challenge.completed) ? challenge.completed : [];
  const stage = chooseFlow(challenge).find((name) => !done.includes(name));
  if (stage === dummy) return { type: dummy, session: challenge.session };
  if (stage === registrationToken && options.token)
    return { type: registrationToken, token: options.token, session: challenge.session };
  throw new ApiError(401, {
    errcode: "M_UNAUTHORIZED",
    error: `This client cannot pass the step ${stage ?? "asked for"}.`,
  });
}

/** The stages of the first flow that this client can pass, or of the first one, to say what stands in the way. */
function chooseFlow(challenge: Record<string, unknown>): string[] {
  const flows = (Array.isArray(challenge.flows) ? challenge.flows : []).map((flow: unknown) =>
    isObject(flow) && Array.isArray(flow.stages) ? flow.stages.filter((s): s is string => typeof s === "string") : [],
  );
  return flows.find((stages) => stages.every((s) => offered.has(s))) ?? flows[0] ?? [];
}

function readCredentials(baseUrl: string, answer: Record<string, unknown>): Credentials {
  const { user_id: userId, device_id: deviceId, access_token: accessToken } = answer;
  if (typeof userId !== "string" || typeof deviceId !== "string" || typeof accessToken !== "string") {
    throw new ApiError(500, { error: "The answer of the server lacks what a session needs." });
  }
  return { baseUrl: baseUrl.replace(/\/+$/, ""), userId, deviceId, accessToken };
}
