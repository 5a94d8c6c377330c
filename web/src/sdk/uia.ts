/**
 * User-interactive authentication (client-server API v1.19, "User-Interactive Authentication API"): a request that answers 401 with flows
 * is repeated with the answers to their stages. What is asked next, and what a refusal means, is decided here, without network or page.
 */
import { ApiError, isObject } from "./http";

export const stagePassword = "m.login.password";
export const stageFactor = "im.conclave.second_factor";
const stageDummy = "m.login.dummy";

export type FactorType = "totp" | "passkey" | "recovery";

/** What an answer to a request says that still has to be confirmed. */
export interface Challenge {
  session: string;
  flows: string[][];
  completed: string[];
  /** The kinds of second factor that the account can show. */
  factors: FactorType[];
  /** Why the last stage was refused: an errcode, null if it was not. */
  refused: string | null;
}

/** What the person has to do next. `elsewhere` is a stage that this client leaves to a page of the server. */
export type Step =
  | { kind: "password" }
  | { kind: "factor"; types: FactorType[] }
  | { kind: "dummy" }
  | { kind: "elsewhere"; stage: string; path: string };

export type Answer =
  | { kind: "password"; password: string }
  | { kind: "factor"; type: "totp" | "recovery"; code: string }
  | { kind: "factor"; type: "passkey"; challenge: string; credential: Record<string, unknown> }
  | { kind: "dummy" }
  /** The person says that the page of the server is done. */
  | { kind: "elsewhere" };

/**
 * Why the last answer did not do. `wrong`: the password or code. `limited`: there were too many, until a time (ms). `offline`: the server
 * cannot be reached. `expired`: it took too long, and begins anew. `unfinished`: the page of the server is not done yet. `unreadable`: the
 * server cannot check the person's authenticator app any more.
 */
export type Refusal =
  | { why: "wrong" }
  | { why: "limited"; until: number }
  | { why: "offline" }
  | { why: "expired" }
  | { why: "unfinished" }
  | { why: "unreadable" };

/** `over` is the end of what cannot go on: the error is for whoever made the request. */
export type Confirmation =
  | { at: "asking" | "checking"; session: string; steps: Step[]; refusal: Refusal | null }
  | { at: "over"; error: unknown };

/** What to do about an answer without a time that asks to wait. */
const waitMs = 5000;
const unnoticedMs = 2000;
const maxStages = 20;

/** The challenge in the error of a request; null if it is another error. */
export function readChallenge(error: unknown): Challenge | null {
  if (!(error instanceof ApiError) || error.status !== 401 || !Array.isArray(error.body.flows)) return null;
  const { session, flows, completed, params, errcode } = error.body;
  const own = isObject(params) ? params[stageFactor] : undefined;
  const kinds = isObject(own) ? texts(own.types) : [];
  return {
    session: typeof session === "string" ? session : "",
    flows: (flows as unknown[])
      .slice(0, maxStages)
      .map((flow) => (isObject(flow) ? texts(flow.stages) : []))
      .filter((stages) => stages.length > 0),
    completed: texts(completed),
    factors: (["totp", "passkey", "recovery"] as const).filter((kind) => kinds.includes(kind)),
    refused: typeof errcode === "string" ? errcode : null,
  };
}

function texts(value: unknown): string[] {
  return (Array.isArray(value) ? value : [])
    .filter((item): item is string => typeof item === "string")
    .slice(0, maxStages);
}

/** What can be done next, each once, in the order of the flows; what this client does itself comes before pages. */
function stepsOf({ session, flows, completed, factors }: Challenge): Step[] {
  const next = new Set(flows.flatMap((stages) => stages.find((stage) => !completed.includes(stage)) ?? []));
  const steps = [...next].map((stage) => stepOf(stage, session, factors));
  return [...steps.filter((step) => step.kind !== "elsewhere"), ...steps.filter((step) => step.kind === "elsewhere")];
}

function stepOf(stage: string, session: string, types: FactorType[]): Step {
  if (stage === stagePassword) return { kind: "password" };
  if (stage === stageDummy) return { kind: "dummy" };
  // Without a kind that this client knows, the page of the server may know one.
  if (stage === stageFactor && types.length > 0) return { kind: "factor", types };
  const query = new URLSearchParams({ session });
  return {
    kind: "elsewhere",
    stage,
    path: `/_matrix/client/v3/auth/${encodeURIComponent(stage)}/fallback/web?${query}`,
  };
}

/** Begins with the answer to the request as it was made at first. */
export function begin(challenge: Challenge): Confirmation {
  const steps = stepsOf(challenge);
  if (steps.length === 0) return { at: "over", error: new Error("confirmation_impossible") };
  return { at: "asking", session: challenge.session, steps, refusal: null };
}

/** The person has answered a step. */
export function answered(state: Confirmation): Confirmation {
  return state.at === "asking" ? { ...state, at: "checking", refusal: null } : state;
}

/** The request was refused with that answer: it goes on with a reason, with the next step, or is over. */
export function refused(state: Confirmation, error: unknown, answer: Answer, now: number): Confirmation {
  if (state.at === "over") return state;
  const challenge = readChallenge(error);
  if (challenge !== null) return again(state, challenge, answer);
  const because = (refusal: Refusal): Confirmation => ({ ...state, at: "asking", refusal });
  if (!(error instanceof ApiError)) return { at: "over", error };
  if (error.errcode === "M_LIMIT_EXCEEDED")
    return because({ why: "limited", until: now + (error.retryAfterMs ?? waitMs) });
  return error.status === 0 ? because({ why: "offline" }) : { at: "over", error };
}

function again(before: { session: string }, challenge: Challenge, answer: Answer): Confirmation {
  const state = begin(challenge);
  if (state.at === "over") return state;
  if (challenge.session !== before.session) return { ...state, refusal: { why: "expired" } };
  const asksAgain = state.steps.some((step) => step.kind === answer.kind);
  if (challenge.refused !== null) return { ...state, refusal: { why: whyRefused(challenge.refused, answer) } };
  if (answer.kind === "elsewhere" && asksAgain) return { ...state, refusal: { why: "unfinished" } };
  return state;
}

function whyRefused(errcode: string, answer: Answer): "unfinished" | "unreadable" | "wrong" {
  if (answer.kind === "elsewhere") return "unfinished";
  return errcode === "IM.CONCLAVE.AUTHENTICATOR_UNREADABLE" ? "unreadable" : "wrong";
}

/** The member `auth` that repeats a request with an answer. */
export function authOf(session: string, userId: string, answer: Answer): Record<string, unknown> {
  switch (answer.kind) {
    case "password":
      return {
        type: stagePassword,
        session,
        identifier: { type: "m.id.user", user: userId },
        password: answer.password,
      };
    case "factor":
      return {
        type: stageFactor,
        session,
        factor: answer.type,
        ...(answer.type === "passkey"
          ? { challenge: answer.challenge, credential: answer.credential }
          : { code: answer.code }),
      };
    case "dummy":
      return { type: stageDummy, session };
    case "elsewhere":
      return { session };
  }
}

/** The person does not want to go on. */
export class Cancelled extends Error {
  constructor() {
    super("cancelled");
    this.name = "Cancelled";
  }
}

/** Whoever asks the person. `ask` rejects with Cancelled; `end` comes once nothing more is asked, and only after an `ask`. */
export interface Asker {
  ask(steps: Step[], refusal: Refusal | null): Promise<Answer>;
  end(): void;
}

export type Auth = Record<string, unknown>;

/** Makes a request, and again with each answer, until it is confirmed or over. A password that is known is tried before anybody is asked. */
export async function confirmed<T>(
  { userId, password }: { userId: string; password?: string | undefined },
  send: (auth?: Auth) => Promise<T>,
  asker: Asker,
): Promise<T> {
  let state: Confirmation;
  try {
    return await patiently(() => send());
  } catch (error) {
    const challenge = readChallenge(error);
    if (challenge === null) throw error;
    state = begin(challenge);
  }
  let known = password;
  let asked = false;
  try {
    while (state.at !== "over") {
      const answer: Answer = unasked(state.steps, known) ?? (await ask(state));
      if (answer.kind === "password") known = undefined;
      const auth = authOf(state.session, userId, answer);
      state = answered(state);
      try {
        return await patiently(() => send(auth));
      } catch (error) {
        state = refused(state, error, answer, Date.now());
        if (answer.kind === "dummy" && state.at !== "over" && state.refusal !== null) state = { at: "over", error };
      }
    }
  } finally {
    if (asked) asker.end();
  }
  throw state.error;

  function ask({ steps, refusal }: Exclude<Confirmation, { at: "over" }>): Promise<Answer> {
    asked = true;
    return asker.ask(steps, refusal);
  }
}

/** A wait that nobody notices is waited, once, and not talked about. */
async function patiently<T>(send: () => Promise<T>): Promise<T> {
  try {
    return await send();
  } catch (error) {
    const wait = error instanceof ApiError && error.errcode === "M_LIMIT_EXCEEDED" ? error.retryAfterMs : undefined;
    if (wait === undefined || wait > unnoticedMs) throw error;
    await new Promise((resolve) => setTimeout(resolve, wait));
    return send();
  }
}

/** What can be answered without the person. */
function unasked(steps: Step[], password: string | undefined): Answer | null {
  if (steps.some(({ kind }) => kind === "dummy")) return { kind: "dummy" };
  if (password !== undefined && steps.some(({ kind }) => kind === "password")) return { kind: "password", password };
  return null;
}

/** Whose request it is that has to be confirmed. */
export interface Confirmer {
  userId: string;
  /** Is known already, from a moment ago. */
  password?: string | undefined;
  /** What a browser is asked for a passkey with. */
  passkeyChallenge(): Promise<PasskeyChallenge>;
}

export interface PasskeyChallenge {
  options: unknown;
  challenge: string;
}

/** Makes a request and lets the person confirm it where the server asks for that. */
export type Confirm = <T>(who: Confirmer, send: (auth?: Auth) => Promise<T>) => Promise<T>;
