/** From an empty page to a chat: who is signed in, and what stands between them and their conversations. */
import { createStore, type StoreApi } from "zustand/vanilla";
import type { Credentials, LoginOptions, RegisterOptions, RegistrationInfo, Session } from "../sdk";
import { describe } from "./failed";
import type { Chat } from "./model";

/** What of the protocol layer the app needs before there is a session. */
export interface Sdk {
  registrationInfo(baseUrl: string): Promise<RegistrationInfo>;
  isNameFree(baseUrl: string, localpart: string): Promise<boolean>;
  register(baseUrl: string, options: RegisterOptions): Promise<Credentials>;
  logIn(baseUrl: string, options: LoginOptions): Promise<Credentials>;
  openSession(credentials: Credentials): Promise<Session>;
  savedSession(): Promise<Credentials | null>;
}

export type Phase =
  | { at: "starting" }
  | { at: "signedOut"; ended: boolean }
  /** The session is there; its identity is not known yet. */
  | { at: "opening" }
  | { at: "failed"; reason: string }
  /** A new account: its recovery key is shown before anything else. */
  | { at: "setup"; userId: string; recoveryKey: string | null; failure: string | null }
  | { at: "locked"; userId: string }
  | { at: "ready"; chat: Chat };

export interface App {
  readonly phase: StoreApi<Phase>;
  readonly server: string;
  start(): Promise<void>;
  registrationInfo(): Promise<RegistrationInfo>;
  isNameFree(name: string): Promise<boolean>;
  signUp(o: { localpart: string; password: string; token: string }): Promise<void>;
  signIn(o: { user: string; password: string }): Promise<void>;
  makeIdentity(): Promise<void>;
  confirmIdentity(): Promise<void>;
  unlock(recoveryKey: string): Promise<void>;
  signOut(): Promise<void>;
}

interface Options {
  sdk: Sdk;
  baseUrl: string;
  deviceName: string;
  /** Loaded late: it brings the Matrix SDK. */
  openChat(session: Session, onSignOut: () => Promise<void>): Promise<Chat>;
}

export function createApp({ sdk, baseUrl, deviceName, openChat }: Options): App {
  const phase = createStore<Phase>(() => ({ at: "starting" }));
  const set = (next: Phase): void => phase.setState(next, true);
  let session: Session | null = null;
  let password: string | undefined;
  let commit: (() => Promise<void>) | null = null;
  let chat: Promise<Chat> | null = null;
  let started = false;

  function forget(): void {
    session = null;
    password = undefined;
    commit = null;
    chat = null;
    started = false;
  }

  async function enter(credentials: Credentials, isNew: boolean): Promise<void> {
    set({ at: "opening" });
    try {
      const opened = await sdk.openSession(credentials);
      session = opened;
      opened.ended.subscribe(() => {
        if (opened !== session || !opened.ended.get()) return;
        forget();
        set({ at: "signedOut", ended: true });
      });
      if (isNew) {
        await makeIdentity();
        return;
      }
      opened.identity.subscribe(() => follow(opened));
      begin(opened);
      follow(opened);
    } catch (error) {
      set({ at: "failed", reason: describe(error) });
    }
  }

  function begin(opened: Session): void {
    if (started) return;
    started = true;
    opened.start().catch((error: unknown) => {
      if (opened === session) set({ at: "failed", reason: describe(error) });
    });
  }

  /** Goes where the state of the identity leads. */
  function follow(opened: Session): void {
    if (opened !== session) return;
    const { at } = phase.getState();
    switch (opened.identity.get()) {
      case "unknown":
        return;
      case "missing":
        if (at !== "setup") void makeIdentity();
        return;
      case "locked":
        if (at !== "locked") set({ at: "locked", userId: opened.credentials.userId });
        return;
      case "ready":
        if (at !== "ready") void ready(opened);
    }
  }

  async function ready(opened: Session): Promise<void> {
    begin(opened);
    chat ??= openChat(opened, signOut);
    try {
      const open = await chat;
      if (opened === session) set({ at: "ready", chat: open });
    } catch (error) {
      chat = null;
      set({ at: "failed", reason: describe(error) });
    }
  }

  async function makeIdentity(): Promise<void> {
    const opened = session;
    if (opened === null) return;
    const { userId } = opened.credentials;
    set({ at: "setup", userId, recoveryKey: null, failure: null });
    try {
      const made = await opened.createIdentity(password);
      commit = made.commit;
      set({ at: "setup", userId, recoveryKey: made.recoveryKey, failure: null });
    } catch (error) {
      set({ at: "setup", userId, recoveryKey: null, failure: describe(error) });
    }
  }

  async function signOut(): Promise<void> {
    await session?.logOut();
    forget();
    set({ at: "signedOut", ended: false });
  }

  return {
    phase,
    server: new URL(baseUrl).host,
    makeIdentity,
    signOut,
    registrationInfo: () => sdk.registrationInfo(baseUrl),
    isNameFree: (name) => sdk.isNameFree(baseUrl, name),
    async start() {
      try {
        const saved = await sdk.savedSession();
        if (saved === null) set({ at: "signedOut", ended: false });
        else await enter(saved, false);
      } catch (error) {
        set({ at: "failed", reason: describe(error) });
      }
    },
    async signUp({ localpart, password: chosen, token }) {
      const options = { localpart, password: chosen, deviceName };
      const credentials = await sdk.register(baseUrl, token === "" ? options : { ...options, token });
      password = chosen;
      await enter(credentials, true);
    },
    async signIn({ user, password: typed }) {
      const credentials = await sdk.logIn(baseUrl, { user, password: typed, deviceName });
      password = typed;
      await enter(credentials, false);
    },
    async confirmIdentity() {
      const opened = session;
      if (commit === null || opened === null) return;
      await commit();
      commit = null;
      password = undefined;
      await ready(opened);
    },
    async unlock(recoveryKey) {
      const opened = session;
      if (opened === null) return;
      await opened.unlock(recoveryKey);
      password = undefined;
      await ready(opened);
    },
  };
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
