/** A new password for whoever has lost the old one, by an address of the account. */
import { createStore, type StoreApi } from "zustand/vanilla";
import { t } from "../i18n";
import { ApiError, linkLastsMs, requestMail, resetPassword, type AddressProof } from "../sdk";
import { describe, errcodeOf, waitOf } from "./failed";
import { watch } from "./watch";

export interface ResetState {
  step: "address" | "password" | "done";
  busy: boolean;
  failure: string | null;
  waitUntil: number | null;
  /** What is wrong with the address, or with the password. */
  wrong: string | null;
  proof: AddressProof | null;
  /** The password is set as soon as the link in the mail is opened. */
  waiting: boolean;
  everywhere: boolean;
}

export interface Reset {
  readonly state: StoreApi<ResetState>;
  request(address: string): Promise<unknown>;
  /** Whether another mail was sent. */
  resend(): Promise<boolean>;
  finish(password: string, everywhere: boolean): Promise<unknown>;
  /** Back to the address. */
  change(): void;
  stop(): void;
}

const pollMs = 10_000;

export function createReset(baseUrl: string): Reset {
  const state = createStore<ResetState>(() => ({
    step: "address",
    busy: false,
    failure: null,
    waitUntil: null,
    wrong: null,
    proof: null,
    waiting: false,
    everywhere: true,
  }));
  let unwatch: () => void = () => undefined;
  /** Nobody is there any more who would wait. */
  let left = false;
  /** Rises whenever somebody goes back to the address: what comes back from before leads nobody away from there. */
  let turn = 0;

  /** Whether it worked. */
  async function step(work: () => Promise<void>): Promise<boolean> {
    if (state.getState().busy) return false;
    left = false;
    const mine = turn;
    state.setState({ busy: true, failure: null, wrong: null, waitUntil: null });
    try {
      await work();
      return true;
    } catch (error) {
      if (mine === turn) fail(error);
      return false;
    } finally {
      state.setState({ busy: false });
    }
  }

  function fail(error: unknown): void {
    const code = errcodeOf(error);
    const first = state.getState().step === "address";
    if (code === "M_INVALID_PARAM" && first) return state.setState({ wrong: t("reset.emailBad") });
    if (code === "M_WEAK_PASSWORD") return state.setState({ wrong: t("signUp.passwordShort") });
    // A server that sends no mail, or none that knows this way.
    if (code === "M_THREEPID_MEDIUM_NOT_SUPPORTED" || code === "M_UNRECOGNIZED")
      return state.setState({ failure: t("reset.noMail") });
    const wait = code === "M_LIMIT_EXCEEDED" ? waitOf(error) : null;
    state.setState({ failure: describe(error), waitUntil: wait === null ? null : Date.now() + wait });
  }

  async function mail(address: string): Promise<void> {
    const mine = turn;
    const proof = await requestMail(baseUrl, "reset", address, state.getState().proof);
    state.setState(mine === turn ? { proof, step: "password" } : { proof });
  }

  /** Sets the password, if the link was opened by now. */
  async function attempt(password: string, everywhere: boolean): Promise<boolean> {
    const { proof } = state.getState();
    if (proof === null || !(await resetPassword(baseUrl, proof, password, everywhere))) return false;
    unwatch();
    state.setState({ step: "done", everywhere, waiting: false, proof: null });
    return true;
  }

  function waitForLink(password: string, everywhere: boolean): void {
    const proof = state.getState().proof;
    unwatch();
    if (proof === null || left) return;
    state.setState({ waiting: true });
    unwatch = watch({
      everyMs: pollMs,
      until: proof.sentAt + 2 * linkLastsMs, // what a link has confirmed stays good as long again
      look: async () => {
        try {
          await attempt(password, everywhere);
        } catch (error) {
          if (errcodeOf(error) === "M_LIMIT_EXCEEDED") return waitOf(error) ?? undefined;
          if (!(error instanceof ApiError) || error.status === 0 || error.status >= 500) throw error; // later
          unwatch();
          state.setState({ waiting: false });
          fail(error);
        }
      },
      onOver: () => state.setState({ waiting: false, failure: t("reset.over") }),
    });
  }

  return {
    state,
    request: (address) => step(() => mail(address.trim())),
    resend: () => step(() => mail(state.getState().proof?.address ?? "")),
    finish: (password, everywhere) =>
      step(async () => {
        unwatch();
        state.setState({ waiting: false });
        const mine = turn;
        if (!(await attempt(password, everywhere)) && mine === turn) waitForLink(password, everywhere);
      }),
    change() {
      turn++;
      unwatch();
      state.setState({ step: "address", waiting: false, failure: null, wrong: null });
    },
    stop() {
      left = true;
      unwatch();
    },
  };
}
