// @vitest-environment happy-dom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AccountServer, refuse } from "../sdk/testing/accounts";
import { createLinking, type Linking, type LinkingState } from "./linking";
import { createSignIn } from "./signIn";

const poll = "POST /im.conclave.login/link/poll";
let server: AccountServer;
let entered: string[];
let seen: DocumentVisibilityState;
let linking: Linking;

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000_000 });
  server = new AccountServer();
  entered = [];
  seen = "visible";
  vi.stubGlobal("fetch", server.fetch);
  vi.spyOn(document, "visibilityState", "get").mockImplementation(() => seen);
  const model = createSignIn({
    baseUrl: server.baseUrl,
    device: { name: "new telephone" },
    userId: null,
    onEntered: async ({ userId, deviceId }) => void entered.push(`${userId} ${deviceId}`),
  });
  linking = createLinking({
    baseUrl: server.baseUrl,
    deviceName: "new telephone",
    onAllowed: (signingIn) => model.linked(signingIn),
  });
});

afterEach(() => {
  linking.stop();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const state = (): LinkingState => linking.state.getState();
const polls = (): number => server.asked(poll).length;

function show(visibility: DocumentVisibilityState): void {
  seen = visibility;
  document.dispatchEvent(new Event("visibilitychange"));
}

async function begin(): Promise<void> {
  void linking.begin();
  await vi.advanceTimersByTimeAsync(0);
  expect(state()).toEqual({
    at: "waiting",
    code: { typed: "WDJB-MJHT", url: "https://hs.test/#/link?code=WDJB-MJHT", expires: 1_900_000 },
    failure: null,
  });
}

test("a device asks at the pace of the server, and once it is let in its session opens as after every sign-in", async () => {
  await begin();
  expect(server.asked("POST /im.conclave.login/link")).toEqual([{ device_display_name: "new telephone" }]);
  await vi.advanceTimersByTimeAsync(4999);
  expect(polls()).toBe(0);
  await vi.advanceTimersByTimeAsync(5001);
  expect(server.asked(poll)).toEqual([{ device_code: "device-1" }, { device_code: "device-1" }]);
  server.decideLink("ann");
  await vi.advanceTimersByTimeAsync(5000);
  expect(entered).toEqual(["@ann:hs.test DEV2"]);
  expect(state()).toEqual({ at: "allowed", code: null, failure: null });
  expect(server.asked("POST /login")).toEqual([
    { type: "im.conclave.login.sign_in", sign_in: "sign-in-0", initial_device_display_name: "new telephone" },
  ]);
  await vi.advanceTimersByTimeAsync(900_000);
  expect(polls()).toBe(3);
});

test("a refusal and a code that is gone are told apart, and end the questions", async () => {
  await begin();
  server.decideLink(null);
  await vi.advanceTimersByTimeAsync(5000);
  expect(state()).toEqual({ at: "refused", code: null, failure: null });
  void linking.begin();
  await vi.advanceTimersByTimeAsync(0);
  expect(state().at).toBe("waiting");
  server.links.clear();
  await vi.advanceTimersByTimeAsync(5000);
  expect(state()).toEqual({ at: "over", code: null, failure: null });
  await vi.advanceTimersByTimeAsync(60_000);
  expect([polls(), entered]).toEqual([2, []]);
});

test("a page that nobody sees does not ask, and asks at once when somebody sees it again", async () => {
  await begin();
  show("hidden");
  await vi.advanceTimersByTimeAsync(120_000);
  expect(polls()).toBe(0);
  server.decideLink("ann");
  show("visible");
  await vi.advanceTimersByTimeAsync(0);
  expect(entered).toHaveLength(1);
});

test("coming back soon does not ask before the time", async () => {
  await begin();
  show("hidden");
  await vi.advanceTimersByTimeAsync(1000);
  show("visible");
  await vi.advanceTimersByTimeAsync(3999);
  expect(polls()).toBe(0);
  await vi.advanceTimersByTimeAsync(1);
  expect(polls()).toBe(1);
});

test.each(["visible", "hidden"] as const)("a code that is too old ends by itself on a %s page", async (visibility) => {
  await begin();
  show(visibility);
  await vi.advanceTimersByTimeAsync(899_999);
  expect(state().at).toBe("waiting");
  const before = polls();
  await vi.advanceTimersByTimeAsync(1);
  expect(state()).toEqual({ at: "over", code: null, failure: null });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(polls()).toBe(before);
});

test("errors on the way are told, and it goes on; a limit is kept to", async () => {
  await begin();
  let limited = true;
  server.intercept = (path) => {
    if (limited && path.endsWith("/poll")) refuse(429, "M_LIMIT_EXCEEDED", { retry_after_ms: 20_000 });
  };
  await vi.advanceTimersByTimeAsync(5000);
  expect(state()).toMatchObject({ at: "waiting", failure: "Too many tries. Try again in 20 seconds." });
  limited = false;
  await vi.advanceTimersByTimeAsync(19_999);
  expect(polls()).toBe(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(state()).toMatchObject({ at: "waiting", failure: null });
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("fetch failed")));
  await vi.advanceTimersByTimeAsync(5000);
  expect(state().failure).toContain("cannot be reached");
  vi.stubGlobal("fetch", server.fetch);
  server.decideLink("ann");
  await vi.advanceTimersByTimeAsync(10_000);
  expect(entered).toHaveLength(1);
});

test("a new code takes the place of the old one, and leaving the page ends the questions", async () => {
  await begin();
  void linking.begin();
  await vi.advanceTimersByTimeAsync(5000);
  expect(server.asked(poll)).toEqual([{ device_code: "device-2" }]);
  linking.stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(polls()).toBe(1);
});

test("an answer that comes after somebody has left opens nothing", async () => {
  await begin();
  server.decideLink("ann");
  server.intercept = (path) => {
    if (path.endsWith("/poll")) linking.stop();
  };
  await vi.advanceTimersByTimeAsync(5000);
  expect([polls(), entered]).toEqual([1, []]);
});

test("a code that cannot be had is said in words, and asked for again", async () => {
  server.intercept = (path) => {
    if (path.endsWith("/link")) refuse(429, "M_LIMIT_EXCEEDED", { retry_after_ms: 30_000 });
  };
  await linking.begin();
  expect(state()).toMatchObject({ at: "failed", failure: "Too many tries. Try again in 30 seconds." });
  server.intercept = () => undefined;
  await begin();
});
