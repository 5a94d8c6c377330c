/** Making an account: what the server asks for, one step after the other, and where one is after a reload. */
import { createStore, type StoreApi } from "zustand/vanilla";
import { t } from "../i18n";
import {
  addressAuth,
  ApiError,
  fallbackPage,
  isAwaiting,
  isNameFree,
  isTokenValid,
  linkLastsMs,
  nextStage,
  register,
  registrationInfo,
  requestMail,
  solve,
  stages,
  type AddressProof,
  type Challenge,
  type Credentials,
  type Policy,
  type RegistrationInfo,
} from "../sdk";
import { describe, errcodeOf, waitOf } from "./failed";
import { clearDraft, emptyDraft, keepDraft, keptDraft, type Draft } from "./signUpDraft";
import { watch } from "./watch";

export type SignUpStep =
  /** What the server asks for is not known yet; `failure` says why it cannot be. */
  | "asking"
  | "closed"
  | "form"
  | "terms"
  | "mail"
  | "work"
  /** A stage that only a page of the server knows. */
  | "page"
  /** An administrator has to approve the account. */
  | "awaiting";

export type SignUpField = "name" | "password" | "token" | "email";

export interface SignUpState {
  step: SignUpStep;
  busy: boolean;
  failure: string | null;
  waitUntil: number | null;
  wrong: Partial<Record<SignUpField, string>>;
  asks: { token: boolean; email: "no" | "optional" | "required"; reason: boolean };
  draft: Draft;
  /** What the server says of the invitation that a link brought; null while it has said nothing. */
  invited: boolean | null;
  /** Somebody was here before a reload, and only has to enter the password again. */
  resumed: boolean;
  policies: Policy[];
  /** Of the work, from 0 to 1. */
  progress: number;
  /** The link in the mail is too old by now. */
  linkOver: boolean;
  page: string | null;
}

export interface SignUpValues {
  name: string;
  password: string;
  token: string;
  email: string;
  reason: string;
}

export interface SignUp {
  readonly state: StoreApi<SignUpState>;
  /** What was typed last, for as long as this page is there. */
  password(): string;
  /** Asks what the server asks for. */
  open(): Promise<void>;
  /** Takes the token of an invitation link, and asks whether it is good. */
  invite(token: string): Promise<void>;
  isNameFree(name: string): Promise<boolean>;
  submit(values: SignUpValues): Promise<void>;
  /** All documents that were shown are agreed to. */
  agree(): Promise<void>;
  /** Whether another mail was sent. */
  resend(): Promise<boolean>;
  /** Looks whether what is done elsewhere is done: a link opened, a page finished. */
  check(): Promise<void>;
  /** Back to what was entered, to change it. */
  change(): void;
  /** Leaves the account that waits for approval, and begins with another. */
  another(): Promise<void>;
  /** Ends what runs. */
  stop(): void;
}

export interface SignUpOptions {
  baseUrl: string;
  deviceName: string;
  onEntered(credentials: Credentials, password: string): Promise<void>;
}

/** No server has more stages; one that keeps asking is not followed. */
const maxRounds = 12;
const pollMs = 10_000;
const pageLastsMs = 15 * 60_000;
/** How long a busy server is waited for without asking the person to. */
const patience = { waitMs: 15_000, times: 3 };

function asksOf(info: RegistrationInfo): SignUpState["asks"] {
  const mails = info.flows.filter((flow) => flow.includes(stages.email)).length;
  return {
    token: info.flows.length > 0 && info.flows.every((flow) => flow.includes(stages.token)),
    email: mails === 0 ? "no" : mails === info.flows.length ? "required" : "optional",
    reason: info.approval,
  };
}

const termsOf = (policies: Policy[]): string => JSON.stringify(policies.map(({ id, version }) => [id, version]));

/** Asks again by itself where the server only wants a moment. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (let time = 1; ; time++) {
    try {
      return await ask();
    } catch (error) {
      const wait = errcodeOf(error) === "M_LIMIT_EXCEEDED" ? waitOf(error) : null;
      if (wait === null || wait > patience.waitMs || time >= patience.times) throw error;
      await new Promise((next) => setTimeout(next, wait));
    }
  }
}

export function createSignUp({ baseUrl, deviceName, onEntered }: SignUpOptions): SignUp {
  return new SigningUp(baseUrl, deviceName, onEntered);
}

class SigningUp implements SignUp {
  readonly state: StoreApi<SignUpState>;
  /** In memory alone, and gone with the page. */
  private typed = "";
  private running = false;
  /** Rises whenever somebody goes back to what they entered: what comes back from before leads nobody away from there. */
  private turn = 0;
  /** Nobody is there any more who would wait. */
  private left = false;
  private unwatch: () => void = () => undefined;
  private work: AbortController | null = null;

  constructor(
    private readonly baseUrl: string,
    private readonly deviceName: string,
    private readonly onEntered: SignUpOptions["onEntered"],
  ) {
    this.state = createStore<SignUpState>(() => ({
      step: "asking",
      busy: false,
      failure: null,
      waitUntil: null,
      wrong: {},
      asks: { token: false, email: "no", reason: false },
      draft: keptDraft() ?? emptyDraft,
      invited: null,
      resumed: false,
      policies: [],
      progress: 0,
      linkOver: false,
      page: null,
    }));
  }

  private get draft(): Draft {
    return this.state.getState().draft;
  }

  private keep(change: Partial<Draft>): void {
    const draft = { ...this.draft, ...change };
    this.state.setState({ draft });
    keepDraft(draft);
  }

  private show(step: SignUpStep, rest: Partial<SignUpState> = {}): void {
    this.unwatch();
    this.state.setState({ step, failure: null, waitUntil: null, wrong: {}, ...rest });
  }

  password(): string {
    return this.typed;
  }

  async open(): Promise<void> {
    this.left = false;
    if (this.draft.awaiting) return this.show("awaiting");
    this.show("asking");
    try {
      const info = await patiently(() => registrationInfo(this.baseUrl));
      if (!info.open) return this.show("closed");
      this.show("form", { asks: asksOf(info), resumed: this.draft.session !== "" });
    } catch (error) {
      this.state.setState({ failure: describe(error) });
    }
  }

  async invite(token: string): Promise<void> {
    const waited = this.draft.awaiting;
    this.keep({ token, awaiting: false });
    if (waited) await this.open();
    try {
      this.state.setState({ invited: await patiently(() => isTokenValid(this.baseUrl, token)) });
    } catch {
      // Making the account will say whether it is good.
    }
  }

  isNameFree(name: string): Promise<boolean> {
    return isNameFree(this.baseUrl, name);
  }

  async submit({ name, password, token, email, reason }: SignUpValues): Promise<void> {
    this.typed = password;
    const { name: before, session } = this.draft;
    this.keep({ name, token, email, reason, session: before === name ? session : "" });
    await this.run(this.going());
  }

  async agree(): Promise<void> {
    this.keep({ agreed: termsOf(this.state.getState().policies) });
    await this.run(this.going());
  }

  async check(): Promise<void> {
    await this.run(this.going());
  }

  async resend(): Promise<boolean> {
    if (this.running) return false;
    this.running = true;
    const { turn } = this;
    this.state.setState({ busy: true, failure: null });
    try {
      await this.mail();
      return true;
    } catch (error) {
      if (turn === this.turn) this.fail(error);
      return false;
    } finally {
      this.running = false;
      this.state.setState({ busy: false });
    }
  }

  change(): void {
    this.turn++;
    this.work?.abort();
    this.show("form", { resumed: false });
  }

  async another(): Promise<void> {
    clearDraft();
    this.typed = "";
    this.state.setState({ draft: emptyDraft, invited: null });
    await this.open();
  }

  stop(): void {
    this.left = true;
    this.unwatch();
    this.work?.abort();
  }

  /** The session that goes on, if there is one: the server says what is left of it. */
  private going(): Record<string, unknown> | undefined {
    return this.draft.session === "" ? undefined : { session: this.draft.session };
  }

  private register(auth?: Record<string, unknown>): ReturnType<typeof register> {
    const { name, reason } = this.draft;
    const options = { localpart: name, password: this.typed, device: { name: this.deviceName } };
    return register(this.baseUrl, reason === "" ? options : { ...options, reason }, auth);
  }

  /** Answers one stage after the other, until somebody has to do something. */
  private async run(first?: Record<string, unknown>): Promise<void> {
    if (this.running) return;
    this.running = true;
    const { turn } = this;
    this.state.setState({ busy: true, failure: null, waitUntil: null, wrong: {} });
    try {
      let auth = first;
      for (let round = 0; round < maxRounds; round++) {
        const result = await patiently(() => this.register(auth));
        if ("done" in result) return await this.enter(result.done);
        if (this.left || turn !== this.turn) return;
        this.keep({ session: result.left.session });
        if (result.left.refusal !== null) return this.refused(String(auth?.type), result.left);
        auth = await this.answer(result.left);
        if (auth === undefined) return;
      }
      this.state.setState({ failure: t("signUp.endless") });
    } catch (error) {
      // A request for an account that is made stands, wherever somebody is by now.
      if (turn === this.turn || isAwaiting(error)) this.fail(error);
    } finally {
      this.running = false;
      this.state.setState({ busy: false });
    }
  }

  private async enter(credentials: Credentials): Promise<void> {
    this.stop();
    clearDraft();
    const password = this.typed;
    this.typed = "";
    await this.onEntered(credentials, password);
  }

  /** The answer to the stage whose turn it is; undefined where the person has to do something first. */
  private async answer(left: Challenge): Promise<Record<string, unknown> | undefined> {
    const { session } = left;
    const { draft } = this;
    const stage = nextStage(left, draft.email !== "");
    switch (stage) {
      case stages.dummy:
        return { type: stage, session };
      case stages.token:
        if (draft.token !== "") return { type: stage, token: draft.token, session };
        this.show("form", { wrong: { token: t("signUp.tokenMissing") }, asks: { ...this.asks, token: true } });
        return undefined;
      case stages.terms:
        if (draft.agreed === termsOf(left.policies)) return { type: stage, session };
        this.show("terms", { policies: left.policies });
        return undefined;
      case stages.work:
        return { type: stage, nonce: await this.solve(left), session };
      case stages.email:
        if (draft.email === "") {
          this.show("form", { wrong: { email: t("signUp.emailMissing") }, asks: { ...this.asks, email: "required" } });
          return undefined;
        }
        if (draft.proof?.address === draft.email) return addressAuth(draft.proof, session);
        await this.mail();
        return undefined;
      case undefined:
        throw new ApiError(500, { error: "The server asks for nothing more, and makes no account." });
      default:
        this.waitForPage(stage, session);
        return undefined;
    }
  }

  private get asks(): SignUpState["asks"] {
    return this.state.getState().asks;
  }

  private async solve({ puzzle }: Challenge): Promise<string> {
    if (puzzle === null) throw new ApiError(500, { error: "The server asks for work that this client cannot do." });
    this.show("work", { progress: 0 });
    this.work = new AbortController();
    const { signal } = this.work;
    return solve(puzzle, { signal, onProgress: (progress) => this.state.setState({ progress }) });
  }

  /** Has a mail sent, and waits until its link is opened. */
  private async mail(): Promise<void> {
    const { turn } = this;
    const { email, proof } = this.draft;
    this.keep({ proof: await patiently(() => requestMail(this.baseUrl, "register", email, proof)) });
    if (turn === this.turn) this.waitForLink();
  }

  private waitForLink(): void {
    const proof = this.draft.proof;
    if (proof === null || this.left) return;
    this.show("mail", { linkOver: Date.now() >= proof.sentAt + linkLastsMs });
    this.unwatch = watch({
      everyMs: pollMs,
      until: proof.sentAt + linkLastsMs,
      look: () => this.look(addressAuth(this.draft.proof ?? proof, this.draft.session)),
      onOver: () => this.state.setState({ linkOver: true }),
    });
  }

  private waitForPage(stage: string, session: string): void {
    if (this.state.getState().step === "page" || this.left) return;
    this.show("page", { page: fallbackPage(this.baseUrl, stage, session) });
    this.unwatch = watch({
      everyMs: pollMs,
      until: Date.now() + pageLastsMs,
      look: () => this.look({ session: this.draft.session }),
      onOver: () => this.show("form", { failure: t("signUp.pageOver") }),
    });
  }

  /** One quiet look whether something was done elsewhere; gives how long to wait where the server says so. */
  private async look(auth: Record<string, unknown>): Promise<number | void> {
    if (this.running) return undefined;
    const { turn } = this;
    try {
      const result = await this.register(auth);
      if ("done" in result) return await this.enter(result.done);
      if (turn !== this.turn) return undefined;
      this.keep({ session: result.left.session });
      const { refusal } = result.left;
      if (refusal?.errcode === "M_THREEPID_AUTH_FAILED") return undefined;
      if (refusal === null && this.state.getState().step === "page") {
        const stage = nextStage(result.left, this.draft.email !== "");
        if (stage !== undefined && !(Object.values(stages) as string[]).includes(stage)) return undefined;
      }
      await this.run(this.going());
    } catch (error) {
      if (errcodeOf(error) === "M_LIMIT_EXCEEDED") return waitOf(error) ?? undefined;
      if (!(error instanceof ApiError) || error.status === 0) throw error; // the connection: later
      if (turn === this.turn || isAwaiting(error)) this.fail(error);
    }
  }

  /** A stage was tried and not passed. */
  private refused(stage: string, { refusal, policies }: Challenge): void {
    if (refusal === null) return;
    const { errcode, text } = refusal;
    if (stage === stages.token) {
      const unprovable = errcode === "M_THREEPID_MEDIUM_NOT_SUPPORTED"; // it is for people with an address that nobody can prove here
      return this.show("form", {
        wrong: { token: t(unprovable ? "signUp.tokenNoMail" : "signUp.tokenBad") },
        invited: false,
      });
    }
    if (errcode === "M_THREEPID_DENIED") return this.show("form", { wrong: { email: t("signUp.emailDenied") } });
    if (stage === stages.email || errcode === "M_THREEPID_AUTH_FAILED") {
      const looked = this.state.getState().step === "mail";
      this.waitForLink();
      return this.state.setState({ failure: looked ? t("mail.notYet") : null });
    }
    if (stage === stages.work) return this.show("form", { failure: t("signUp.workRefused") });
    if (stage === stages.terms) {
      this.keep({ agreed: "" });
      return this.show("terms", { policies, failure: t("signUp.termsNew") });
    }
    this.show("form", { failure: t("signUp.refused", { said: text.slice(0, 200) }) });
  }

  /** A request failed: where it is about a field, the field says so. */
  private fail(error: unknown): void {
    if (this.work?.signal.aborted === true && !(error instanceof ApiError)) return;
    const code = errcodeOf(error) ?? "";
    if (isAwaiting(error)) {
      clearDraft();
      this.keep({ ...emptyDraft, name: this.draft.name, awaiting: true });
      return this.show("awaiting");
    }
    const field = fieldOf(code, this.state.getState().step === "form" || this.draft.proof === null);
    if (field !== null) return this.show("form", { wrong: { [field.name]: field.text } });
    if (code === "M_THREEPID_AUTH_FAILED") {
      this.waitForLink();
      return this.state.setState({ linkOver: true });
    }
    const wait = code === "M_LIMIT_EXCEEDED" ? waitOf(error) : null;
    const refused = code === "M_FORBIDDEN" && error instanceof ApiError;
    const failure = refused
      ? t("signUp.refused", { said: error.message.slice(0, 200) })
      : code === "M_LIMIT_EXCEEDED" && wait === null
        ? t("signUp.full")
        : this.state.getState().step === "work" && code === ""
          ? t("signUp.workFailed")
          : describe(error);
    if (this.state.getState().step === "work") this.show("form");
    this.state.setState({ failure, waitUntil: wait === null ? null : Date.now() + wait });
  }
}

/** The field that an error is about, and what it says there. */
function fieldOf(code: string, aboutAddress: boolean): { name: SignUpField; text: string } | null {
  switch (code) {
    case "M_USER_IN_USE":
    case "M_EXCLUSIVE":
      return { name: "name", text: t("signUp.nameTaken") };
    case "M_INVALID_USERNAME":
      return { name: "name", text: t("signUp.nameBad") };
    case "M_WEAK_PASSWORD":
      return { name: "password", text: t("signUp.passwordShort") };
    case "M_THREEPID_DENIED":
      return { name: "email", text: t("signUp.emailDenied") };
    case "M_THREEPID_IN_USE":
      return { name: "email", text: t("signUp.emailTaken") };
    case "M_INVALID_PARAM":
      return aboutAddress ? { name: "email", text: t("signUp.emailBad") } : null;
  }
  return null;
}

export type { AddressProof };
