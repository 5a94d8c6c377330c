/** What people see and change of their own account. `openAccount` makes it from a session; the gallery makes one of fixtures. */
import {
  type AccountCare,
  type Confirm,
  createPasskey,
  type DeviceStanding,
  type EmailProof,
  hasPasskeys,
  type Observable,
  type PasskeyProblem,
  type Session,
  type SignedInDevice,
} from "../sdk";
import { arrivedLink, forgetLink } from "./arrivedLink";
import { cell } from "./observable";

export type { AccountAbilities, EmailAddress, Export, Factors, Named, TotpEnrolment, WaitingDevice } from "../sdk";
export type { PasskeyProblem };

/** `withoutKeys`: the device has published no keys, as clients without encryption. `unknown`: nobody could be asked. */
export interface SignedIn extends SignedInDevice {
  standing: DeviceStanding | "withoutKeys" | "unknown";
}

/** An address whose mail is on its way. */
export interface WaitingEmail {
  address: string;
}

/** A passkey that the server waits for. */
export interface NewPasskey {
  /** Asks the browser, then the server. Gives the recovery codes that come with the first second factor, or what stands in the way. */
  make(name: string): Promise<{ codes: string[] } | { problem: PasskeyProblem }>;
}

type Passed =
  | "factors"
  | "beginTotp"
  | "confirmTotp"
  | "removeTotp"
  | "newRecoveryCodes"
  | "passkeys"
  | "renamePasskey"
  | "removePasskey"
  | "appPasswords"
  | "addAppPassword"
  | "removeAppPassword"
  | "renameDevice"
  | "signOutDevices"
  | "lookAtLink"
  | "allowLink"
  | "refuseLink"
  | "abilities"
  | "changePassword"
  | "emails"
  | "removeEmail"
  | "export"
  | "beginExport"
  | "dropExport"
  | "downloadExport";

export interface Account extends Pick<AccountCare, Passed> {
  /** Whether this browser can make passkeys here. */
  readonly canMakePasskeys: boolean;
  sessions(): Promise<SignedIn[]>;
  /** The code of a device to let in that somebody has come here with; null where there is none. */
  readonly arrivedLink: Observable<string | null>;
  forgetLink(): void;
  addPasskey(): Promise<NewPasskey>;
  /** Recovery codes that the server has just told, and nobody has said yet to have kept: they are told once. Empty where there are none. */
  readonly freshCodes: Observable<string[]>;
  showCodes(codes: string[]): void;
  /** They are kept, and forgotten here. */
  codesKept(): void;
  /** The address that is being added; null if there is none. */
  readonly waitingEmail: Observable<WaitingEmail | null>;
  mailTo(address: string): Promise<void>;
  mailAgain(): Promise<void>;
  /** False while the link in the mail was not opened. */
  finishEmail(): Promise<boolean>;
  forgetEmail(): void;
  /** Closes the account, and forgets it in this browser. */
  close(erase: boolean): Promise<void>;
}

export function openAccount(session: Session, confirm: Confirm, onClosed: () => Promise<void>): Account {
  const care = session.account(confirm);
  const freshCodes = cell<string[]>([]);
  return {
    factors: () => care.factors(),
    beginTotp: () => care.beginTotp(),
    confirmTotp: (code) => care.confirmTotp(code),
    removeTotp: () => care.removeTotp(),
    newRecoveryCodes: () => care.newRecoveryCodes(),
    passkeys: () => care.passkeys(),
    renamePasskey: (id, name) => care.renamePasskey(id, name),
    removePasskey: (id) => care.removePasskey(id),
    appPasswords: () => care.appPasswords(),
    addAppPassword: (name) => care.addAppPassword(name),
    removeAppPassword: (id) => care.removeAppPassword(id),
    renameDevice: (id, name) => care.renameDevice(id, name),
    signOutDevices: (ids) => care.signOutDevices(ids),
    lookAtLink: (code) => care.lookAtLink(code),
    allowLink: (code) => care.allowLink(code),
    refuseLink: (code) => care.refuseLink(code),
    arrivedLink,
    forgetLink,
    abilities: () => care.abilities(),
    changePassword: (password, signOutOthers) => care.changePassword(password, signOutOthers),
    emails: () => care.emails(),
    removeEmail: (address) => care.removeEmail(address),
    export: () => care.export(),
    beginExport: () => care.beginExport(),
    dropExport: () => care.dropExport(),
    downloadExport: (onProgress, signal) => care.downloadExport(onProgress, signal),
    canMakePasskeys: hasPasskeys(),
    sessions: () => sessions(session, care),
    async addPasskey() {
      const { options, challenge } = await care.beginPasskey();
      return {
        async make(name) {
          const outcome = await createPasskey(options);
          if (!outcome.ok) return { problem: outcome.problem };
          return { codes: await care.finishPasskey(challenge, name, outcome.credential) };
        },
      };
    },
    freshCodes,
    showCodes: (codes) => freshCodes.set(codes),
    codesKept: () => freshCodes.set([]),
    ...emailBeingAdded(care),
    async close(erase) {
      await care.close(erase);
      await onClosed();
    },
  };
}

async function sessions(session: Session, care: AccountCare): Promise<SignedIn[]> {
  const [devices, standings] = await Promise.all([
    care.devices(),
    // The list is worth having without it.
    session.ownDevices().catch(() => null),
  ]);
  return devices.map((device) => ({
    ...device,
    standing: standings === null ? "unknown" : (standings.get(device.id) ?? "withoutKeys"),
  }));
}

type EmailParts = Pick<Account, "waitingEmail" | "mailTo" | "mailAgain" | "finishEmail" | "forgetEmail">;

/** It outlives the page that shows it: whoever looks elsewhere meanwhile finds it again. */
function emailBeingAdded(care: AccountCare): EmailParts {
  const waiting = cell<(WaitingEmail & { proof: EmailProof; attempt: number }) | null>(null);
  return {
    waitingEmail: waiting,
    async mailTo(address) {
      const proof = await care.mailTo(address, crypto.randomUUID(), 1);
      waiting.set({ address, proof, attempt: 1 });
    },
    async mailAgain() {
      const now = waiting.get();
      if (now === null) return;
      const attempt = now.attempt + 1;
      const proof = await care.mailTo(now.address, now.proof.secret, attempt);
      if (waiting.get() === now) waiting.set({ ...now, proof, attempt });
    },
    async finishEmail() {
      const now = waiting.get();
      if (now === null) return true;
      const added = await care.addEmail(now.proof);
      if (added && waiting.get() === now) waiting.set(null);
      return added;
    },
    forgetEmail: () => waiting.set(null),
  };
}
