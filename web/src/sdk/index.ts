/**
 * The protocol side of the client: Matrix, and Sealed Rooms on top of it. `stores` and what lies above import this file and nothing
 * else below `sdk` and `crypto`. matrix-js-sdk itself comes with a dynamic import in `openSession`, not with the first load.
 */
import type { Puzzle } from "./accounts";
import type { WorkOptions } from "./accounts/work";
import type { Credentials, Session } from "./types";

/** Opens the keys of this device and a Matrix client over them. Nothing goes over the network before `start`. */
export async function openSession(credentials: Credentials): Promise<Session> {
  const { createSession } = await import("./session");
  return createSession(credentials);
}

/** The session that this browser has; what openSession needs again after a reload. */
export async function savedSession(): Promise<Credentials | null> {
  const saved = await import("./saved");
  return saved.savedSession();
}

/** Deletes what this browser keeps of a session that is not open. Gives the one that another tab has opened since, if there is one. */
export async function forgetSession(credentials: Credentials): Promise<Credentials | null> {
  const saved = await import("./saved");
  return saved.forgetSession(credentials);
}

/** Signs in again to a device that this browser keeps (saved.ts). */
export async function renewing<T>(work: () => Promise<T>): Promise<T> {
  const saved = await import("./saved");
  return saved.renewing(work);
}

/** Deletes what else this browser keeps for a person who has no session here any more. */
export async function unlessSignedIn(userId: string, work: () => Promise<void>): Promise<void> {
  const saved = await import("./saved");
  await saved.unlessSignedIn(userId, work);
}

/** Solves the puzzle of a registration, in a worker. */
export async function solve(puzzle: Puzzle, options: WorkOptions): Promise<string> {
  const work = await import("./accounts/work");
  return work.solve(puzzle, options);
}

export * from "./accounts";
export type { WorkOptions } from "./accounts/work";
export { ApiError, preferLanguage } from "./http";
export type {
  Connection,
  Credentials,
  Delivery,
  DeviceStanding,
  Ending,
  Failure,
  IdentityState,
  NewIdentity,
  Observable,
  ReadAttachmentOptions,
  RoomSafety,
  SendFileOptions,
  Session,
} from "./types";
export { Cancelled, confirmed } from "./uia";
export type { Answer, Asker, Confirm, Confirmer, FactorType, PasskeyChallenge, Refusal, Step } from "./uia";
export type {
  AccountAbilities,
  AccountCare,
  EmailAddress,
  EmailProof,
  Export,
  Factors,
  Named,
  SignedInDevice,
  TotpEnrolment,
  WaitingDevice,
} from "./account";
export { createPasskey, hasPasskeys, suggestsPasskeys, usePasskey } from "./webauthn";
export type { PasskeyOutcome, PasskeyProblem, UsePasskeyOptions } from "./webauthn";
