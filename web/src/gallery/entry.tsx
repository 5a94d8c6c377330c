/** The pages in front of a session, each in each of its states. */
import type { ReactNode } from "react";
import { createStore } from "zustand/vanilla";
import { Barred } from "../features/auth/Barred";
import { ByDevice } from "../features/auth/ByDevice";
import { Enrol } from "../features/auth/Enrol";
import { Reset } from "../features/auth/Reset";
import { SignIn } from "../features/auth/SignIn";
import { SignUp } from "../features/auth/SignUp";
import { t } from "../i18n";
import type { AddressProof } from "../sdk";
import type { LinkingState } from "../stores/linking";
import type { Reset as ResetModel, ResetState } from "../stores/reset";
import type { SignInState } from "../stores/signIn";
import type { SignUp as SignUpModel, SignUpState } from "../stores/signUp";
import { emptyDraft } from "../stores/signUpDraft";
import { fakeSignIn } from "../stores/testing/signIn";

const server = "northwind.org";
const nothing = (): void => {};
const done = async (): Promise<void> => {};
const proof = (sentAt: number): AddressProof => ({
  address: "carla.mendes@northwind.org",
  sid: "sid",
  secret: "secret",
  attempt: 1,
  sentAt,
});

export function fakeSignUp(state: Partial<SignUpState> = {}): SignUpModel {
  return {
    state: createStore<SignUpState>(() => ({
      step: "form",
      busy: false,
      failure: null,
      waitUntil: null,
      wrong: {},
      asks: { token: false, email: "no", reason: false },
      draft: emptyDraft,
      invited: null,
      resumed: false,
      policies: [],
      progress: 0,
      linkOver: false,
      page: null,
      ...state,
    })),
    password: () => "",
    open: done,
    invite: done,
    isNameFree: async (name) => name !== "alice",
    submit: done,
    agree: done,
    resend: async () => true,
    check: done,
    change: nothing,
    stop: nothing,
  };
}

function fakeReset(state: Partial<ResetState> = {}): ResetModel {
  return {
    state: createStore<ResetState>(() => ({
      step: "address",
      busy: false,
      failure: null,
      waitUntil: null,
      wrong: null,
      proof: null,
      waiting: false,
      everywhere: true,
      ...state,
    })),
    request: done,
    resend: async () => true,
    finish: done,
    change: nothing,
    stop: nothing,
  };
}

function signIn(
  state: Partial<SignInState> = {},
  rest: { ended?: "signed_out" | "soft"; userId?: string; toLetIn?: boolean } = {},
) {
  return (
    <SignIn
      server={server}
      model={fakeSignIn(state, rest.userId ?? null)}
      ended={rest.ended ?? null}
      toLetIn={rest.toLetIn === true}
      onSignUp={nothing}
      onForgot={nothing}
      onDevice={nothing}
      onSignOut={nothing}
    />
  );
}

const linkCode = (): LinkingState["code"] => ({
  typed: "WDJB-MJHT",
  url: "https://northwind.org/#/link?code=WDJB-MJHT",
  expires: Date.now() + 870_000,
});

function byDevice(state: Partial<LinkingState>, entering: Partial<SignInState> = {}): ReactNode {
  const linking = {
    state: createStore<LinkingState>(() => ({ at: "waiting", code: null, failure: null, ...state })),
    begin: done,
    stop: nothing,
  };
  return <ByDevice server={server} linking={linking} model={fakeSignIn(entering)} onSignIn={nothing} />;
}

function signUp(state: Partial<SignUpState> = {}): ReactNode {
  return <SignUp server={server} model={fakeSignUp(state)} onSignIn={nothing} />;
}

function reset(state: Partial<ResetState> = {}): ReactNode {
  return <Reset server={server} model={fakeReset(state)} onSignIn={nothing} />;
}

const draft = { ...emptyDraft, name: "carla", email: "carla.mendes@northwind.org", token: "Xk3_b9QmTz0aLw7e" };
const policies = [
  { id: "terms", version: "1", texts: { en: { name: "Terms of use", url: "https://northwind.org/terms" } } },
  {
    id: "privacy",
    version: "3",
    texts: { en: { name: "How we handle what we know of you", url: "https://northwind.org/privacy" } },
  },
];
const everything = { token: true, email: "required", reason: true } as const;

const enrol = (due: number | null, over: boolean): ReactNode => (
  <Enrol server={server} due={due} over={over} done={false} onGoOn={nothing} onSignOut={nothing}>
    {null}
  </Enrol>
);

/** By name; all of them are at the address `/`. */
export const entryStates: Record<string, () => ReactNode> = {
  "sign-in": () => signIn(),
  "sign-in-ended": () => signIn({}, { ended: "signed_out" }),
  "sign-in-soft": () => signIn({}, { ended: "soft", userId: "@carla:northwind.org" }),
  "sign-in-ways": () =>
    signIn({
      ways: {
        password: true,
        steps: true,
        providers: [
          { id: "oidc", name: "Northwind" },
          { id: "other", name: "The association of harbours and shipyards of the northern coast" },
          { id: null, name: null },
        ],
      },
    }),
  "sign-in-wrong": () => signIn({ failure: t("signIn.wrong") }),
  "sign-in-limited": () =>
    signIn({ failure: t("wait.limited", { wait: t("wait.minutes", { count: 3 }) }), waitUntil: Date.now() + 180_000 }),
  "sign-in-to-let-in": () => signIn({}, { toLetIn: true }),
  "by-device": () => byDevice({ code: linkCode() }),
  "by-device-offline": () => byDevice({ code: linkCode(), failure: t("failed.offline") }),
  "by-device-starting": () => byDevice({ at: "starting" }),
  "by-device-refused": () => byDevice({ at: "refused" }),
  "by-device-over": () => byDevice({ at: "over" }),
  "by-device-failed": () => byDevice({ at: "failed", failure: t("failed.offline") }),
  "by-device-entering": () => byDevice({ at: "allowed" }, { busy: true }),
  "by-device-not-entered": () => byDevice({ at: "allowed" }, { failure: t("signIn.expired") }),
  "factor-totp": () => signIn({ needs: ["totp", "passkey", "recovery"], chosen: "totp" }),
  "factor-wrong": () => signIn({ needs: ["totp", "recovery"], chosen: "totp", failure: t("signIn.wrongCode") }),
  "factor-recovery": () => signIn({ needs: ["totp", "recovery"], chosen: "recovery" }),
  "factor-passkey": () =>
    signIn({ needs: ["passkey", "recovery"], chosen: "passkey", failure: t("signInPasskey.cancelled") }),
  "sign-up": () => signUp(),
  "sign-up-invited": () =>
    signUp({ invited: true, draft: { ...emptyDraft, token: draft.token }, asks: { ...everything, email: "optional" } }),
  "sign-up-invited-bad": () =>
    signUp({ invited: false, draft: { ...emptyDraft, token: draft.token }, asks: { ...everything, reason: false } }),
  "sign-up-wrong": () =>
    signUp({
      draft,
      asks: everything,
      wrong: {
        name: t("signUp.nameTaken"),
        password: t("signUp.passwordShort"),
        email: t("signUp.emailDenied"),
        token: t("signUp.tokenBad"),
      },
      failure: t("signUp.refused", { said: "This token is for people with an e-mail address at northwind.org." }),
    }),
  "sign-up-resumed": () => signUp({ draft, asks: { ...everything, reason: false }, resumed: true }),
  "sign-up-closed": () => signUp({ step: "closed" }),
  "sign-up-asking": () => signUp({ step: "asking" }),
  "sign-up-offline": () => signUp({ step: "asking", failure: t("failed.offline") }),
  "sign-up-terms": () => signUp({ step: "terms", draft, policies }),
  "sign-up-mail": () => signUp({ step: "mail", draft: { ...draft, proof: proof(Date.now()) } }),
  "sign-up-mail-over": () => signUp({ step: "mail", draft: { ...draft, proof: proof(0) }, linkOver: true }),
  "sign-up-work": () => signUp({ step: "work", draft, progress: 0.4 }),
  "sign-up-page": () => signUp({ step: "page", draft, page: "https://northwind.org/_matrix/page" }),
  "sign-up-awaiting": () => signUp({ step: "awaiting", draft }),
  reset: () => reset(),
  "reset-wrong": () => reset({ wrong: t("reset.emailBad") }),
  "reset-password": () => reset({ step: "password", proof: proof(Date.now()) }),
  "reset-waiting": () => reset({ step: "password", proof: proof(0), waiting: true }),
  "reset-done": () => reset({ step: "done" }),
  barred: () => <Barred server={server} userId="@carla:northwind.org" onAgain={done} onSignOut={nothing} />,
  "enrol-due": () => enrol(Date.UTC(2031, 2, 4, 12), false),
  "enrol-over": () => enrol(Date.UTC(2031, 2, 4, 12), true),
};
