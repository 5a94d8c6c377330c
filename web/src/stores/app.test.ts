// @vitest-environment happy-dom
import { IDBFactory } from "fake-indexeddb";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { ApiError, type Credentials, type Ending, type FactorRule, type IdentityState, type Session } from "../sdk";
import { fakeSignIn } from "./testing/signIn";
import { createApp, describeDevice, type Sdk } from "./app";
import type { Chat } from "./model";
import { cell } from "./observable";
import type { SignInOptions } from "./signIn";
import { leaveFor } from "./ssoReturn";

const credentials: Credentials = {
  baseUrl: "http://localhost:1",
  userId: "@ann:localhost",
  deviceId: "DEV",
  accessToken: "token",
};

beforeEach(() => vi.stubGlobal("indexedDB", new IDBFactory()));
afterEach(() => vi.unstubAllGlobals());

interface Given {
  identity?: IdentityState;
  saved?: Credentials;
  rule?: FactorRule | Error;
}

function fakes({ identity: identityAtStart = "unknown", saved, rule }: Given = {}) {
  const identity = cell<IdentityState>("unknown");
  const ended = cell<Ending | null>(null);
  const calls: string[] = [];
  const session = {
    credentials,
    identity,
    ended,
    async start() {
      calls.push("start");
      identity.set(identityAtStart);
    },
    async createIdentity(password?: string) {
      calls.push(`create ${password ?? ""}`);
      return {
        recoveryKey: "aaaa bbbb",
        async commit() {
          calls.push("commit");
          identity.set("ready");
        },
      };
    },
    async unlock(key: string) {
      if (key !== "aaaa bbbb") throw new Error("wrong_key");
      calls.push("unlock");
      identity.set("ready");
    },
    async close() {
      calls.push("close");
    },
    async logOut() {
      calls.push("logOut");
      ended.set("signed_out");
    },
  } as unknown as Session;
  const sdk: Sdk = {
    openSession: async () => session,
    savedSession: async () => saved ?? null,
    forgetSession: async () => {
      calls.push("forget");
      return null;
    },
    unlessSignedIn: async (userId, work) => {
      if ((await sdk.savedSession())?.userId !== userId || calls.includes("forget")) await work();
    },
    endSession: async ({ accessToken }) => void calls.push(`end ${accessToken}`),
    factorRule: async () => {
      if (rule instanceof Error) throw rule;
      return rule ?? { wanted: false, due: null };
    },
  };
  const signIns: SignInOptions[] = [];
  const tokens: string[] = [];
  const createSignIn = (options: SignInOptions) => {
    signIns.push(options);
    return { ...fakeSignIn({}, options.userId), token: async (token: string) => void tokens.push(token) };
  };
  const chat = { me: { userId: credentials.userId, name: "ann" } } as Chat;
  const openChat = vi.fn(async () => chat);
  const app = createApp({ sdk, baseUrl: credentials.baseUrl, deviceName: "test", createSignIn, openChat });
  return { app, calls, sdk, identity, ended, openChat, signIns, tokens };
}

/** Waits until a check passes, on a busy machine as well. */
const soon = (check: () => void): Promise<void> => vi.waitFor(check, 20_000);
const at = (app: ReturnType<typeof createApp>): string => app.phase.getState().at;
const until = (app: ReturnType<typeof createApp>, phase: string): Promise<void> =>
  soon(() => expect(at(app)).toBe(phase));

describe("from an empty page to a chat", () => {
  test("without a saved session one signs in", async () => {
    const { app } = fakes();
    expect(at(app)).toBe("starting");
    await app.start();
    expect(app.phase.getState()).toMatchObject({ at: "signedOut", ended: null, signIn: { userId: null } });
  });

  test("a new account sees its recovery key before anything else, and nothing syncs before it is confirmed", async () => {
    const { app, calls } = fakes();
    await app.start();
    await app.enter(credentials, { isNew: true, password: "a long password" });
    expect(app.phase.getState()).toMatchObject({ at: "setup", recoveryKey: "aaaa bbbb" });
    expect(calls).toEqual(["create a long password"]);
    const { confirmIdentity } = app; // as pages hand it on
    await confirmIdentity();
    await until(app, "ready");
    expect(calls).toEqual(["create a long password", "commit", "start"]);
  });

  test("a new device is locked until the right key opens it", async () => {
    const { app, openChat } = fakes({ identity: "locked" });
    await app.enter(credentials, { isNew: false, password: "a long password" });
    await until(app, "locked");
    const { unlock } = app; // as pages hand it on
    await expect(unlock("cccc")).rejects.toThrow("wrong_key");
    expect(at(app)).toBe("locked");
    await unlock("aaaa bbbb");
    await until(app, "ready");
    expect(openChat).toHaveBeenCalledTimes(1);
  });

  test("the password is kept no longer than an identity can ask for it", async () => {
    for (const identity of ["ready", "locked"] as const) {
      const { app, calls } = fakes({ identity });
      await app.enter(credentials, { isNew: false, password: "a long password" });
      await until(app, identity);
      await app.makeIdentity();
      expect(calls).toEqual(["start", "create "]);
    }
  });

  test("a session that comes when another one is there already is ended, and changes nothing", async () => {
    const { app, calls } = fakes({ identity: "ready" });
    await app.enter(credentials, { isNew: false });
    await until(app, "ready");
    await app.enter({ ...credentials, userId: "@bob:localhost", accessToken: "late" }, { isNew: true });
    expect(at(app)).toBe("ready");
    expect(calls).toEqual(["start", "end late"]);
  });

  test("a reload goes on where one was", async () => {
    const { app, calls } = fakes({ identity: "ready", saved: credentials });
    await app.start();
    await until(app, "ready");
    expect(calls).toEqual(["start"]);
  });

  test("an identity that could not be made is said, and can be tried again", async () => {
    const { app, sdk } = fakes();
    const open = sdk.openSession;
    let broken = true;
    sdk.openSession = async (c) => {
      const session = await open(c);
      const create = session.createIdentity.bind(session);
      session.createIdentity = (password) =>
        broken ? Promise.reject(new TypeError("Failed to fetch")) : create(password);
      return session;
    };
    await app.enter(credentials, { isNew: true, password: "a long password" });
    expect(app.phase.getState()).toMatchObject({
      at: "setup",
      recoveryKey: null,
      failure: expect.stringContaining("cannot be reached") as string,
    });
    broken = false;
    await app.makeIdentity();
    expect(app.phase.getState()).toMatchObject({ recoveryKey: "aaaa bbbb", failure: null });
  });
});

describe("a session that the server ends", () => {
  async function ready(rest: Given = {}) {
    const all = fakes({ identity: "ready", saved: credentials, ...rest });
    await all.app.start();
    await until(all.app, "ready");
    all.calls.length = 0;
    return all;
  }

  test("for good leads to signing in, says why, and leaves no keys behind", async () => {
    const { app, ended, calls, signIns } = await ready();
    ended.set("signed_out");
    expect(app.phase.getState()).toMatchObject({ at: "signedOut", ended: "signed_out", signIn: { userId: null } });
    await soon(() => expect(calls).toEqual(["close", "forget"]));
    expect(signIns.at(-1)?.device).toEqual({ name: "test" });
  });

  test("softly keeps everything, and is signed in to again on the same device by the same person", async () => {
    const { app, ended, calls, signIns } = await ready();
    ended.set("soft");
    expect(app.phase.getState()).toMatchObject({
      at: "signedOut",
      ended: "soft",
      signIn: { userId: "@ann:localhost" },
    });
    expect(signIns.at(-1)?.device).toEqual({ name: "test", id: "DEV" });
    ended.set(null);
    await app.enter(credentials, { isNew: false, password: "a long password" });
    await until(app, "ready");
    expect(calls).toEqual(["close", "start"]);
  });

  test("softly can be given up, which deletes what this browser kept", async () => {
    const { app, ended, calls } = await ready();
    ended.set("soft");
    await app.signOut();
    expect(app.phase.getState()).toMatchObject({ at: "signedOut", ended: null, signIn: { userId: null } });
    await soon(() => expect(calls).toEqual(["close", "end token", "forget"]));
  });

  test("by oneself, or for good, leaves nothing of where one was to whoever signs in next", async () => {
    history.replaceState({ room: "!a" }, "", "/settings/security");
    const { app } = await ready();
    const seen: unknown[] = [];
    app.phase.subscribe((phase) => seen.push([phase.at, location.pathname]));
    await app.signOut();
    expect(seen).toEqual([["signedOut", "/"]]);
    expect(app.phase.getState()).toMatchObject({ ended: null });
    expect(history.state).toBeNull();
    history.replaceState(null, "", "/room/!a");
    const second = await ready();
    second.ended.set("signed_out");
    await soon(() => expect(location.pathname).toBe("/"));
  });

  test("softly, or because the account is locked, keeps the place to come back to", async () => {
    for (const ending of ["soft", "locked"] as const) {
      history.replaceState(null, "", "/room/!a");
      const { app, ended, calls } = await ready();
      ended.set(ending);
      await soon(() => expect(calls).toContain("close"));
      expect(location.pathname).toBe("/room/!a");
      await app.signOut();
      expect(location.pathname).toBe("/");
    }
  });

  test("because another tab has signed in again goes on with what that one has opened, and deletes nothing", async () => {
    for (const ending of ["signed_out", "soft"] as const) {
      history.replaceState(null, "", "/room/!a");
      const { app, sdk, ended, calls } = await ready();
      const renewed = { ...credentials, accessToken: "renewed" };
      sdk.savedSession = async () => renewed;
      const opened: Credentials[] = [];
      const open = sdk.openSession;
      sdk.openSession = async (which) => {
        opened.push(which);
        ended.set(null);
        return open(which);
      };
      ended.set(ending);
      await until(app, "ready");
      expect(opened).toEqual([renewed]);
      expect(calls).not.toContain("forget");
      expect(location.pathname).toBe("/room/!a");
    }
  });

  test("because another tab signs in again, and is not done with it, goes on with that one once it is", async () => {
    history.replaceState(null, "", "/room/!a");
    const { app, sdk, ended } = await ready();
    const renewed = { ...credentials, accessToken: "renewed" };
    sdk.forgetSession = async () => renewed; // has waited for the other tab
    const opened: Credentials[] = [];
    const open = sdk.openSession;
    sdk.openSession = async (which) => {
      opened.push(which);
      ended.set(null);
      return open(which);
    };
    ended.set("signed_out");
    await until(app, "ready");
    expect(opened).toEqual([renewed]);
    expect(location.pathname).toBe("/room/!a");
  });

  test("leaves alone what its owner has begun to write in another tab, on another device", async () => {
    const elsewhere = { ...credentials, deviceId: "NEW", accessToken: "elsewhere" };
    const { app, sdk, ended } = await ready();
    sdk.savedSession = async () => elsewhere;
    sdk.forgetSession = async () => elsewhere;
    const asked: string[] = [];
    sdk.unlessSignedIn = async (userId) => void asked.push(userId); // it is signed in
    const deleted = vi.spyOn(indexedDB, "deleteDatabase");
    ended.set("signed_out");
    await soon(() => expect(asked).toEqual([credentials.userId]));
    expect(deleted).not.toHaveBeenCalled();
    expect(at(app)).toBe("signedOut");
  });

  test("while its identity is made or opened does not come back with it", async () => {
    const { app, calls, sdk, ended, openChat } = fakes();
    const committing = Promise.withResolvers<void>();
    const open = sdk.openSession;
    sdk.openSession = async (which) => ({
      ...(await open(which)),
      createIdentity: async () => ({ recoveryKey: "aaaa bbbb", commit: () => committing.promise }),
    });
    await app.enter(credentials, { isNew: true, password: "a long password" });
    const confirming = app.confirmIdentity();
    ended.set("signed_out");
    committing.resolve();
    await confirming;
    expect(at(app)).toBe("signedOut");
    expect(calls).not.toContain("start");
    expect(openChat).not.toHaveBeenCalled();
  });

  test("while its recovery key is made is signed in to anew, not set up", async () => {
    const { app, sdk, ended } = fakes();
    const making = Promise.withResolvers<void>();
    const open = sdk.openSession;
    sdk.openSession = async (which) => {
      const session = await open(which);
      const create = session.createIdentity.bind(session);
      return { ...session, createIdentity: (password) => making.promise.then(() => create(password)) };
    };
    const entering = app.enter(credentials, { isNew: true, password: "a long password" });
    await until(app, "setup");
    ended.set("signed_out");
    making.resolve();
    await entering;
    expect(at(app)).toBe("signedOut");
  });

  test("softly, and given up while somebody is on the way in again, lets nobody in after that", async () => {
    const { app, ended } = await ready();
    ended.set("soft");
    const phase = app.phase.getState();
    if (phase.at !== "signedOut") throw new Error("signed in");
    const restart = vi.spyOn(phase.signIn, "restart"); // what comes back later is ended
    await app.signOut();
    expect(restart).toHaveBeenCalledTimes(1);
  });

  test("softly, and given up where another tab has signed in again, ends that session too", async () => {
    const { app, sdk, ended, calls } = await ready();
    const looked = vi.spyOn(sdk, "savedSession");
    ended.set("soft");
    await soon(() => expect(looked).toHaveBeenCalled());
    looked.mockResolvedValue({ ...credentials, accessToken: "renewed" });
    await app.signOut();
    expect(calls).toEqual(["close", "end renewed", "forget"]);
  });

  test("is gone on with by whoever comes back from another tab where they have signed in, and is not on the way to another", async () => {
    const { app, sdk, ended } = await ready();
    sdk.savedSession = async () => null;
    ended.set("signed_out");
    await app.comeBack();
    expect(at(app)).toBe("signedOut");
    sdk.savedSession = async () => ({ ...credentials, accessToken: "of another tab" });
    const phase = app.phase.getState();
    if (phase.at !== "signedOut") throw new Error("signed in");
    phase.signIn.state.setState({ busy: true });
    await app.comeBack();
    expect(at(app)).toBe("signedOut");
    phase.signIn.state.setState({ busy: false });
    ended.set(null);
    await app.comeBack();
    await until(app, "ready");
  });

  test("softly is signed in to again first, by whoever comes back", async () => {
    const { app, sdk, ended } = await ready();
    sdk.savedSession = async () => credentials;
    ended.set("soft");
    await app.comeBack();
    expect(at(app)).toBe("signedOut");
  });

  test("takes what it has asked to be confirmed with it", async () => {
    const { app, ended } = await ready();
    const refusal = { flows: [{ stages: ["m.login.password"] }], session: "s" };
    const who = { userId: credentials.userId, passkeyChallenge: () => Promise.reject(new Error("none")) };
    const asked = app.confirming.confirm(who, () => Promise.reject(new ApiError(401, refusal)));
    await soon(() => expect(app.confirming.asking.get()).not.toBeNull());
    ended.set("signed_out");
    await expect(asked).rejects.toThrow("cancelled");
    expect(app.confirming.asking.get()).toBeNull();
  });

  test("because the account is locked waits, and goes on once it is not", async () => {
    const { app, ended, calls } = await ready();
    ended.set("locked");
    expect(app.phase.getState()).toEqual({ at: "barred", userId: "@ann:localhost" });
    ended.set(null);
    await app.again();
    await until(app, "ready");
    expect(calls).toEqual(["close", "start"]);
  });
});

describe("a second factor that the server wants", () => {
  const hour = 3_600_000;

  test("is asked for after signing in, and can be put off while there is time", async () => {
    const due = Date.now() + hour;
    const { app, calls } = fakes({ identity: "ready", rule: { wanted: true, due } });
    await app.enter(credentials, { isNew: false });
    expect(app.phase.getState()).toMatchObject({ at: "enrol", due, over: false });
    expect(calls).toEqual([]);
    await app.enrolled();
    await until(app, "ready");
  });

  test("comes before anything else once the time is over, also for a session of an earlier page", async () => {
    const rule = { wanted: true, due: Date.now() - hour };
    const { app, sdk, calls } = fakes({ identity: "ready", saved: credentials, rule });
    await app.start();
    await until(app, "enrol");
    expect(app.phase.getState()).toMatchObject({ over: true });
    sdk.factorRule = async () => ({ wanted: false, due: null });
    calls.length = 0;
    await app.enrolled();
    await until(app, "ready");
    expect(calls).toEqual(["close", "start"]);
  });

  test("comes before the recovery key of a new account, which the server would refuse", async () => {
    const { app } = fakes({ rule: { wanted: true, due: Date.now() - hour } });
    await app.enter(credentials, { isNew: true, password: "a long password" });
    expect(app.phase.getState()).toMatchObject({ at: "enrol", over: true });
    await app.enrolled();
    expect(app.phase.getState()).toMatchObject({ at: "setup", recoveryKey: "aaaa bbbb" });
  });

  test("is no obstacle where nobody can say whether it is wanted", async () => {
    const { app } = fakes({ identity: "ready", rule: new Error("offline") });
    await app.enter(credentials, { isNew: false });
    await until(app, "ready");
  });
});

describe("coming back from the organization's sign-in", () => {
  afterEach(() => sessionStorage.clear());

  function comeBack(query: string): void {
    history.replaceState(null, "", `/${query}`);
  }

  test("the token opens a session and is gone from the address at once", async () => {
    const state = new URL(leaveFor()).searchParams.get("sso") ?? "";
    comeBack(`?sso=${state}&loginToken=secret&x=1#/`);
    const { app, tokens } = fakes();
    const started = app.start();
    expect(location.href).not.toContain("secret");
    await started;
    expect(tokens).toEqual(["secret"]);
    expect(location.search).toBe("?x=1");
  });

  test("a token that this tab has not asked for opens nothing", async () => {
    comeBack("?sso=forged&loginToken=secret");
    const first = fakes();
    await first.app.start();
    leaveFor();
    comeBack("?loginToken=secret");
    const second = fakes();
    await second.app.start();
    expect([first.tokens, second.tokens]).toEqual([[], []]);
    expect(location.search).toBe("");
  });

  test("a session that has expired softly is gone on with, where one was", async () => {
    history.replaceState(null, "", "/room/!a");
    const state = new URL(leaveFor()).searchParams.get("sso") ?? "";
    comeBack(`?sso=${state}&loginToken=secret`);
    const { app, tokens, signIns } = fakes({ saved: credentials });
    await app.start();
    expect(tokens).toEqual(["secret"]);
    expect(signIns.at(-1)).toMatchObject({ userId: "@ann:localhost", device: { id: "DEV" } });
    expect(location.pathname).toBe("/room/!a");
    expect(sessionStorage.length).toBe(0);
  });
});

test("a device is named by browser and system, no more", () => {
  expect(
    describeDevice(
      "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36",
    ),
  ).toBe("Conclave, Chrome (Linux)");
  expect(
    describeDevice("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile/15E148 Safari/604.1"),
  ).toBe("Conclave, Safari (iOS)");
  expect(describeDevice("SomethingElse (Windows NT 10.0)")).toBe("Conclave, Windows");
  expect(describeDevice("")).toBe("Conclave");
});
