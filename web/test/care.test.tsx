// @vitest-environment happy-dom
/** The pages in front of a session, and those of the account, when things go slowly or wrong. */
import { act, cleanup, render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { type ReactNode } from "react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Router } from "wouter";
import { memoryLocation } from "wouter/memory-location";
import { createStore } from "zustand/vanilla";
import { AppView } from "../src/app/AppView";
import { ChatView } from "../src/app/ChatView";
import { EnrolPage } from "../src/app/EnrolPage";
import { Barred } from "../src/features/auth/Barred";
import { LeaveDialog } from "../src/features/auth/LeaveDialog";
import { MailWays } from "../src/features/auth/MailWays";
import { SignIn } from "../src/features/auth/SignIn";
import { SignUp } from "../src/features/auth/SignUp";
import { AccountPage } from "../src/features/security/AccountPage";
import { AppPasswords } from "../src/features/security/AppPasswords";
import { ConfirmDialog } from "../src/features/security/ConfirmDialog";
import { DataExport } from "../src/features/security/DataExport";
import { Passkeys } from "../src/features/security/Passkeys";
import { Security } from "../src/features/security/Security";
import { Settings } from "../src/features/settings/Settings";
import { fakeAccount, without } from "../src/gallery/account";
import { fakeSignUp } from "../src/gallery/entry";
import * as f from "../src/gallery/fixtures";
import { ApiError, type Session } from "../src/sdk";
import type { App, Phase } from "../src/stores/app";
import { type Asking, createConfirming, type Refusal } from "../src/stores/confirm";
import { ChatContext } from "../src/stores/context";
import { cell } from "../src/stores/observable";
import { fakeSignIn } from "../src/stores/testing/signIn";
import { Toaster } from "../src/ui/toast";

beforeEach(() => {
  vi.stubGlobal("matchMedia", () => ({ matches: true, addEventListener() {}, removeEventListener() {} }));
});

afterEach(() => {
  cleanup();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const nothing = (): void => {};
const offline = new ApiError(0, { error: "The server cannot be reached." });

function fakeApp(phase: Phase, rest: Partial<App> = {}): App {
  const confirming = createConfirming();
  const store = createStore<Phase>(() => phase);
  return { phase: store, confirming, server: "x.org", baseUrl: "https://x.org", deviceName: "test", ...rest } as App;
}

const unreadable = (kept: boolean): Phase => ({ at: "failed", reason: "It cannot be read.", kept });

test("giving up a session that cannot be opened says why it did not work", async () => {
  const user = userEvent.setup();
  const onSignOut = (): Promise<never> => Promise.reject(new Error("the browser's database failed"));
  render(
    <>
      <LeaveDialog onSignOut={onSignOut} onClose={nothing} />
      <Toaster />
    </>,
  );
  await user.click(screen.getByRole("button", { name: "Sign out" }));
  expect(await screen.findByText("That did not work: the browser's database failed")).toBeTruthy();
});

test("a session that never opens can be given up, after a question", async () => {
  const user = userEvent.setup();
  const signOut = vi.fn(async () => {});
  const { unmount } = render(<AppView app={fakeApp(unreadable(false))} />);
  expect(screen.queryByRole("button", { name: "Sign out" })).toBeNull();
  unmount();
  render(<AppView app={fakeApp(unreadable(true), { signOut })} />);
  await user.click(screen.getByRole("button", { name: "Sign out" }));
  const question = await screen.findByRole("alertdialog");
  expect(signOut).not.toHaveBeenCalled();
  await user.click([...question.querySelectorAll("button")].find((b) => b.textContent === "Sign out") ?? question);
  expect(signOut).toHaveBeenCalledTimes(1);
});

test("a second factor that is overdue lets nobody delete their keys unasked", async () => {
  const user = userEvent.setup();
  const session = {
    credentials: { userId: "@ann:x.org" },
    account: () => fakeAccount({ factors: without }),
    ownDevices: async () => new Map(),
  } as unknown as Session;
  const phase = { at: "enrol", session, due: 1, over: true } as const;
  const signOut = vi.fn(async () => {});
  render(<EnrolPage app={fakeApp(phase, { signOut })} phase={phase} />);
  await user.click(screen.getByRole("button", { name: "Sign out" }));
  expect((await screen.findByRole("alertdialog")).textContent).toContain("The keys on this device are deleted");
  expect(signOut).not.toHaveBeenCalled();
});

test("an invitation that somebody opens who is signed in does not stay in the address", () => {
  history.replaceState(null, "", "/room/a#/register?token=secret");
  const app = fakeApp({ at: "starting" });
  render(<AppView app={app} />);
  expect(location.hash).toContain("secret"); // whether somebody is signed in is not known yet
  act(() => app.phase.setState({ at: "opening" }, true));
  expect([location.pathname, location.hash]).toEqual(["/room/a", ""]);
  location.hash = "#/register?token=another";
  window.dispatchEvent(new HashChangeEvent("hashchange"));
  expect(location.hash).toBe("");
  history.replaceState(null, "", "/");
});

test("an invitation is no way around a session that is to be signed in to again: that is given up first", () => {
  history.replaceState(null, "", "/#/register?token=secret");
  const signIn = fakeSignIn({}, "@ann:x.org");
  render(<AppView app={fakeApp({ at: "signedOut", ended: "soft", signIn })} />);
  expect(screen.getByRole("heading", { name: "Sign in again" })).toBeTruthy();
  history.replaceState(null, "", "/");
});

test.each([
  ["Welcome back", { at: "signedOut", ended: null, signIn: fakeSignIn() }],
  ["Something in here broke", { at: "failed", reason: "no", kept: false }],
  ["Enter your recovery key", { at: "locked", userId: "@ann:x.org" }],
] as const)("a tab says which page it is in front of a session: %s", async (heading, phase) => {
  render(<AppView app={fakeApp(phase)} />);
  expect(await screen.findByRole("heading", { level: 1, name: heading })).toBeTruthy();
  expect(document.title).toBe(`${heading} · Conclave`);
});

test("a tab does not go on saying where somebody was", () => {
  const { hook } = memoryLocation({ path: `/room/${encodeURIComponent("!board:northwind.org")}` });
  const chat = f.fakeChat({ rooms: [f.summary("!board:northwind.org", "Board")] });
  const { unmount } = render(
    <Router hook={hook}>
      <ChatView chat={chat} />
    </Router>,
  );
  expect(document.title).toContain("Board");
  unmount();
  expect(document.title).toBe("Conclave");
});

test("what a server offers is asked for until it is known, and not after", async () => {
  vi.useFakeTimers();
  const model = fakeSignIn({ ways: null });
  const look = vi.spyOn(model, "look");
  const props = { server: "x.org", ended: null, toLetIn: false, onSignUp: nothing, onForgot: nothing };
  render(<SignIn {...props} model={model} onDevice={nothing} onSignOut={nothing} />);
  for (let second = 0; second < 11; second++) await act(() => vi.advanceTimersByTimeAsync(1000));
  expect(look).toHaveBeenCalledTimes(3);
  act(() => model.state.setState({ ways: { password: false, steps: true, providers: [{ id: "a", name: "North" }] } }));
  expect(screen.getByRole("button", { name: "Sign in with North" })).toBeTruthy();
  await act(() => vi.advanceTimersByTimeAsync(60_000));
  expect(look).toHaveBeenCalledTimes(3);
});

test("a mail that was not sent is never said to be on its way", async () => {
  const user = userEvent.setup();
  const props = { busy: false, waitUntil: null, waiting: null, proof: null, onChange: nothing };
  const onResend = vi.fn<() => Promise<boolean>>().mockResolvedValueOnce(false).mockResolvedValue(true);
  render(<MailWays {...props} failure={null} onResend={onResend} />);
  await user.click(screen.getByRole("button", { name: "Send another mail" }));
  expect(screen.queryByText("Another mail is on its way.")).toBeNull();
  await user.click(screen.getByRole("button", { name: "Send another mail" }));
  expect(await screen.findByText("Another mail is on its way.")).toBeTruthy();
});

test("a recovery code that nobody has looked at stays, one that was refused goes", async () => {
  const user = userEvent.setup();
  const question = (refusal: Refusal | null): Asking => ({
    userId: "@ann:x.org",
    steps: [{ kind: "factor", types: ["recovery"] }],
    refusal,
    busy: false,
    answer: nothing,
    answerWithPasskey: async () => null,
    cancel: nothing,
  });
  const asking = cell<Asking | null>(question(null));
  render(<ConfirmDialog confirming={{ asking, confirm: (_who, send) => send() }} />);
  const field = screen.getByLabelText<HTMLInputElement>("Recovery code");
  await user.type(field, "K7QWD-2MXPA{Enter}");
  act(() => asking.set(question({ why: "offline" })));
  expect(field.value).toBe("K7QWD-2MXPA");
  act(() => asking.set(question({ why: "wrong" })));
  expect(field.value).toBe("");
});

test("why a browser made no passkey is read out", async () => {
  const user = userEvent.setup();
  const account = fakeAccount({ addPasskey: async () => ({ make: async () => ({ problem: "exists" }) }) });
  const factors = await account.factors();
  const list = { value: [], failure: null, asking: false, reload: nothing };
  render(<Passkeys account={account} factors={factors} list={list} onChanged={nothing} />);
  await user.click(screen.getByTestId("passkey-add"));
  await user.type(await screen.findByLabelText("Name"), "Laptop{Enter}");
  expect((await screen.findByRole("alert")).textContent).toBe("This device has a passkey for your account already.");
});

test("a list that could not be had again says so, beside what was there before", async () => {
  const user = userEvent.setup();
  const named = [{ id: "a", name: "weechat", created: 1, used: null }];
  const appPasswords = vi.fn().mockResolvedValueOnce(named).mockRejectedValueOnce(offline).mockResolvedValue([]);
  render(
    <>
      <AppPasswords account={fakeAccount({ appPasswords })} />
      <Toaster />
    </>,
  );
  await user.click(await screen.findByRole("button", { name: "Remove the app password “weechat”?" }));
  await user.click(screen.getByRole("button", { name: "Remove" }));
  expect((await screen.findByRole("alert")).textContent).toContain("cannot be reached");
  expect(screen.getByText("weechat")).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "Try again" }));
  await waitFor(() => expect(screen.queryByText("weechat")).toBeNull());
  expect(screen.queryByRole("alert")).toBeNull();
});

test("how far an archive has come is seen on a slow line, too", async () => {
  vi.useFakeTimers();
  let done = 0;
  const account = fakeAccount({
    export: async () => {
      await new Promise((next) => setTimeout(next, 6000)); // longer than between two looks
      return { state: "working", rooms: { done: ++done, total: 14 }, size: 0, expires: null };
    },
  });
  const inChat = (children: ReactNode) => <ChatContext value={f.fakeChat({ account })}>{children}</ChatContext>;
  render(inChat(<DataExport account={account} />));
  const wait = async (seconds: number): Promise<void> => {
    for (let second = 0; second < seconds; second++) await act(() => vi.advanceTimersByTimeAsync(1000));
  };
  await wait(6);
  expect(screen.getByText(/^1 of 14/)).toBeTruthy();
  await wait(10);
  expect(screen.getByText(/^2 of 14/)).toBeTruthy();
  await wait(10);
  expect(screen.getByText(/^3 of 14/)).toBeTruthy();
});

test("back from a page of the settings, the focus is at its entry in the list", () => {
  const pages = ["appearance", "security"].map((id) => ({ id, name: id, text: "", icon: null, content: null }));
  const props = { pages, onLeave: nothing, onList: nothing, onSignOut: nothing };
  const { rerender } = render(<Settings {...props} open="security" />);
  screen.getAllByRole("button", { name: "Back" })[1]?.focus();
  rerender(<Settings {...props} open={null} />);
  expect(document.activeElement?.getAttribute("href")).toBe("/settings/security");
});

test("recovery codes that nobody has kept yet are there again for whoever comes back", async () => {
  const user = userEvent.setup();
  let told: (codes: string[]) => void = nothing;
  const newRecoveryCodes = (): Promise<string[]> => new Promise((resolve) => (told = resolve));
  const account = fakeAccount({ newRecoveryCodes });
  const { unmount } = render(<Security account={account} userId="@ann:x.org" />);
  await user.click(await screen.findByRole("button", { name: "Make new codes" }));
  const question = screen.getByRole("alertdialog");
  await user.click([...question.querySelectorAll("button")].at(-1) ?? question);
  unmount(); // by the phone's own button, before they have come
  await act(async () => told(["AAAA-BBBB"]));
  const again = render(<Security account={account} userId="@ann:x.org" />);
  expect(await screen.findByText("AAAA-BBBB")).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "I have kept them" }));
  again.unmount();
  render(<Security account={account} userId="@ann:x.org" />);
  expect(screen.queryByText("AAAA-BBBB")).toBeNull();
});

test("a page that comes by itself is read out from its heading", () => {
  render(<Barred server="x.org" userId="@ann:x.org" onAgain={async () => {}} onSignOut={nothing} />);
  expect(document.activeElement?.textContent).toBe("This account is locked");
});

test("why a password was not changed is told to whoever has closed the dialog meanwhile", async () => {
  const user = userEvent.setup();
  let refuse: (error: unknown) => void = nothing;
  const changePassword = (): Promise<void> => new Promise((_, reject) => (refuse = reject));
  const account = fakeAccount({ changePassword });
  render(
    <ChatContext value={f.fakeChat({ account })}>
      <AccountPage account={account} me={{ userId: "@ann:x.org", name: "Ann" }} />
      <Toaster />
    </ChatContext>,
  );
  await user.click(screen.getByRole("button", { name: "Change password" }));
  await user.type(screen.getByLabelText("New password"), "a long password{Enter}");
  await user.keyboard("{Escape}");
  expect(screen.queryByRole("dialog")).toBeNull();
  act(() => refuse(new ApiError(400, { errcode: "M_WEAK_PASSWORD", error: "weak" })));
  expect(await screen.findByText("The server does not take this password. Choose another one.")).toBeTruthy();
});

test("whoever cannot confirm the keys of a new account is not held there", async () => {
  const user = userEvent.setup();
  const signOut = vi.fn(async () => {});
  const phase = { at: "setup", userId: "@ann:x.org", recoveryKey: null, failure: "It was not confirmed." } as const;
  render(<AppView app={fakeApp(phase, { signOut })} />);
  await user.click(await screen.findByRole("button", { name: "Sign out" }));
  expect(signOut).toHaveBeenCalledTimes(1);
});

test("what is wrong in a form is where one goes on, also when the server says it later, unless one has gone on", async () => {
  const user = userEvent.setup();
  const model = fakeSignUp({ asks: { token: true, email: "no", reason: false } });
  let answer: () => void = nothing;
  vi.spyOn(model, "isNameFree").mockReturnValue(new Promise<boolean>(nothing));
  vi.spyOn(model, "submit").mockImplementation(() => {
    model.state.setState({ busy: true, wrong: {} });
    answer = () => model.state.setState({ busy: false, wrong: { token: "This invitation is not known." } });
    return Promise.resolve();
  });
  render(<SignUp server="x.org" model={model} onSignIn={nothing} />);
  const field = (name: string): HTMLElement => screen.getByLabelText(name);
  await user.type(field("Name"), "ann");
  await user.type(field("Invitation token"), "used{Enter}");
  expect(document.activeElement).toBe(field("Password")); // too short
  await user.type(field("Password"), "a long password{Enter}");
  await act(async () => answer());
  expect(document.activeElement).toBe(field("Invitation token"));
  await user.keyboard("x{Enter}");
  await user.click(field("Name"));
  await act(async () => answer());
  expect(document.activeElement).toBe(field("Name"));
});

test.each([
  ["sign-in", { needs: null }],
  ["a code", { needs: ["totp"], chosen: "totp" }],
  ["a passkey", { needs: ["passkey"], chosen: "passkey" }],
] as const)("that one has to wait is not said any more once the wait is over: %s", async (_what, at) => {
  vi.useFakeTimers();
  const limited = { failure: "Too many tries. Try again in 3 seconds.", waitUntil: Date.now() + 3000 };
  const { needs, ...chosen } = at;
  const model = fakeSignIn({ ...limited, ...chosen, needs: needs === null ? null : [...needs] });
  const props = { server: "x.org", ended: null, toLetIn: false, onSignUp: nothing, onForgot: nothing };
  render(<SignIn {...props} model={model} onDevice={nothing} onSignOut={nothing} />);
  expect(screen.getByRole("alert").textContent).toContain("Too many tries");
  await act(() => vi.advanceTimersByTimeAsync(4000));
  expect(screen.queryByRole("alert")).toBeNull();
  act(() => model.state.setState({ failure: "It is not right.", waitUntil: null }));
  expect(screen.getByRole("alert").textContent).toContain("It is not right.");
});

test.each(["form", "terms", "mail"] as const)("nor on the way to an account: %s", async (step) => {
  vi.useFakeTimers();
  const limited = { failure: "Too many tries. Try again in 3 seconds.", waitUntil: Date.now() + 3000 };
  render(<SignUp server="x.org" model={fakeSignUp({ ...limited, step })} onSignIn={nothing} />);
  expect(screen.getByRole("alert").textContent).toContain("Too many tries");
  await act(() => vi.advanceTimersByTimeAsync(4000));
  expect(screen.queryByRole("alert")).toBeNull();
});
