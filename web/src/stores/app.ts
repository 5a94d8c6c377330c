/** From an empty page to a chat: who is signed in, and what stands between them and their conversations. */
import { createStore, type StoreApi } from "zustand/vanilla";
import type { Confirm, Credentials, Ending, FactorRule, Session } from "../sdk";
import { type Confirming, createConfirming } from "./confirm";
import { forgetDrafts } from "./drafts";
import { describe } from "./failed";
import type { Chat } from "./model";
import type { SignIn, SignInOptions } from "./signIn";
import { takeReturn } from "./ssoReturn";

/** What of the protocol layer the app needs before there is a session. */
export interface Sdk {
  openSession(credentials: Credentials): Promise<Session>;
  savedSession(): Promise<Credentials | null>;
  /** Gives the session that another tab has opened since, which stays. */
  forgetSession(credentials: Credentials): Promise<Credentials | null>;
  /** Does it unless this browser has a session of this user. */
  unlessSignedIn(userId: string, work: () => Promise<void>): Promise<void>;
  factorRule(credentials: Credentials): Promise<FactorRule>;
  /** Tells the server, as far as it can be reached. */
  endSession(credentials: Credentials): Promise<void>;
}

export type Phase =
  | { at: "starting" }
  /** `ended` says how the server has ended the session that was there. */
  | { at: "signedOut"; ended: Exclude<Ending, "locked"> | null; signIn: SignIn }
  /** The session is there; its identity is not known yet. */
  | { at: "opening" }
  /** `kept`: this browser has a session that can be given up. */
  | { at: "failed"; reason: string; kept: boolean }
  /** An administrator has locked the account. */
  | { at: "barred"; userId: string }
  /** The server wants a second factor of somebody who has none: by `due` (ms), or, when that is over, before anything else. */
  | { at: "enrol"; session: Session; due: number | null; over: boolean }
  /** A new account: its recovery key is shown before anything else. */
  | { at: "setup"; userId: string; recoveryKey: string | null; failure: string | null }
  | { at: "locked"; userId: string }
  | { at: "ready"; chat: Chat };

export interface App {
  readonly phase: StoreApi<Phase>;
  readonly baseUrl: string;
  readonly server: string;
  readonly deviceName: string;
  /** What the person is asked to confirm, wherever it was asked for. */
  readonly confirming: Confirming;
  start(): Promise<void>;
  /** Goes on with a session that was just opened: of an account that was just made, or of one that was there. */
  enter(credentials: Credentials, how: { isNew: boolean; password?: string | undefined }): Promise<void>;
  /** After the second factor was set up, or put off. */
  enrolled(): Promise<void>;
  makeIdentity(): Promise<void>;
  confirmIdentity(): Promise<void>;
  unlock(recoveryKey: string): Promise<void>;
  /** Opens the session that this browser keeps once more. */
  again(): Promise<void>;
  /** Whoever comes back to a page in front of a session, and has signed in by another tab meanwhile, goes on with that one. */
  comeBack(): Promise<void>;
  signOut(): Promise<void>;
}

interface Options {
  sdk: Sdk;
  baseUrl: string;
  deviceName: string;
  createSignIn(options: SignInOptions): SignIn;
  /** Loaded late: it brings the Matrix SDK. */
  openChat(session: Session, confirm: Confirm, onSignOut: () => Promise<void>): Promise<Chat>;
}

export function createApp(options: Options): App {
  return new Main(options);
}

class Main implements App {
  readonly phase = createStore<Phase>(() => ({ at: "starting" }));
  readonly baseUrl: string;
  readonly server: string;
  readonly deviceName: string;
  readonly confirming = createConfirming();
  private session: Session | null = null;
  /** Of a session that is kept but not open: locked, or to be signed in to again. */
  private kept: Credentials | null = null;
  private password: string | undefined;
  private commit: (() => Promise<void>) | null = null;
  private chat: Promise<Chat> | null = null;
  private started = false;
  /** That is being signed out of. */
  private leaving: Session | null = null;
  private goOn: (() => Promise<void>) | null = null;
  /** What a session that has ended left is being put away; no other is opened before. */
  private clearing: Promise<void> = Promise.resolve();

  constructor(private readonly options: Options) {
    this.baseUrl = options.baseUrl;
    this.server = new URL(options.baseUrl).host;
    this.deviceName = options.deviceName;
  }

  private set(next: Phase): void {
    this.phase.setState(next, true);
  }

  private failed(error: unknown): void {
    this.set({ at: "failed", reason: describe(error), kept: this.kept !== null });
  }

  private forget(): void {
    // What a session has asked for stands in nobody's way after it.
    this.confirming.asking.get()?.cancel();
    this.session = null;
    this.password = undefined;
    this.commit = null;
    this.chat = null;
    this.started = false;
    this.goOn = null;
  }

  private signedOut(ended: Exclude<Ending, "locked"> | null): SignIn {
    const kept = ended === "soft" ? this.kept : null;
    const signIn = this.options.createSignIn({
      baseUrl: this.baseUrl,
      device: { name: this.deviceName, ...(kept === null ? {} : { id: kept.deviceId }) },
      userId: kept?.userId ?? null,
      onEntered: (credentials, password) => this.enter(credentials, { isNew: false, password }),
    });
    this.set({ at: "signedOut", ended, signIn });
    return signIn;
  }

  async start(): Promise<void> {
    const token = takeReturn();
    try {
      const saved = await this.options.sdk.savedSession();
      // Whoever comes back from elsewhere had left to sign in, or to sign in again to the session that is kept.
      this.kept = saved;
      if (token !== null) await this.signedOut(saved === null ? null : "soft").token(token);
      else if (saved !== null) await this.reopen(saved);
      else this.signedOut(null);
    } catch (error) {
      this.failed(error);
    }
  }

  async enter(
    credentials: Credentials,
    { isNew, password }: { isNew: boolean; password?: string | undefined },
  ): Promise<void> {
    // Whoever has gone on to something else while this one was on its way does not want it any more.
    if (this.session !== null || this.phase.getState().at === "opening") {
      await this.options.sdk.endSession(credentials);
      return;
    }
    this.password = password;
    await this.open(credentials, async (opened) => {
      const rule = await this.rule(credentials);
      if (opened !== this.session) return;
      if (rule?.wanted !== true) return this.proceed(opened, isNew);
      this.goOn = () => this.proceed(opened, isNew);
      this.set({ at: "enrol", session: opened, due: rule.due, over: isOver(rule) });
    });
  }

  /** Null where nobody can say: then what needs a second factor will be refused, and one can come again. */
  private rule(credentials: Credentials): Promise<FactorRule | null> {
    return this.options.sdk.factorRule(credentials).catch(() => null);
  }

  async enrolled(): Promise<void> {
    const { goOn } = this;
    this.goOn = null;
    this.set({ at: "opening" });
    await goOn?.();
  }

  /** For a session of an earlier page: the server has refused everything else since the time to set up a second factor was over. */
  private async lookForRule(opened: Session): Promise<void> {
    const rule = await this.rule(opened.credentials);
    if (opened !== this.session || rule?.wanted !== true || !isOver(rule)) return;
    this.goOn = async () => {
      this.forget();
      await opened.close().catch(() => undefined);
      await this.reopen(opened.credentials);
    };
    this.set({ at: "enrol", session: opened, due: rule.due, over: true });
  }

  private reopen(credentials: Credentials): Promise<void> {
    return this.open(credentials, async (opened) => {
      void this.lookForRule(opened);
      await this.proceed(opened, false);
    });
  }

  private async open(credentials: Credentials, then: (opened: Session) => Promise<void>): Promise<void> {
    this.set({ at: "opening" });
    try {
      await this.clearing;
      const opened = await this.options.sdk.openSession(credentials);
      this.session = opened;
      this.kept = credentials;
      opened.ended.subscribe(() => this.ended(opened));
      await then(opened);
    } catch (error) {
      this.failed(error);
    }
  }

  private async proceed(opened: Session, isNew: boolean): Promise<void> {
    if (isNew) {
      await this.makeIdentity();
      return;
    }
    opened.identity.subscribe(() => this.follow(opened));
    this.begin(opened);
    this.follow(opened);
  }

  private ended(opened: Session): void {
    const ending = opened.ended.get();
    // That somebody signs out is no news to them.
    if (opened !== this.session || opened === this.leaving || ending === null) return;
    this.forget();
    this.clearing = this.leave(opened, ending).then((renewed) => {
      if (renewed !== null && this.phase.getState().at === "signedOut") void this.reopen(renewed);
    });
    if (ending === "locked") this.set({ at: "barred", userId: opened.credentials.userId });
    else this.signedOut(ending);
  }

  /**
   * A device that the server has removed is none any more: nobody can open what it kept, so it must not lie around. Unless another tab has
   * signed in again to it, which ends the token of this one: gives that session.
   */
  private async leave(opened: Session, ending: Ending): Promise<Credentials | null> {
    await opened.close().catch(() => undefined);
    const renewed = await this.renewed(opened.credentials);
    if (renewed !== null || ending !== "signed_out") return renewed;
    this.kept = null;
    const later = await this.options.sdk.forgetSession(opened.credentials).catch(() => null);
    await this.forgetDrafts(opened.credentials.userId);
    if (later !== null && isSameDevice(later, opened.credentials)) return later;
    goToStart();
    return null;
  }

  /** What somebody began to write stays as long as they are signed in here, by another tab for example. */
  private async forgetDrafts(userId: string): Promise<void> {
    await this.options.sdk.unlessSignedIn(userId, () => forgetDrafts(userId)).catch(() => undefined);
  }

  private saved(): Promise<Credentials | null> {
    return this.options.sdk.savedSession().catch(() => null);
  }

  /** The session that this browser keeps, where it is a later one of the same device. */
  private async renewed(credentials: Credentials): Promise<Credentials | null> {
    const saved = await this.saved();
    const later = saved !== null && isSameDevice(saved, credentials) && saved.accessToken !== credentials.accessToken;
    return later ? saved : null;
  }

  private begin(opened: Session): void {
    if (this.started) return;
    this.started = true;
    opened.start().catch((error: unknown) => {
      if (opened === this.session) this.failed(error);
    });
  }

  /** Goes where the state of the identity leads. */
  private follow(opened: Session): void {
    if (opened !== this.session) return;
    const { at } = this.phase.getState();
    if (at === "enrol") return;
    switch (opened.identity.get()) {
      case "unknown":
        return;
      case "missing":
        if (at !== "setup") void this.makeIdentity();
        return;
      case "locked":
        this.password = undefined; // it opens no identity
        if (at !== "locked") this.set({ at: "locked", userId: opened.credentials.userId });
        return;
      case "ready":
        if (at !== "ready") void this.ready(opened);
    }
  }

  private async ready(opened: Session): Promise<void> {
    if (opened !== this.session) return; // it has ended while something of it was on its way
    this.password = undefined; // there is an identity: nothing asks for it any more
    this.begin(opened);
    this.chat ??= this.options.openChat(opened, this.confirming.confirm, () => this.signOut());
    try {
      const open = await this.chat;
      if (opened === this.session) this.set({ at: "ready", chat: open });
    } catch (error) {
      if (opened !== this.session) return;
      this.chat = null;
      this.failed(error);
    }
  }

  async makeIdentity(): Promise<void> {
    const opened = this.session;
    if (opened === null) return;
    const { userId } = opened.credentials;
    this.set({ at: "setup", userId, recoveryKey: null, failure: null });
    try {
      const made = await opened.createIdentity(this.password, this.confirming.confirm);
      if (opened !== this.session) return;
      this.commit = made.commit;
      this.set({ at: "setup", userId, recoveryKey: made.recoveryKey, failure: null });
    } catch (error) {
      if (opened === this.session) this.set({ at: "setup", userId, recoveryKey: null, failure: describe(error) });
    }
  }

  // Pages hand these two on by themselves.
  readonly confirmIdentity = async (): Promise<void> => {
    const opened = this.session;
    if (this.commit === null || opened === null) return;
    await this.commit();
    this.commit = null;
    await this.ready(opened);
  };

  readonly unlock = async (recoveryKey: string): Promise<void> => {
    const opened = this.session;
    if (opened === null) return;
    await opened.unlock(recoveryKey);
    await this.ready(opened);
  };

  async again(): Promise<void> {
    if (this.kept !== null) await this.reopen(this.kept);
  }

  private async logOut(session: Session): Promise<void> {
    this.leaving = session;
    try {
      await session.logOut();
    } finally {
      this.leaving = null;
    }
    await this.forgetDrafts(session.credentials.userId);
  }

  async comeBack(): Promise<void> {
    await this.clearing;
    const saved = this.kept === null ? await this.saved() : await this.renewed(this.kept);
    const now = this.phase.getState();
    if (saved === null || now.at !== "signedOut") return;
    const { busy, needs } = now.signIn.state.getState();
    if (!busy && needs === null) await this.reopen(saved);
  }

  async signOut(): Promise<void> {
    const { session, kept } = this;
    const now = this.phase.getState();
    if (now.at === "signedOut") now.signIn.restart(); // nobody wants to be let in any more
    if (session !== null) await this.logOut(session);
    else if (kept !== null) {
      const last = (await this.renewed(kept)) ?? kept;
      // That of a locked account would stay there for ever.
      await this.options.sdk.endSession(last);
      await this.options.sdk.forgetSession(last);
      await this.forgetDrafts(last.userId);
    }
    this.forget();
    this.kept = null;
    goToStart();
    this.signedOut(null);
  }
}

/** Where one was is nobody else's business, and no place for whoever signs in next. */
function goToStart(): void {
  history.replaceState(null, "", "/");
}

function isSameDevice(a: Credentials, b: Credentials): boolean {
  return a.userId === b.userId && a.deviceId === b.deviceId;
}

function isOver({ due }: FactorRule): boolean {
  return due !== null && due <= Date.now();
}

/** How this device is called in the list of devices, in every language: the browser and the system, no more. */
export function describeDevice(userAgent: string): string {
  const browser = /Firefox\//.test(userAgent)
    ? "Firefox"
    : /Edg\//.test(userAgent)
      ? "Edge"
      : /Chrom(e|ium)\//.test(userAgent)
        ? "Chrome"
        : /Safari\//.test(userAgent)
          ? "Safari"
          : null;
  const system = /Android/.test(userAgent)
    ? "Android"
    : /iPhone|iPad/.test(userAgent)
      ? "iOS"
      : /Mac OS X/.test(userAgent)
        ? "macOS"
        : /Windows/.test(userAgent)
          ? "Windows"
          : /Linux|CrOS/.test(userAgent)
            ? "Linux"
            : null;
  const known = [browser, system === null || browser === null ? system : `(${system})`].filter((part) => part !== null);
  return known.length === 0 ? "Conclave" : `Conclave, ${known.join(" ")}`;
}
