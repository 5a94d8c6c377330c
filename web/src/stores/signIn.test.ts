// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Credentials } from "../sdk";
import { KeyStore } from "../sdk/keystore";
import { deviceDatabase, forgetSession, savedSession, saveSession } from "../sdk/saved";
import { AccountServer, refuse } from "../sdk/testing/accounts";
import { freshBrowser } from "../sdk/testing/browser";
import { createSignIn, type SignIn } from "./signIn";

let server: AccountServer;
let entered: { credentials: Credentials; password: string | undefined }[];

beforeEach(() => {
  server = new AccountServer();
  entered = [];
  vi.stubGlobal("fetch", server.fetch);
  server.accounts.set("ann", { password: "right", factors: [], codes: [] });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

function signIn(rest: { userId?: string; id?: string } = {}): SignIn {
  return createSignIn({
    baseUrl: server.baseUrl,
    device: { name: "test", ...(rest.id === undefined ? {} : { id: rest.id }) },
    userId: rest.userId ?? null,
    onEntered: async (credentials, password) => void entered.push({ credentials, password }),
  });
}

const failure = (model: SignIn): string | null => model.state.getState().failure;

describe("a name and a password", () => {
  test("open a session, step by step, and the password is handed on for the keys", async () => {
    const model = signIn();
    await model.password(" @ann:hs.test ", "right");
    expect(entered).toMatchObject([{ credentials: { userId: "@ann:hs.test", deviceId: "DEV1" }, password: "right" }]);
    expect(server.asked("POST /login")).toEqual([
      { type: "im.conclave.login.sign_in", sign_in: "sign-in-0", initial_device_display_name: "test" },
    ]);
  });

  test("an e-mail address is a third-party identifier", async () => {
    await signIn().password("ann@example.org", "right");
    expect(server.asked("POST /im.conclave.login/sign_in")[0]?.identifier).toEqual({
      type: "m.id.thirdparty",
      medium: "email",
      address: "ann@example.org",
    });
    expect(entered).toHaveLength(1);
  });

  test("that are wrong are said to be, without saying which", async () => {
    const model = signIn();
    await model.password("ann", "wrong");
    const first = failure(model);
    await model.password("nobody", "right");
    expect([first, failure(model)]).toEqual(Array(2).fill("Name or password is not right."));
    expect(entered).toEqual([]);
  });

  test("of another homeserver go the way that all of them have", async () => {
    server.loginFlows = [{ type: "m.login.password" }];
    await signIn().password("ann", "right");
    expect(server.requests.map(({ path }) => path)).toEqual(["GET /login", "POST /login"]);
    expect(entered).toHaveLength(1);
  });

  test("too many tries say how long to wait, and nothing is tried before", async () => {
    vi.useFakeTimers({ now: 1_000_000 });
    server.intercept = (path) => {
      if (path.endsWith("/sign_in")) refuse(429, "M_LIMIT_EXCEEDED", { retry_after_ms: 170_000 });
    };
    const model = signIn();
    await model.password("ann", "right");
    expect(failure(model)).toBe("Too many tries. Try again in 3 minutes.");
    expect(model.state.getState().waitUntil).toBe(1_170_000);
  });

  test.each([
    [401, "M_USER_LOCKED", /locked by an administrator/],
    [403, "M_USER_DEACTIVATED", /closed for good/],
    [500, "M_UNKNOWN", /did not work/],
  ])("%i %s is said in words", async (status, errcode, words) => {
    server.intercept = (path) => {
      if (path.endsWith("/sign_in")) refuse(status, errcode);
    };
    const model = signIn();
    await model.password("ann", "right");
    expect(failure(model)).toMatch(words);
  });

  test("of an account that waits for approval say so", async () => {
    server.intercept = (path) => {
      if (path.endsWith("/sign_in")) refuse(403, "M_FORBIDDEN", { "im.conclave.awaiting_approval": true });
    };
    const model = signIn();
    await model.password("ann", "right");
    expect(failure(model)).toContain("waits for the approval");
  });

  test("without a connection can be tried again", async () => {
    const model = signIn();
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("fetch failed")));
    await model.look();
    await model.password("ann", "right");
    expect(failure(model)).toContain("cannot be reached");
    vi.stubGlobal("fetch", server.fetch);
    await model.password("ann", "right");
    expect(entered).toHaveLength(1);
  });
});

describe("a second factor", () => {
  beforeEach(() => {
    server.accounts.set("ann", {
      password: "right",
      factors: ["recovery", "passkey", "totp"],
      codes: ["123456", "aaaa-bbbb", "passkey"],
    });
  });

  async function begun(): Promise<SignIn> {
    const model = signIn();
    await model.password("ann", "right");
    expect(model.state.getState()).toMatchObject({ needs: ["totp", "passkey", "recovery"], chosen: "totp" });
    return model;
  }

  test("a code goes in as digits, a wrong one is said, and the right one opens the session", async () => {
    const model = await begun();
    await model.factor("000 000");
    expect(failure(model)).toContain("This code is not right");
    await model.factor("123 456");
    expect(server.asked("POST /im.conclave.login/factor").at(-1)).toEqual({
      sign_in: "sign-in-0",
      type: "totp",
      code: "123456",
    });
    expect(entered).toMatchObject([{ password: "right" }]);
    expect(model.state.getState()).toMatchObject({ needs: null, failure: null, busy: false });
  });

  test("a recovery code does as well, as it was written down", async () => {
    const model = await begun();
    model.choose("recovery");
    await model.factor(" aaaa-bbbb ");
    expect(entered).toHaveLength(1);
  });

  test("a passkey is asked of the browser; closing its window loses nothing", async () => {
    const get = vi.fn().mockRejectedValueOnce(new DOMException("no", "NotAllowedError"));
    const bytes = new Uint8Array([1]).buffer;
    const response = { clientDataJSON: bytes, authenticatorData: bytes, signature: bytes, userHandle: null };
    get.mockResolvedValueOnce({ id: "AQ", rawId: bytes, type: "public-key", response });
    vi.stubGlobal("navigator", { credentials: { get } });
    vi.stubGlobal("PublicKeyCredential", function PublicKeyCredential() {});
    const model = await begun();
    model.choose("passkey");
    await model.factor();
    expect(failure(model)).toContain("No passkey was used");
    expect(model.state.getState().needs).not.toBeNull();
    await model.factor();
    expect(server.asked("POST /im.conclave.login/factor").at(-1)).toMatchObject({
      type: "passkey",
      challenge: "challenge",
      credential: { id: "AQ", rawId: "AQ", type: "public-key" },
    });
    expect(entered).toHaveLength(1);
  });

  test("that comes too late leads back to the beginning", async () => {
    vi.useFakeTimers({ now: 1_000_000 });
    const model = await begun();
    vi.setSystemTime(1_000_000 + 600_001);
    await model.factor("000000");
    expect(model.state.getState()).toMatchObject({ needs: null, failure: "That took too long. Sign in again." });
  });

  test("is asked for as well where an old way of signing in answers with a sign-in", async () => {
    server.loginFlows = [{ type: "m.login.password" }];
    const model = signIn();
    await model.password("ann", "right");
    expect(model.state.getState().chosen).toBe("totp");
    await model.factor("123456");
    expect(entered).toHaveLength(1);
  });

  test("that the server has not looked at need not be typed again", async () => {
    const model = await begun();
    model.choose("recovery");
    server.intercept = () => refuse(429, "M_LIMIT_EXCEEDED", { retry_after_ms: 60_000 });
    expect(await model.factor("aaaa-bbbb")).toBe(false);
    server.intercept = () => undefined;
    expect(await model.factor("cccc-dddd")).toBe(true);
    expect(await model.factor("aaaa-bbbb")).toBe(true);
    expect(entered).toHaveLength(1);
  });

  test("of a kind that nobody knows ends the sign-in in words", async () => {
    server.accounts.set("ann", { password: "right", factors: ["stars"], codes: [] });
    const model = signIn();
    await model.password("ann", "right");
    expect(failure(model)).toContain("does not know");
  });
});

describe("whoever goes back to the first step while a code is looked at", () => {
  async function underWay(code: string): Promise<{ model: SignIn; end: () => Promise<boolean> }> {
    server.accounts.set("ann", { password: "right", factors: ["totp"], codes: ["123456"] });
    const model = signIn();
    await model.password("ann", "right");
    const held = Promise.withResolvers<void>();
    vi.stubGlobal("fetch", async (...args: Parameters<typeof fetch>) => {
      await held.promise;
      return server.fetch(...args);
    });
    const looked = model.factor(code);
    model.restart();
    return {
      model,
      end: () => {
        held.resolve();
        return looked;
      },
    };
  }

  test("is not signed in by it", async () => {
    const { model, end } = await underWay("123456");
    await end();
    expect(entered).toEqual([]);
    expect(model.state.getState()).toMatchObject({ needs: null, busy: false, failure: null });
  });

  test("is not told that it was wrong", async () => {
    const { model, end } = await underWay("000000");
    await end();
    expect(failure(model)).toBeNull();
  });
});

test("a session that is opened for nobody any more is ended", async () => {
  const model = signIn();
  server.intercept = (path, body) => {
    if (path === "/login" && body.type !== undefined) model.restart();
  };
  await model.password("ann", "right");
  expect(entered).toEqual([]);
  expect(server.requests.at(-1)?.path).toBe("POST /logout");
});

test("a sign-in inside a refusal that cannot be opened is refused in words, too", async () => {
  server.loginFlows = [{ type: "m.login.password" }];
  server.intercept = (path, body) => {
    if (path !== "/login" || body.type === undefined) return;
    const inside = { sign_in: "gone", needs: [], expires_in_ms: 600_000 };
    refuse(403, "M_FORBIDDEN", body.type === "m.login.password" ? { "im.conclave.sign_in": inside } : {});
  };
  const model = signIn();
  await model.password("ann", "right");
  expect(model.state.getState()).toMatchObject({
    needs: null,
    busy: false,
    failure: "That took too long. Sign in again.",
  });
});

test("a password that was refused is not handed on with a later way in", async () => {
  const model = signIn();
  await model.password("bob", "not for ann");
  await model.token("good");
  expect(entered).toMatchObject([{ credentials: { userId: "@ann:hs.test" }, password: undefined }]);
});

describe("signing in again to a session that is kept", () => {
  beforeEach(() => freshBrowser());

  test("keeps what its device has, though another tab hears meanwhile that the session of before has ended", async () => {
    const old = { baseUrl: server.baseUrl, userId: "@ann:hs.test", deviceId: "OLD", accessToken: "before" };
    const keys = async (): Promise<boolean> =>
      (await indexedDB.databases()).some(({ name }) => name === deviceDatabase(old));
    await saveSession(old);
    (await KeyStore.open(deviceDatabase(old))).close();
    const model = createSignIn({
      baseUrl: server.baseUrl,
      device: { name: "test", id: "OLD" },
      userId: old.userId,
      onEntered: (credentials) => saveSession(credentials),
    });
    let forgotten: Promise<unknown> | undefined;
    vi.stubGlobal("fetch", async (...args: Parameters<typeof fetch>) => {
      const answer = await server.fetch(...args);
      if (server.requests.at(-1)?.path !== "POST /login") return answer;
      // The server has ended the old session, the answer with the new one is on its way: long enough for another tab.
      forgotten = forgetSession(old);
      await new Promise((next) => setTimeout(next, 100));
      return answer;
    });
    await model.password("", "right");
    await forgotten;
    expect(await keys()).toBe(true);
    expect((await savedSession())?.accessToken).not.toBe("before");
  });

  test("keeps the device, and asks for no name", async () => {
    await signIn({ userId: "@ann:hs.test", id: "OLD" }).password("", "right");
    expect(entered).toMatchObject([{ credentials: { userId: "@ann:hs.test", deviceId: "OLD" } }]);
  });

  test("lets nobody else in, whose session is ended again", async () => {
    const model = signIn({ userId: "@bob:hs.test", id: "OLD" });
    await model.token("good");
    expect(entered).toEqual([]);
    expect(failure(model)).toContain("@bob:hs.test");
    expect(server.requests.at(-1)?.path).toBe("POST /logout");
  });
});

test("the ways of a server: what it offers, with providers by name", async () => {
  server.loginFlows = [
    { type: "im.conclave.login.sign_in" },
    { type: "m.login.sso", identity_providers: [{ id: "oidc", name: "Northwind" }, { id: 7 }, "x", { id: "two" }] },
  ];
  const model = signIn();
  await model.look();
  expect(model.state.getState().ways).toEqual({
    password: false,
    steps: true,
    providers: [
      { id: "oidc", name: "Northwind" },
      { id: "two", name: null },
    ],
  });
  expect(model.providerPage({ id: "oidc", name: null }, "https://chat.test/?sso=1")).toBe(
    "https://hs.test/_matrix/client/v3/login/sso/redirect/oidc?redirectUrl=https%3A%2F%2Fchat.test%2F%3Fsso%3D1",
  );
});

test("a token that is not good is refused in words", async () => {
  const model = signIn();
  await model.token("bad");
  expect(failure(model)).toBe("This way in is used up, or too old. Sign in again.");
});
