// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Credentials } from "../sdk";
import { AccountServer, refuse } from "../sdk/testing/accounts";
import { createSignUp, type SignUp, type SignUpState } from "./signUp";

const solve = vi.hoisted(() => vi.fn());
vi.mock("../sdk/accounts/work", () => ({ solve }));

let server: AccountServer;
let entered: { credentials: Credentials; password: string }[];
let models: SignUp[];

beforeEach(() => {
  vi.useFakeTimers({ now: 1_700_000_000_000 });
  server = new AccountServer();
  entered = [];
  models = [];
  sessionStorage.clear();
  vi.stubGlobal("fetch", server.fetch);
});

afterEach(() => {
  for (const model of models) model.stop();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A page that was just opened. */
async function opened(): Promise<SignUp> {
  const model = createSignUp({
    baseUrl: server.baseUrl,
    deviceName: "test",
    onEntered: async (credentials, password) => void entered.push({ credentials, password }),
  });
  models.push(model);
  await model.open();
  return model;
}

const values = { name: "ann", password: "a long password", token: "", email: "", reason: "" };
const state = (model: SignUp): SignUpState => model.state.getState();
const email = "m.login.email.identity";
const token = "m.login.registration_token";
const terms = "m.login.terms";

describe("what a server asks for", () => {
  test.each([
    ["nothing", [["m.login.dummy"]], { token: false, email: "no", reason: false }],
    ["an invitation", [[token]], { token: true, email: "no", reason: false }],
    ["perhaps an address", [["m.login.dummy"], [email]], { token: false, email: "optional", reason: false }],
    ["both", [[token, email]], { token: true, email: "required", reason: false }],
  ])("%s", async (_what, flows, asks) => {
    server.flows = flows;
    expect(state(await opened())).toMatchObject({ step: "form", asks });
  });

  test("a reason, where somebody has to approve", async () => {
    server.params = { "im.conclave.approval": { max_reason_bytes: 1000 } };
    const model = await opened();
    expect(state(model).asks.reason).toBe(true);
    await model.submit({ ...values, reason: "I sing alto" });
    expect(server.asked("POST /register").at(-1)).toMatchObject({ "im.conclave.reason": "I sing alto" });
  });

  test("nothing at all, where nobody can make an account; and it can be asked again", async () => {
    server.flows = [];
    expect(state(await opened()).step).toBe("closed");
    server.intercept = () => refuse(502, "M_UNKNOWN");
    const model = await opened();
    expect(state(model)).toMatchObject({ step: "asking", failure: expect.stringContaining("did not work") as string });
    server.intercept = () => undefined;
    server.flows = [["m.login.dummy"]];
    await model.open();
    expect(state(model).step).toBe("form");
  });
});

describe("stage by stage", () => {
  test("an account without conditions is made at once", async () => {
    await (await opened()).submit(values);
    expect(entered).toMatchObject([{ credentials: { userId: "@ann:hs.test" }, password: "a long password" }]);
    expect(sessionStorage.length).toBe(0);
  });

  test("invitation, documents and address, each in its turn", async () => {
    server.flows = [[token, terms, email]];
    server.tokens.set("once", 1);
    const policies = { privacy: { version: "2", en: { name: "Privacy", url: "https://hs.test/p" } } };
    server.params = { [terms]: { policies } };
    const model = await opened();
    await model.submit({ ...values, token: "once", email: "ann@example.org" });
    expect(state(model)).toMatchObject({ step: "terms", policies: [{ id: "privacy", version: "2" }] });
    await model.agree();
    expect(state(model).step).toBe("mail");
    expect(server.mails).toMatchObject([{ to: "ann@example.org", purpose: "register" }]);
    server.openLink();
    await vi.advanceTimersByTimeAsync(10_000); // by itself
    expect(entered).toHaveLength(1);
  });

  test("an address that is given chooses the way with it, none the way without", async () => {
    server.flows = [["m.login.dummy"], [email]];
    await (await opened()).submit(values);
    expect(entered).toHaveLength(1);
    const model = await opened();
    await model.submit({ ...values, name: "bob", email: "bob@example.org" });
    expect(state(model).step).toBe("mail");
  });

  test("work is done beside the page", async () => {
    server.flows = [["im.conclave.login.pow"]];
    server.params = { "im.conclave.login.pow": { algorithm: "sha256", seed: "seed", difficulty: 3 } };
    solve.mockImplementation(async (_puzzle, { onProgress }: { onProgress(done: number): void }) => {
      onProgress(0.5);
      expect(state(model)).toMatchObject({ step: "work", progress: 0.5 });
      return "nonce";
    });
    const model = await opened();
    await model.submit(values);
    expect(solve.mock.calls[0]?.[0]).toEqual({ seed: "seed", difficulty: 3 });
    expect(entered).toHaveLength(1);
  });

  test("an account that has to be approved waits, also after a reload, and keeps nothing else", async () => {
    server.approval = true;
    const model = await opened();
    await model.submit({ ...values, email: "ann@example.org" });
    expect(state(model)).toMatchObject({ step: "awaiting", draft: { name: "ann", email: "", session: "" } });
    const again = await opened();
    expect(state(again).step).toBe("awaiting");
    await again.another(); // somebody else, at the same device
    expect(state(again)).toMatchObject({ step: "form", resumed: false, draft: { name: "" } });
    expect(sessionStorage.length).toBe(0);
  });

  test("a stage that nobody here knows is passed on a page of the server", async () => {
    server.flows = [["org.example.captcha", "m.login.dummy"]];
    const model = await opened();
    await model.submit(values);
    expect(state(model)).toMatchObject({
      step: "page",
      page: "https://hs.test/_matrix/client/v3/auth/org.example.captcha/fallback/web?session=uia-1",
    });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(state(model).step).toBe("page");
    server.passedElsewhere.add("org.example.captcha");
    await vi.advanceTimersByTimeAsync(10_000);
    expect(entered).toHaveLength(1);
  });
});

describe("what is wrong is said where it is", () => {
  test.each([
    [{ token: "none" }, "token", /not known/],
    [{ token: "" }, "token", /asks for an invitation/],
    [{ token: "good", email: "ann" }, "email", /not an e-mail address/],
    [{ token: "good", email: "ann@elsewhere.test" }, "email", /of this domain/],
    [{ token: "good", name: "taken", email: "ann@example.org" }, "name", /taken/],
  ] as const)("%j", async (given, field, words) => {
    server.flows = [[token, email]];
    server.tokens.set("good", 9);
    server.accounts.set("taken", { password: "x", factors: [], codes: [] });
    const model = await opened();
    await model.submit({ ...values, email: "ann@example.org", ...given });
    if (state(model).step === "mail") {
      server.openLink();
      await model.check();
    }
    expect(state(model)).toMatchObject({ step: "form", wrong: { [field]: expect.stringMatching(words) as string } });
    expect(entered).toEqual([]);
  });

  test("work that cannot be done, or is not taken, leads back to what was entered, with the password", async () => {
    server.flows = [["im.conclave.login.pow"]];
    server.params = { "im.conclave.login.pow": { algorithm: "sha256", seed: "seed", difficulty: 3 } };
    const model = await opened();
    solve.mockRejectedValue(new Error("The work could not be done in this browser."));
    await model.submit(values);
    expect(state(model)).toMatchObject({
      step: "form",
      failure: expect.stringContaining("Your device could not") as string,
    });
    solve.mockResolvedValue("wrong");
    await model.submit(values);
    expect(state(model)).toMatchObject({ step: "form", failure: expect.stringContaining("did not take") as string });
    expect(model.password()).toBe(values.password);
  });

  test("a server where too many wait says so, and not that there were too many tries", async () => {
    server.intercept = (_path, body) => {
      if (body.auth !== undefined) refuse(429, "M_LIMIT_EXCEEDED");
    };
    const model = await opened();
    await model.submit(values);
    expect(state(model).failure).toMatch(/^So many people wait/);
  });

  test("an invitation that is not for people without a proven address is not called unknown", async () => {
    server.flows = [[token]];
    server.tokens.set("unprovable", 1);
    const model = await opened();
    await model.submit({ ...values, token: "unprovable" });
    expect(state(model).wrong.token).toMatch(/certain e-mail address/);
    await model.submit({ ...values, token: "another" });
    expect(state(model).wrong.token).toMatch(/not known/);
  });

  test("what was wrong with a field is not said again of what has taken its place", async () => {
    server.accounts.set("taken", { password: "x", factors: [], codes: [] });
    const model = await opened();
    await model.submit({ ...values, name: "taken" });
    expect(state(model).wrong.name).toBeDefined();
    server.intercept = () => refuse(503, "M_UNKNOWN");
    await model.submit(values);
    expect(state(model)).toMatchObject({ wrong: {}, failure: expect.stringContaining("did not work") as string });
  });

  test("a refusal without a field is told in the words of the server", async () => {
    server.intercept = (_path, body) => {
      if (body.auth !== undefined) refuse(403, "M_FORBIDDEN", { error: "Only addresses at example.org." });
    };
    const model = await opened();
    await model.submit(values);
    expect(state(model).failure).toBe(
      "The server does not make this account. It says: “Only addresses at example.org.”",
    );
  });

  test("a server that wants a moment gets it; one that wants more is not asked before", async () => {
    let busy = 2;
    server.intercept = () => {
      if (busy-- > 0) refuse(429, "M_LIMIT_EXCEEDED", { retry_after_ms: 5_000 });
    };
    const opening = opened();
    await vi.advanceTimersByTimeAsync(10_000);
    const model = await opening;
    expect(state(model).step).toBe("form");
    server.intercept = () => refuse(429, "M_LIMIT_EXCEEDED", { retry_after_ms: 60_000 });
    await model.submit(values);
    expect(state(model)).toMatchObject({
      failure: "Too many tries. Try again in 60 seconds.",
      waitUntil: Date.now() + 60_000,
    });
  });
});

describe("an invitation", () => {
  test("is filled in, and said to be good or not", async () => {
    server.flows = [[token]];
    server.tokens.set("good", 1);
    const model = await opened();
    await model.invite("good");
    expect(state(model)).toMatchObject({ invited: true, draft: { token: "good" } });
    await model.invite("used");
    expect(state(model)).toMatchObject({ invited: false });
  });

  test("leads away from an earlier account that waits for approval", async () => {
    server.approval = true;
    const model = await opened();
    await model.submit(values);
    server.tokens.set("good", 1);
    const again = await opened();
    expect(state(again).step).toBe("awaiting");
    await again.invite("good");
    expect(state(again)).toMatchObject({ step: "form", invited: true });
  });
});

describe("a mail", () => {
  async function mailed(): Promise<SignUp> {
    server.flows = [[email]];
    const model = await opened();
    await model.submit({ ...values, email: "ann@example.org" });
    return model;
  }

  test("is sent again under the same secret, and to another address under another", async () => {
    const model = await mailed();
    await model.resend();
    const asked = server.asked("POST /register/email/requestToken");
    expect(asked.map((body) => body.send_attempt)).toEqual([1, 2]);
    expect(asked[0]?.client_secret).toBe(asked[1]?.client_secret);
    expect(server.mails).toHaveLength(2);
    model.change();
    expect(state(model)).toMatchObject({ step: "form", draft: { email: "ann@example.org" } });
    await model.submit({ ...values, email: "other@example.org" });
    expect(server.mails.at(-1)?.to).toBe("other@example.org");
    expect(server.asked("POST /register/email/requestToken").at(-1)).not.toMatchObject(asked[0] ?? {});
  });

  test("says that its link was not opened yet to whoever says that it was", async () => {
    const model = await mailed();
    expect(state(model).failure).toBeNull();
    await model.check();
    expect(state(model)).toMatchObject({ step: "mail", failure: "The link in the mail was not opened yet." });
  });

  test("is looked at once more when somebody comes back late", async () => {
    await mailed();
    server.openLink();
    const visible = vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
    await vi.advanceTimersByTimeAsync(16 * 60_000);
    visible.mockReturnValue("visible");
    document.dispatchEvent(new Event("visibilitychange"));
    await vi.advanceTimersByTimeAsync(0);
    expect(entered).toHaveLength(1);
  });

  test.each([
    ["whether its link was opened", (model: SignUp) => model.check()],
    ["for another one", (model: SignUp) => model.resend()],
  ])("that is asked about, %s, leads nobody back who goes to change what they entered", async (_what, ask) => {
    const model = await mailed();
    const held = Promise.withResolvers<void>();
    vi.stubGlobal("fetch", async (...args: Parameters<typeof fetch>) => {
      await held.promise;
      return server.fetch(...args);
    });
    const asked = ask(model);
    model.change();
    held.resolve();
    await asked;
    expect(state(model)).toMatchObject({ step: "form", busy: false, failure: null });
  });

  test("that is asked for when somebody leaves the page is not waited for", async () => {
    server.flows = [[email]];
    const model = await opened();
    const going = model.submit({ ...values, email: "ann@example.org" });
    model.stop();
    await going;
    const before = server.requests.length;
    await vi.advanceTimersByTimeAsync(16 * 60_000);
    expect(server.requests.length).toBe(before);
  });

  test("is not asked about while the page is hidden, and at once when somebody comes back", async () => {
    await mailed();
    const visible = vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
    const before = server.requests.length;
    await vi.advanceTimersByTimeAsync(120_000);
    expect(server.requests.length).toBe(before);
    server.openLink();
    visible.mockReturnValue("visible");
    document.dispatchEvent(new Event("visibilitychange"));
    await vi.advanceTimersByTimeAsync(0);
    expect(entered).toHaveLength(1);
  });

  test("is not waited for for ever", async () => {
    const model = await mailed();
    await vi.advanceTimersByTimeAsync(16 * 60_000);
    expect(state(model)).toMatchObject({ step: "mail", linkOver: true });
    const before = server.requests.length;
    await vi.advanceTimersByTimeAsync(10 * 60_000);
    expect(server.requests.length).toBe(before);
    expect(before).toBeLessThan(120);
    await model.resend();
    expect(state(model).linkOver).toBe(false);
  });
});

describe("a reload", () => {
  test("loses nothing but the password, which is kept nowhere", async () => {
    server.flows = [[token, email]];
    server.tokens.set("once", 1);
    await (await opened()).submit({ ...values, token: "once", email: "ann@example.org" });
    models[0]?.stop();
    expect(JSON.stringify({ ...sessionStorage, ...localStorage })).not.toContain(values.password);
    const model = await opened();
    expect(state(model)).toMatchObject({
      step: "form",
      resumed: true,
      draft: { name: "ann", email: "ann@example.org" },
    });
    server.openLink();
    await model.submit({ ...values, token: "once", email: "ann@example.org" });
    expect(entered).toMatchObject([{ credentials: { userId: "@ann:hs.test" } }]);
    expect(server.mails).toHaveLength(1);
  });

  test("after half an hour begins anew, and so does one with something else in its place", async () => {
    server.flows = [[email]];
    await (await opened()).submit({ ...values, email: "ann@example.org" });
    models[0]?.stop();
    vi.setSystemTime(Date.now() + 31 * 60_000);
    expect(state(await opened())).toMatchObject({ resumed: false, draft: { name: "" } });
    expect(sessionStorage.length).toBe(0);
    sessionStorage.setItem("conclave.signUp", '{"name":7}');
    expect(state(await opened())).toMatchObject({ resumed: false, draft: { name: "" } });
  });
});
