/** User-interactive authentication: what a server asks for before it does something, stage by stage. */
import { ApiError, isObject } from "../http";

/** The stages that this client knows. Others are passed on a page of the server. */
export const stages = {
  dummy: "m.login.dummy",
  token: "m.login.registration_token",
  email: "m.login.email.identity",
  terms: "m.login.terms",
  /** A proof of work, of this server's own. */
  work: "im.conclave.login.pow",
} as const;

const known: ReadonlySet<string> = new Set(Object.values(stages));
const bounds = { flows: 20, stages: 20, policies: 20, languages: 50 };

/** A document that has to be agreed to, in the languages that there are. */
export interface Policy {
  id: string;
  version: string;
  /** By language tag; the addresses are of web pages. */
  texts: Record<string, { name: string; url: string }>;
}

/** What is left to do. */
export interface Challenge {
  session: string;
  flows: string[][];
  completed: string[];
  policies: Policy[];
  puzzle: Puzzle | null;
  /** An administrator has to approve what is asked for, and reads a reason. */
  approval: boolean;
  /** Why the stage that was just tried is not passed. */
  refusal: { errcode: string; text: string } | null;
}

export interface Puzzle {
  seed: string;
  /** How many of the first bits of the hash have to be zero. */
  difficulty: number;
}

function texts(value: unknown, most: number): string[] {
  return (Array.isArray(value) ? value : []).filter((s): s is string => typeof s === "string").slice(0, most);
}

/** Reads the 401 of a request that wants to be confirmed; null where the error is another. */
export function challengeOf(error: unknown): Challenge | null {
  if (!(error instanceof ApiError) || error.status !== 401 || !Array.isArray(error.body.flows)) return null;
  const { body } = error;
  const params = isObject(body.params) ? body.params : {};
  return {
    session: typeof body.session === "string" ? body.session : "",
    flows: (body.flows as unknown[])
      .slice(0, bounds.flows)
      .map((flow) => (isObject(flow) ? texts(flow.stages, bounds.stages) : [])),
    completed: texts(body.completed, bounds.flows * bounds.stages),
    policies: policiesOf(params[stages.terms]),
    puzzle: puzzleOf(params[stages.work]),
    approval: isObject(params["im.conclave.approval"]),
    refusal: typeof body.errcode === "string" ? { errcode: error.errcode, text: error.message } : null,
  };
}

function policiesOf(params: unknown): Policy[] {
  const policies = isObject(params) && isObject(params.policies) ? params.policies : {};
  return Object.entries(policies)
    .slice(0, bounds.policies)
    .flatMap(([id, policy]) => {
      if (!isObject(policy)) return [];
      const found: Policy["texts"] = {};
      for (const [tag, text] of Object.entries(policy).slice(0, bounds.languages)) {
        if (!isObject(text) || typeof text.name !== "string" || typeof text.url !== "string") continue;
        if (/^https?:\/\//i.test(text.url) && URL.canParse(text.url)) found[tag] = { name: text.name, url: text.url };
      }
      const version = typeof policy.version === "string" ? policy.version : "";
      return Object.keys(found).length > 0 ? [{ id, version, texts: found }] : [];
    });
}

function puzzleOf(params: unknown): Puzzle | null {
  if (!isObject(params) || params.algorithm !== "sha256") return null;
  const { seed, difficulty } = params;
  if (typeof seed !== "string" || seed.length > 200 || !Number.isInteger(difficulty)) return null;
  return { seed, difficulty: difficulty as number };
}

/**
 * The way to go: of the flows that this client can pass by itself the one with an address if there is one to confirm, else one without.
 * Where there is none such, the first of all.
 */
export function chooseFlow(flows: string[][], withEmail: boolean): string[] {
  const own = flows.filter((flow) => flow.every((stage) => known.has(stage)));
  const among = own.length > 0 ? own : flows;
  return among.find((flow) => flow.includes(stages.email) === withEmail) ?? among[0] ?? [];
}

/** The stage whose turn it is; undefined when all are passed. */
export function nextStage(challenge: Challenge, withEmail: boolean): string | undefined {
  return chooseFlow(challenge.flows, withEmail).find((stage) => !challenge.completed.includes(stage));
}

/** The server's own page for a stage, for a window of its own (client-server API, "Fallback"). */
export function fallbackPage(baseUrl: string, stage: string, session: string): string {
  const page = `/_matrix/client/v3/auth/${encodeURIComponent(stage)}/fallback/web`;
  return `${baseUrl.replace(/\/+$/, "")}${page}?session=${encodeURIComponent(session)}`;
}
