/**
 * The care of one's own account: second factors, passkeys, app passwords, sessions, addresses, the password. What the server wants to have
 * confirmed is confirmed by user-interactive authentication.
 */
import { fromBase64, isJsonObject, type Bytes, type Json, type JsonObject } from "../crypto";
import type { Api } from "./api";
import { ApiError } from "./http";
import type { Auth, Confirm, Confirmer, PasskeyChallenge } from "./uia";

const own = "/_matrix/client/unstable/im.conclave.account";
/** Of one list. The server bounds most lists by less; whoever has more sessions sees the latest. */
export const maxItems = 1000;

export interface Factors {
  /** An authenticator app is set up. */
  totp: boolean;
  /** Recovery codes that were not used yet. */
  recoveryCodes: number;
  passkeys: number;
  /** The server is at a name that passkeys can be made for. */
  passkeysAvailable: boolean;
  /** The rule of the server wants a second factor of this account. */
  required: boolean;
  /** By when (ms), as long as there is none; null where nobody waits for one. */
  due: number | null;
}

export interface TotpEnrolment {
  /** For those who cannot scan. */
  secret: string;
  /** A PNG of the QR code. */
  picture: Bytes;
  /** Until when (ms) it can be confirmed. */
  expires: number;
}

/** A passkey or an app password, by what its owner calls it. */
export interface Named {
  id: string;
  name: string;
  created: number;
  /** Null: never. */
  used: number | null;
}

export interface SignedInDevice {
  id: string;
  name: string;
  seen: number | null;
  /** The network address that it was last seen at, "" where the server does not tell. */
  address: string;
  current: boolean;
}

/** A device that shows a code, and asks for a session. */
export interface WaitingDevice {
  /** How it calls itself: whoever asks can have chosen it. "" where it does not. */
  name: string;
  /** The host of another client that it is, "" for this one. */
  client: string;
  /** The network address that it asks from, "" where the server does not tell. */
  address: string;
  since: number | null;
}

export interface EmailAddress {
  address: string;
  added: number;
}

/** Everything that the server has of the account, as one archive. */
export interface Export {
  state: "none" | "working" | "ready";
  /** How far it has come. */
  rooms: { done: number; total: number };
  /** Bytes, once it is ready. */
  size: number;
  /** When (ms) the server deletes it; null where that is not known yet. */
  expires: number | null;
}

/** What the server lets people change by themselves. */
export interface AccountAbilities {
  password: boolean;
  emails: boolean;
}

/** A mail is on its way; once its link was opened, the address can be added. */
export interface EmailProof {
  sid: string;
  secret: string;
}

function text(from: JsonObject, name: string): string {
  const value = from[name];
  if (typeof value !== "string") throw new ApiError(500, { error: `The answer of the server lacks ${name}.` });
  return value;
}

function maybeText(from: JsonObject, name: string): string {
  const value = from[name];
  return typeof value === "string" ? value : "";
}

function number(from: JsonObject, name: string): number | null {
  const value = from[name];
  return typeof value === "number" ? value : null;
}

function objects(value: Json | undefined): JsonObject[] {
  return (Array.isArray(value) ? value : []).filter(isJsonObject);
}

function texts(value: Json | undefined): string[] {
  return (Array.isArray(value) ? value : []).filter((item): item is string => typeof item === "string");
}

function named(list: Json | undefined): Named[] {
  return objects(list)
    .slice(0, maxItems)
    .map((item) => ({
      id: text(item, "id"),
      name: maybeText(item, "name"),
      created: number(item, "created_ts") ?? 0,
      used: number(item, "last_used_ts"),
    }));
}

export class AccountCare {
  private readonly who: Confirmer;

  constructor(
    private readonly api: Api,
    private readonly confirm: Confirm,
  ) {
    this.who = confirmerOf(api);
  }

  private confirmed(method: "POST" | "PUT" | "DELETE", path: string, body: JsonObject = {}): Promise<JsonObject> {
    return this.confirm(this.who, (auth?: Auth) =>
      this.api.send(method, path, { body: auth === undefined ? body : { ...body, auth } }),
    );
  }

  // Second factors.

  async factors(): Promise<Factors> {
    const answer = await this.api.send("GET", `${own}/factors`);
    return {
      totp: answer.totp === true,
      recoveryCodes: number(answer, "recovery_codes") ?? 0,
      passkeys: number(answer, "passkeys") ?? 0,
      passkeysAvailable: answer.passkeys_available === true,
      required: answer.required === true,
      due: number(answer, "due_ts"),
    };
  }

  async beginTotp(): Promise<TotpEnrolment> {
    const answer = await this.confirmed("POST", `${own}/totp/begin`);
    return {
      secret: text(answer, "secret"),
      picture: fromBase64(text(answer, "qr_png").replace(/=+$/, "")),
      expires: Date.now() + (number(answer, "expires_in_ms") ?? 0),
    };
  }

  /** Gives the recovery codes that come with the first second factor; none where there were some. */
  async confirmTotp(code: string): Promise<string[]> {
    return texts((await this.api.send("POST", `${own}/totp/confirm`, { body: { code } })).recovery_codes);
  }

  async removeTotp(): Promise<void> {
    await this.confirmed("POST", `${own}/totp/remove`);
  }

  /** The old ones end. */
  async newRecoveryCodes(): Promise<string[]> {
    return texts((await this.confirmed("POST", `${own}/recovery_codes`)).recovery_codes);
  }

  // Passkeys.

  async passkeys(): Promise<Named[]> {
    return named((await this.api.send("GET", `${own}/passkeys`)).passkeys);
  }

  async beginPasskey(): Promise<PasskeyChallenge> {
    return challengeIn(await this.confirmed("POST", `${own}/passkeys/begin`));
  }

  /** Gives the recovery codes that come with the first second factor. */
  async finishPasskey(challenge: string, name: string, credential: Record<string, unknown>): Promise<string[]> {
    const answer = await this.api.send("POST", `${own}/passkeys/finish`, { body: { challenge, name, credential } });
    return texts(answer.recovery_codes);
  }

  async renamePasskey(id: string, name: string): Promise<void> {
    await this.confirmed("PUT", `${own}/passkeys/${encodeURIComponent(id)}`, { name });
  }

  async removePasskey(id: string): Promise<void> {
    await this.confirmed("DELETE", `${own}/passkeys/${encodeURIComponent(id)}`);
  }

  // App passwords.

  async appPasswords(): Promise<Named[]> {
    return named((await this.api.send("GET", `${own}/app_passwords`)).app_passwords);
  }

  /** The password, which the server tells this once. */
  async addAppPassword(name: string): Promise<string> {
    return text(await this.confirmed("POST", `${own}/app_passwords`, { name }), "password");
  }

  async removeAppPassword(id: string): Promise<void> {
    await this.api.send("DELETE", `${own}/app_passwords/${encodeURIComponent(id)}`);
  }

  // Sessions.

  /** This device first, then by when they were seen last. */
  async devices(): Promise<SignedInDevice[]> {
    const { deviceId } = this.api.credentials;
    return objects((await this.api.call("GET", "/devices")).devices)
      .map((device) => ({
        id: text(device, "device_id"),
        name: maybeText(device, "display_name"),
        seen: number(device, "last_seen_ts"),
        address: maybeText(device, "last_seen_ip"),
        current: device.device_id === deviceId,
      }))
      .sort((a, b) => Number(b.current) - Number(a.current) || (b.seen ?? 0) - (a.seen ?? 0))
      .slice(0, maxItems);
  }

  async renameDevice(id: string, name: string): Promise<void> {
    await this.api.call("PUT", `/devices/${encodeURIComponent(id)}`, { body: { display_name: name } });
  }

  async signOutDevices(ids: string[]): Promise<void> {
    await this.confirmed("POST", "/_matrix/client/v3/delete_devices", { devices: ids });
  }

  // Devices that wait to be let in, by the code that they show (M_NOT_FOUND: none waits with it).

  async lookAtLink(code: string): Promise<WaitingDevice> {
    const answer = await this.api.send("POST", `${own}/link/look`, { body: { user_code: code } });
    return {
      name: maybeText(answer, "device_display_name"),
      client: maybeText(answer, "client"),
      address: maybeText(answer, "address"),
      since: number(answer, "since_ts"),
    };
  }

  /** Opens a session of this account for it. */
  async allowLink(code: string): Promise<void> {
    await this.confirmed("POST", `${own}/link/allow`, { user_code: code });
  }

  async refuseLink(code: string): Promise<void> {
    await this.api.send("POST", `${own}/link/refuse`, { body: { user_code: code } });
  }

  // The account.

  async abilities(): Promise<AccountAbilities> {
    const { capabilities } = await this.api.call("GET", "/capabilities");
    // What a server does not mention, it has (client-server API, "Capabilities negotiation").
    const has = (name: string): boolean => {
      const found = isJsonObject(capabilities) ? capabilities[name] : undefined;
      return !isJsonObject(found) || found.enabled !== false;
    };
    return { password: has("m.change_password"), emails: has("m.3pid_changes") };
  }

  async changePassword(password: string, signOutOthers: boolean): Promise<void> {
    const body = { new_password: password, logout_devices: signOutOthers };
    await this.confirmed("POST", "/_matrix/client/v3/account/password", body);
  }

  async emails(): Promise<EmailAddress[]> {
    return objects((await this.api.call("GET", "/account/3pid")).threepids)
      .filter(({ medium }) => medium === "email")
      .slice(0, maxItems)
      .map((email) => ({ address: text(email, "address"), added: number(email, "added_at") ?? 0 }));
  }

  /** Sends a mail; with the same secret and a higher attempt another one. */
  async mailTo(email: string, secret: string, attempt: number): Promise<EmailProof> {
    const body = { client_secret: secret, email, send_attempt: attempt };
    return { sid: text(await this.api.call("POST", "/account/3pid/email/requestToken", { body }), "sid"), secret };
  }

  /** False while the link in the mail was not opened. */
  async addEmail({ sid, secret }: EmailProof): Promise<boolean> {
    try {
      await this.confirmed("POST", "/_matrix/client/v3/account/3pid/add", { sid, client_secret: secret });
      return true;
    } catch (error) {
      if (error instanceof ApiError && error.errcode === "M_THREEPID_AUTH_FAILED") return false;
      throw error;
    }
  }

  async removeEmail(address: string): Promise<void> {
    await this.api.call("POST", "/account/3pid/delete", { body: { medium: "email", address } });
  }

  async export(): Promise<Export> {
    return exportIn(await this.api.send("GET", `${own}/export`));
  }

  async beginExport(): Promise<Export> {
    return exportIn(await this.confirmed("POST", `${own}/export`));
  }

  async dropExport(): Promise<void> {
    await this.api.send("DELETE", `${own}/export`);
  }

  downloadExport(onProgress: (done: number) => void, signal: AbortSignal): Promise<Blob> {
    return this.api.download(`${own}/export/download`, onProgress, signal);
  }

  /** Ends the account for good. */
  async close(erase: boolean): Promise<void> {
    await this.confirmed("POST", "/_matrix/client/v3/account/deactivate", { erase });
  }
}

function exportIn(answer: JsonObject): Export {
  const { state } = answer;
  return {
    state: state === "working" || state === "ready" ? state : "none",
    rooms: { done: number(answer, "rooms_done") ?? 0, total: number(answer, "rooms_total") ?? 0 },
    size: number(answer, "size") ?? 0,
    expires: number(answer, "expires_ts"),
  };
}

function challengeIn(answer: JsonObject): PasskeyChallenge {
  return { options: answer.options, challenge: text(answer, "challenge") };
}

/** Whoever is signed in with these credentials, to confirm something. */
export function confirmerOf(api: Api, password?: string): Confirmer {
  return {
    userId: api.credentials.userId,
    password,
    passkeyChallenge: async () => challengeIn(await api.send("POST", `${own}/passkeys/challenge`, { body: {} })),
  };
}
