/** Somebody on the way to a session: a name and a password, what the account asks for beyond that, or another way in. */
import { createStore, type StoreApi } from "zustand/vanilla";
import { t } from "../i18n";
import {
  endSession,
  isAwaiting,
  logInPassword,
  loginWays,
  logInToken,
  openSignIn,
  passkeyChallenge,
  providerPage,
  renewing,
  signingInOf,
  signInFactor,
  signInPassword,
  signInPasskey,
  usePasskey as showPasskey,
  type Credentials,
  type FactorType,
  type FactorAnswer,
  type LoginWays,
  type PasskeyProblem,
  type Provider,
  type SigningIn,
  type WantedDevice,
} from "../sdk";
import { describe, errcodeOf, waitOf } from "./failed";

export interface SignInState {
  /** What the server offers; null while it was not asked. */
  ways: LoginWays | null;
  /** The kinds of second factor of which one is wanted now; null where the first step is still to be done. */
  needs: FactorType[] | null;
  chosen: FactorType | null;
  busy: boolean;
  /** One sentence on why it did not go on. */
  failure: string | null;
  /** Nothing is tried before, in ms. */
  waitUntil: number | null;
}

export interface SignIn {
  readonly state: StoreApi<SignInState>;
  /** Who has to sign in, where that is settled: whoever's session this browser keeps. */
  readonly userId: string | null;
  /** Asks what the server offers. Failing is no failure: a name and a password are tried all the same. */
  look(): Promise<void>;
  password(user: string, password: string): Promise<void>;
  passkey(): Promise<void>;
  token(token: string): Promise<void>;
  /** Goes on with a sign-in that another device has let in. */
  linked(signingIn: SigningIn): Promise<void>;
  choose(factor: FactorType): void;
  /** Shows a second factor; the code of "passkey" is asked of the browser. Says whether the server has looked at it. */
  factor(code?: string): Promise<boolean>;
  /** Back to the first step. */
  restart(): void;
  /** Where the organization's sign-in begins. */
  providerPage(provider: Provider, back: string): string;
}

export interface SignInOptions {
  baseUrl: string;
  device: WantedDevice;
  /** Of the session that is to go on, or null. */
  userId: string | null;
  onEntered(credentials: Credentials, password: string | undefined): Promise<void>;
}

/** The order in which they are offered: what is at hand first. */
const preferred: FactorType[] = ["totp", "passkey", "recovery"];

/** Whether somebody still waits for what a step brings: they may have gone back to the first one. */
type Wanted = () => boolean;

/** A sign-in of a session that this browser keeps, by somebody else. */
class SomebodyElse extends Error {}

export function createSignIn({ baseUrl, device, userId, onEntered }: SignInOptions): SignIn {
  const idle: Omit<SignInState, "ways"> = { needs: null, chosen: null, busy: false, failure: null, waitUntil: null };
  const state = createStore<SignInState>(() => ({ ways: null, ...idle }));
  let under: SigningIn | null = null;
  let typed: string | undefined;
  let asked: Promise<LoginWays> | undefined;
  /** Rises whenever it begins anew: what comes back from a step of before counts no more. */
  let turn = 0;

  function ways(): Promise<LoginWays> {
    asked ??= loginWays(baseUrl).catch((error: unknown) => {
      asked = undefined;
      throw error;
    });
    return asked;
  }

  async function look(): Promise<void> {
    try {
      state.setState({ ways: await ways() });
    } catch {
      // Whoever signs in is told then.
    }
  }

  function restart(failure: string | null = null): void {
    turn++;
    under = null;
    typed = undefined;
    state.setState({ ...idle, failure });
  }

  async function enter(open: () => Promise<Credentials>, wanted: Wanted): Promise<void> {
    // One of a device that is kept ends that of before, which another tab may have.
    await (device.id === undefined ? opening() : renewing(opening));

    async function opening(): Promise<void> {
      const credentials = await open();
      const other = userId !== null && credentials.userId !== userId;
      if (other || !wanted()) await endSession(credentials);
      if (other) throw new SomebodyElse();
      if (!wanted()) return;
      await onEntered(credentials, typed);
      restart();
    }
  }

  /** Opens the session, or asks for what is missing. */
  async function goOn(next: SigningIn, wanted: Wanted): Promise<void> {
    if (!wanted()) return;
    under = next;
    if (next.needs.length === 0) {
      await enter(() => openSignIn(baseUrl, next.secret, device), wanted);
      return;
    }
    const needs = preferred.filter((factor) => next.needs.includes(factor));
    state.setState({ needs, chosen: needs[0] ?? null, busy: false });
  }

  /** Does one step. What goes wrong becomes a sentence; `wrong` is the one for what was not right. */
  async function step(wrong: string, work: (wanted: Wanted) => Promise<void>): Promise<void> {
    if (state.getState().busy) return;
    const mine = turn;
    const wanted: Wanted = () => mine === turn;
    state.setState({ busy: true, failure: null, waitUntil: null });
    try {
      await work(wanted).catch((error: unknown) => {
        const further = signingInOf(error);
        if (further === null) throw error;
        return goOn(further, wanted);
      });
    } catch (error) {
      if (wanted()) fail(error, wrong);
    } finally {
      if (wanted()) state.setState({ busy: false });
    }
  }

  function fail(error: unknown, wrong: string): void {
    const code = errcodeOf(error);
    if (under === null) typed = undefined;
    if (error instanceof SomebodyElse) return restart(t("signIn.somebodyElse", { user: userId ?? "" }));
    if (isAwaiting(error)) return restart(t("signIn.awaiting"));
    if (code === "M_LIMIT_EXCEEDED") {
      const wait = waitOf(error);
      state.setState({ failure: describe(error), waitUntil: wait === null ? null : Date.now() + wait });
      return;
    }
    // What cannot be mended by another code begins anew.
    if (code === "M_USER_LOCKED" || code === "M_USER_DEACTIVATED") return restart(describe(error));
    if (under !== null && (under.expires <= Date.now() || under.needs.length === 0)) {
      return restart(code === "M_FORBIDDEN" ? t("signIn.expired") : describe(error));
    }
    state.setState({ failure: code === "M_FORBIDDEN" ? wrong : describe(error) });
  }

  /** Asks the browser for a passkey; null, and a sentence, where it gives none. */
  async function askPasskey(
    wanted: Wanted,
    secret?: string,
  ): Promise<{ challenge: string; credential: Record<string, unknown> } | null> {
    const { options, challenge } = await passkeyChallenge(baseUrl, secret).catch((error: unknown) => {
      if (errcodeOf(error) === "M_UNRECOGNIZED") throw new Error(t("signIn.noPasskeys"));
      throw error;
    });
    const outcome = await showPasskey(options);
    if (!wanted()) return null;
    if (outcome.ok) return { challenge, credential: outcome.credential };
    state.setState({ failure: sayPasskey(outcome.problem) });
    return null;
  }

  return {
    state,
    userId,
    look,
    restart: () => restart(),
    providerPage: (provider, back) => providerPage(baseUrl, provider, back),
    choose: (chosen) => state.setState({ chosen, failure: null }),
    password: (user, password) =>
      step(t("signIn.wrong"), async (wanted) => {
        typed = password;
        const name = userId ?? user;
        if ((await ways()).steps) await goOn(await signInPassword(baseUrl, name, password), wanted);
        else await enter(() => logInPassword(baseUrl, name, password, device), wanted);
      }),
    passkey: () =>
      step(t("signIn.wrongPasskey"), async (wanted) => {
        const shown = await askPasskey(wanted);
        if (shown !== null) await goOn(await signInPasskey(baseUrl, shown.challenge, shown.credential), wanted);
      }),
    token: (token) => step(t("signIn.tokenOver"), (wanted) => enter(() => logInToken(baseUrl, token, device), wanted)),
    linked: (signingIn) => step(t("signIn.tokenOver"), (wanted) => goOn(signingIn, wanted)),
    factor: async (code = "") => {
      const { chosen } = state.getState();
      const going = under;
      if (going === null || chosen === null) return false;
      const wrong = {
        totp: "signIn.wrongCode",
        recovery: "signIn.wrongRecovery",
        passkey: "signIn.wrongPasskey",
      } as const;
      await step(t(wrong[chosen]), async (wanted) => {
        let answer: FactorAnswer;
        if (chosen === "passkey") {
          const shown = await askPasskey(wanted, going.secret);
          if (shown === null) return;
          answer = { type: "passkey", ...shown };
        } else {
          answer = { type: chosen, code: chosen === "totp" ? code.replace(/\D/g, "") : code.trim() };
        }
        await goOn(await signInFactor(baseUrl, going.secret, answer), wanted);
      });
      const { failure } = state.getState();
      return failure === null || failure === t(wrong[chosen]);
    },
  };
}

/** One sentence on why there is no passkey. */
export function sayPasskey(problem: PasskeyProblem): string {
  switch (problem) {
    case "cancelled":
      return t("signInPasskey.cancelled");
    case "unsupported":
      return t("signInPasskey.unsupported");
    case "exists":
      return t("signInPasskey.exists");
    case "wrong_site":
      return t("signInPasskey.wrongSite");
    case "failed":
      return t("signInPasskey.failed");
  }
}
