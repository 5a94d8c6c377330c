// @vitest-environment happy-dom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AccountServer, refuse } from "../sdk/testing/accounts";
import { createReset, type Reset, type ResetState } from "./reset";

let server: AccountServer;
let model: Reset;

beforeEach(() => {
  vi.useFakeTimers({ now: 1_700_000_000_000 });
  server = new AccountServer();
  server.accounts.set("ann", { password: "old", factors: [], codes: [] });
  vi.stubGlobal("fetch", server.fetch);
  model = createReset(server.baseUrl);
});

afterEach(() => {
  model.stop();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const state = (): ResetState => model.state.getState();

test("an address, a mail, a new password; everywhere else one is signed out unless one does not want that", async () => {
  await model.request(" ann@example.org ");
  expect(state()).toMatchObject({ step: "password", proof: { address: "ann@example.org" } });
  server.openLink();
  await model.finish("a new password", true);
  expect(state().step).toBe("done");
  expect(server.accounts.get("ann")?.password).toBe("a new password");
  expect(server.asked("POST /account/password").at(-1)).toMatchObject({ logout_devices: true });
});

test("the password waits for the link, and is set as soon as it is opened", async () => {
  await model.request("ann@example.org");
  await model.finish("a new password", false);
  expect(state()).toMatchObject({ step: "password", waiting: true, failure: null });
  await vi.advanceTimersByTimeAsync(30_000);
  expect(server.accounts.get("ann")?.password).toBe("old");
  server.openLink();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(state()).toMatchObject({ step: "done", everywhere: false });
  expect(server.accounts.get("ann")?.password).toBe("a new password");
});

test("an address that nobody has looks the same, until the end", async () => {
  await model.request("ann@example.org");
  await model.finish("a new password", true);
  const known = { ...state(), proof: null };
  model.stop();
  model = createReset(server.baseUrl);
  await model.request("nobody@example.org");
  await model.finish("a new password", true);
  expect({ ...state(), proof: null }).toEqual(known);
  await vi.advanceTimersByTimeAsync(31 * 60_000);
  expect(state()).toMatchObject({
    step: "password",
    waiting: false,
    failure: expect.stringContaining("in time") as string,
  });
});

test.each([
  [400, "M_INVALID_PARAM", { wrong: expect.stringContaining("not an e-mail address") as string }],
  [400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", { failure: expect.stringContaining("cannot reset passwords") as string }],
  [429, "M_LIMIT_EXCEEDED", { failure: expect.stringContaining("Too many tries") as string }],
])("%i %s at the address", async (status, errcode, said) => {
  server.intercept = () => refuse(status, errcode, { retry_after_ms: 9_000 });
  await model.request("ann@example.org");
  expect(state()).toMatchObject({ step: "address", ...said });
});

test("a password that is too weak is said, and another can be chosen", async () => {
  await model.request("ann@example.org");
  server.intercept = (path) => {
    if (path === "/account/password") refuse(400, "M_WEAK_PASSWORD");
  };
  await model.finish("short", true);
  expect(state()).toMatchObject({ waiting: false, wrong: "Use at least 10 characters." });
  model.change();
  expect(state().step).toBe("address");
});

test("what the server refuses for good while the link is waited for is said, and ends the waiting", async () => {
  await model.request("ann@example.org");
  await model.finish("a new password", true);
  server.intercept = () => refuse(500, "M_UNKNOWN"); // has a moment
  await vi.advanceTimersByTimeAsync(10_000);
  expect(state()).toMatchObject({ waiting: true, failure: null });
  server.intercept = () => refuse(403, "M_USER_DEACTIVATED");
  await vi.advanceTimersByTimeAsync(10_000);
  expect(state()).toMatchObject({ waiting: false, failure: expect.stringContaining("closed for good") as string });
  const before = server.requests.length;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(server.requests.length).toBe(before);
});

test("whoever leaves while the password is on its way waits for nothing", async () => {
  await model.request("ann@example.org");
  const going = model.finish("a new password", true);
  model.stop();
  await going;
  const before = server.requests.length;
  await vi.advanceTimersByTimeAsync(10 * 60_000);
  expect(server.requests.length).toBe(before);
});

test("another mail that cannot be sent does not end the waiting, and does not say so", async () => {
  await model.request("ann@example.org");
  await model.finish("a new password", true);
  server.intercept = (path) => {
    if (path.endsWith("/requestToken")) refuse(429, "M_LIMIT_EXCEEDED", { retry_after_ms: 60_000 });
  };
  expect(await model.resend()).toBe(false);
  expect(state()).toMatchObject({ waiting: true, failure: expect.stringContaining("Too many tries") as string });
  server.openLink();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(state().step).toBe("done");
});

test.each([
  ["for another mail", (asked: Reset) => asked.resend()],
  ["for the new password", (asked: Reset) => asked.finish("a new password", true)],
])("what was asked for, %s, leads nobody back who has gone to another address", async (_what, ask) => {
  await model.request("ann@example.org");
  const held = Promise.withResolvers<void>();
  vi.stubGlobal("fetch", async (...args: Parameters<typeof fetch>) => {
    await held.promise;
    return server.fetch(...args);
  });
  const asked = ask(model);
  model.change();
  held.resolve();
  await asked;
  expect(state()).toMatchObject({ step: "address", waiting: false, failure: null, busy: false });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(server.accounts.get("ann")?.password).toBe("old");
});
