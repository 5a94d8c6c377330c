/** Showing that an e-mail address is one's own, and what that opens: an account, or a new password. */
import { toBase64Url } from "../../crypto/encoding";
import { ApiError, request } from "../http";
import { challengeOf, stages } from "./flows";

/** How long the link in a mail is good (internal/accounts). Another server may give it longer; nothing depends on that. */
export const linkLastsMs = 15 * 60_000;

/** A confirmation that is under way. Whoever knows `sid` and `secret` can use it once the link was opened. */
export interface AddressProof {
  address: string;
  sid: string;
  secret: string;
  /** Of the newest mail; a higher one asks for another. */
  attempt: number;
  /** When it was asked for, in ms. */
  sentAt: number;
}

const paths = {
  register: "/_matrix/client/v3/register/email/requestToken",
  reset: "/_matrix/client/v3/account/password/email/requestToken",
};

/** Has a mail sent, or, for the same address as before, another one. */
export async function requestMail(
  baseUrl: string,
  purpose: keyof typeof paths,
  address: string,
  before: AddressProof | null,
): Promise<AddressProof> {
  const again = before !== null && before.address === address ? before : null;
  const secret = again?.secret ?? toBase64Url(crypto.getRandomValues(new Uint8Array(24)));
  const attempt = (again?.attempt ?? 0) + 1;
  const body = { client_secret: secret, email: address, send_attempt: attempt };
  const { sid } = await request(baseUrl, "POST", paths[purpose], { body });
  if (typeof sid !== "string") throw new ApiError(500, { error: "The answer of the server lacks a session." });
  return { address, sid, secret, attempt, sentAt: Date.now() };
}

/** The answer to the stage of a confirmed address. */
export function addressAuth({ sid, secret }: AddressProof, session: string): Record<string, unknown> {
  return { type: stages.email, threepid_creds: { sid, client_secret: secret }, session };
}

/** Sets a new password; false as long as the link in the mail was not opened. */
export async function resetPassword(
  baseUrl: string,
  proof: AddressProof,
  password: string,
  signOutEverywhere: boolean,
): Promise<boolean> {
  const body = { new_password: password, logout_devices: signOutEverywhere };
  const path = "/_matrix/client/v3/account/password";
  let session = "";
  // Without a session at first; the answer names one, and the stage is tried in it.
  for (let round = 0; round < 2; round++) {
    try {
      await request(baseUrl, "POST", path, { body: { ...body, auth: addressAuth(proof, session) } });
      return true;
    } catch (error) {
      const challenge = challengeOf(error);
      if (challenge === null) {
        if (error instanceof ApiError && error.errcode === "M_THREEPID_AUTH_FAILED") return false;
        throw error;
      }
      if (challenge.refusal?.errcode === "M_THREEPID_AUTH_FAILED") return false;
      if (challenge.refusal !== null || session !== "") throw error;
      session = challenge.session;
    }
  }
  return false;
}
