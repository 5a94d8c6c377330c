import { describe, expect, test, vi } from "vitest";
import type { Credentials, IdentityState, Session } from "../sdk";
import { createApp, describeDevice, type Sdk } from "./app";
import type { Chat } from "./model";
import { cell } from "./observable";

const credentials: Credentials = {
  baseUrl: "http://localhost:1",
  userId: "@ann:localhost",
  deviceId: "DEV",
  accessToken: "token",
};

function fakes(identityAtStart: IdentityState = "unknown", saved: Credentials | null = null) {
  const identity = cell<IdentityState>("unknown");
  const ended = cell(false);
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
    async logOut() {
      calls.push("logOut");
    },
  } as unknown as Session;
  const sdk: Sdk = {
    registrationInfo: async () => ({ open: true, stages: [] }),
    isNameFree: async () => true,
    register: async () => credentials,
    logIn: async () => credentials,
    openSession: async () => session,
    savedSession: async () => saved,
  };
  const chat = { me: { userId: credentials.userId, name: "ann" } } as Chat;
  const openChat = vi.fn(async () => chat);
  const app = createApp({ sdk, baseUrl: credentials.baseUrl, deviceName: "test", openChat });
  return { app, calls, sdk, identity, ended, openChat };
}

const at = (app: ReturnType<typeof createApp>): string => app.phase.getState().at;

describe("from an empty page to a chat", () => {
  test("without a saved session one signs in", async () => {
    const { app } = fakes();
    expect(at(app)).toBe("starting");
    await app.start();
    expect(app.phase.getState()).toEqual({ at: "signedOut", ended: false });
  });

  test("a new account sees its recovery key before anything else, and nothing syncs before it is confirmed", async () => {
    const { app, calls } = fakes();
    await app.start();
    await app.signUp({ localpart: "ann", password: "a long password", token: "" });
    expect(app.phase.getState()).toMatchObject({ at: "setup", recoveryKey: "aaaa bbbb" });
    expect(calls).toEqual(["create a long password"]);
    await app.confirmIdentity();
    await vi.waitFor(() => expect(at(app)).toBe("ready"));
    expect(calls).toEqual(["create a long password", "commit", "start"]);
  });

  test("a new device is locked until the right key opens it", async () => {
    const { app, openChat } = fakes("locked");
    await app.signIn({ user: "ann", password: "a long password" });
    await vi.waitFor(() => expect(at(app)).toBe("locked"));
    await expect(app.unlock("cccc")).rejects.toThrow("wrong_key");
    expect(at(app)).toBe("locked");
    await app.unlock("aaaa bbbb");
    await vi.waitFor(() => expect(at(app)).toBe("ready"));
    expect(openChat).toHaveBeenCalledTimes(1);
  });

  test("a reload goes on where one was", async () => {
    const { app, calls } = fakes("ready", credentials);
    await app.start();
    await vi.waitFor(() => expect(at(app)).toBe("ready"));
    expect(calls).toEqual(["start"]);
  });

  test("a session that the server ends leads to signing in, and says why", async () => {
    const { app, ended } = fakes("ready", credentials);
    await app.start();
    await vi.waitFor(() => expect(at(app)).toBe("ready"));
    ended.set(true);
    expect(app.phase.getState()).toEqual({ at: "signedOut", ended: true });
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
    await app.signUp({ localpart: "ann", password: "a long password", token: "" });
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
