/** Signing in by a device where one is signed in: this one shows a code, and waits until the other one has decided. */
import { ApiError, request } from "../http";
import { readSigningIn, type SigningIn } from "./signin";

const link = "/_matrix/client/unstable/im.conclave.login/link";
const bounds = { url: 500, code: 40, shortest: 1000, longest: 60_000 };

/** What a device that waits has to know. */
export interface LinkBegun {
  /** With which it asks. It lives in the memory of the page alone, and is shown to nobody. */
  deviceCode: string;
  /** What somebody types on the other device. */
  userCode: string;
  /** Where somebody who scans it decides. */
  url: string;
  /** Until when, in ms. */
  expires: number;
  /** How long to wait before each question, in ms. */
  interval: number;
}

export type LinkAnswer = { at: "waiting"; interval: number } | { at: "allowed"; signingIn: SigningIn };

function intervalIn(answer: Record<string, unknown>): number {
  const { interval_ms: ms } = answer;
  const wanted = typeof ms === "number" && Number.isFinite(ms) ? ms : bounds.shortest;
  return Math.min(bounds.longest, Math.max(bounds.shortest, wanted));
}

/** `name` is how this device calls itself there. */
export async function beginLink(baseUrl: string, name: string): Promise<LinkBegun> {
  const answer = await request(baseUrl, "POST", link, { body: { device_display_name: name } });
  const { device_code: deviceCode, user_code: userCode, url, expires_in_ms: lasts } = answer;
  if (
    typeof deviceCode !== "string" ||
    typeof userCode !== "string" ||
    userCode.length > bounds.code ||
    typeof url !== "string" ||
    url.length > bounds.url ||
    typeof lasts !== "number"
  )
    throw new ApiError(500, { error: "The answer of the server lacks a code." });
  return { deviceCode, userCode, url, expires: Date.now() + lasts, interval: intervalIn(answer) };
}

/** M_FORBIDDEN: somebody has refused it. M_NOT_FOUND: the code is used, or too old. */
export async function pollLink(baseUrl: string, deviceCode: string): Promise<LinkAnswer> {
  const answer = await request(baseUrl, "POST", `${link}/poll`, { body: { device_code: deviceCode } });
  return answer.sign_in === undefined
    ? { at: "waiting", interval: intervalIn(answer) }
    : { at: "allowed", signingIn: readSigningIn(answer) };
}
