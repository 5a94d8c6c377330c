/** The pages of the account in their states, and the dialogs that belong to them. */
import type { ReactNode } from "react";
import { Enrol } from "../features/security/Authenticator";
import { CodesDialog } from "../features/security/Codes";
import { ConfirmDialog } from "../features/security/ConfirmDialog";
import { t } from "../i18n";
import { ApiError } from "../sdk";
import type { Account } from "../stores/account";
import type { FactorType, Refusal, Step } from "../stores/confirm";
import { cell } from "../stores/observable";
import { Dialog } from "../ui/overlay";
import { asking, codes, enrolment, fakeAccount, sessions, without } from "./account";

export interface State {
  /** The address that the client shows in this state. */
  path: string;
  render(): ReactNode;
}

type Page = "security" | "sessions" | "account";
const never = <T,>(): Promise<T> => new Promise<T>(() => {});
const offline = (): Promise<never> => Promise.reject(new ApiError(0, { error: "The server cannot be reached." }));

const password: Step = { kind: "password" };
const factor = (...types: FactorType[]): Step => ({ kind: "factor", types });
const page: Step = { kind: "elsewhere", stage: "m.login.sso", path: "/gallery" };

/** `chat` shows the client with an account. */
export function securityStates(chat: (state: { account: Account }) => ReactNode): Record<string, State> {
  const at = (where: Page, account: Parameters<typeof fakeAccount>[0] = {}): State => ({
    path: `/settings/${where}`,
    render: () => chat({ account: fakeAccount(account) }),
  });
  const question = (steps: Step[], refusal: Refusal | null = null, busy = false): State => ({
    path: "/settings/security",
    render: () => (
      <>
        {chat({ account: fakeAccount() })}
        <ConfirmDialog confirming={asking(steps, refusal, busy)} />
      </>
    ),
  });
  return {
    security: at("security"),
    "security-off": at("security", { factors: without, passkeys: async () => [], appPasswords: async () => [] }),
    "security-few-codes": at("security", { factors: { recoveryCodes: 2 } }),
    "security-demanded": at("security", {
      factors: { ...without, required: true, due: Date.now() + 6 * 86_400_000 },
      passkeys: async () => [],
    }),
    "security-overdue": at("security", {
      factors: { ...without, required: true, due: 1, passkeysAvailable: false },
      passkeys: async () => [],
      appPasswords: offline,
    }),
    "security-loading": at("security", { factors: never, passkeys: never, appPasswords: never }),
    "security-offline": at("security", { factors: offline, passkeys: offline, appPasswords: offline }),
    sessions: at("sessions"),
    "sessions-only": at("sessions", { sessions: async () => sessions.slice(0, 1) }),
    "sessions-loading": at("sessions", { sessions: never }),
    "sessions-offline": at("sessions", { sessions: offline }),
    "let-in": at("sessions", { arrivedLink: cell("WDJB-MJHT") }),
    "let-in-client": at("sessions", {
      arrivedLink: cell("WDJB-MJHT"),
      lookAtLink: async () => ({ name: "Tasks", client: "tasks.northwind.org", address: "", since: null }),
    }),
    "let-in-unknown": at("sessions", {
      arrivedLink: cell("WDJB-MJHT"),
      lookAtLink: () => Promise.reject(new ApiError(404, { errcode: "M_NOT_FOUND", error: "unknown" })),
    }),
    account: at("account"),
    "account-waiting": at("account", { waitingEmail: cell({ address: "alice.weber@harbour.example" }) }),
    "account-elsewhere": at("account", {
      abilities: async () => ({ password: false, emails: false }),
      emails: async () => [],
    }),
    "account-export-working": at("account", {
      export: async () => ({ state: "working", rooms: { done: 5, total: 14 }, size: 0, expires: null }),
    }),
    "account-export-ready": at("account", {
      export: async () => ({
        state: "ready",
        rooms: { done: 14, total: 14 },
        size: 48_300_000,
        expires: Date.now() + 6 * 86_400_000,
      }),
    }),
    confirm: question([password]),
    "confirm-wrong": question([password, page], { why: "wrong" }),
    "confirm-code": question([factor("totp", "passkey", "recovery")]),
    "confirm-limited": question([factor("totp")], { why: "limited", until: Date.now() + 900_000 }),
    "confirm-recovery": question([factor("recovery")], { why: "wrong" }),
    "confirm-passkey": question([factor("passkey", "recovery")]),
    "confirm-page": question([page], { why: "unfinished" }),
    "confirm-busy": question([password], null, true),
    enrol: {
      path: "/settings/security",
      render: () => (
        <Dialog open onOpenChange={() => {}} title={t("security.enrolTitle")} description={t("security.enrolScan")}>
          <Enrol enrolment={enrolment()} account={fakeAccount()} onDone={() => {}} />
        </Dialog>
      ),
    },
    "recovery-codes": {
      path: "/settings/security",
      render: () => <CodesDialog codes={codes} userId="@alice:northwind.org" onKept={() => {}} />,
    },
  };
}
