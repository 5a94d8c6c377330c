// @vitest-environment happy-dom
import { act, cleanup, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { createRef } from "react";
import { afterEach, expect, test, vi } from "vitest";
import { Router } from "wouter";
import { memoryLocation } from "wouter/memory-location";
import { ChatView } from "../src/app/ChatView";
import { SignIn } from "../src/features/auth/SignIn";
import { SignUp } from "../src/features/auth/SignUp";
import { Composer } from "../src/features/composer/Composer";
import { RecoveryKey } from "../src/features/identity/RecoveryKey";
import { Unlock } from "../src/features/identity/Unlock";
import { MessageRow } from "../src/features/timeline/MessageRow";
import { Timeline } from "../src/features/timeline/Timeline";
import { fakeSignUp } from "../src/gallery/entry";
import * as f from "../src/gallery/fixtures";
import type { Timeline as TimelineModel } from "../src/stores/model";
import { cell } from "../src/stores/observable";
import { emptyDraft } from "../src/stores/signUpDraft";
import { fakeSignIn } from "../src/stores/testing/signIn";
import { initials } from "../src/ui/core";
import { isUserId } from "../src/ui/matrixId";
import { TooltipProvider } from "../src/ui/icon";
import { Linked } from "../src/ui/links";
import { Toaster } from "../src/ui/toast";

afterEach(cleanup);
const actions = { reply: vi.fn(), openImage: vi.fn(), jumpTo: vi.fn() };

test("the recovery key is published only after two of its groups were typed", async () => {
  const user = userEvent.setup();
  const confirmed = vi.fn(async () => {});
  const groups = ["aaaa", "bbbb", "cccc", "dddd"];
  render(
    <RecoveryKey
      userId="@ann:x.org"
      recoveryKey={groups.join(" ")}
      onRetry={() => {}}
      onSignOut={() => {}}
      onConfirmed={confirmed}
    />,
  );
  await user.click(screen.getByRole("button", { name: "I have kept it" }));
  const inputs = screen.getAllByRole<HTMLInputElement>("textbox");
  expect(inputs).toHaveLength(2);
  for (const input of inputs) await user.type(input, "zzzz");
  await user.click(screen.getByRole("button", { name: "Confirm" }));
  expect(confirmed).not.toHaveBeenCalled();
  expect(screen.getByRole("alert").textContent).toMatch(/That is not group \d\./);
  for (const input of inputs) {
    const n = Number(/\d+/.exec(input.labels?.[0]?.textContent ?? "")?.[0]);
    await user.clear(input);
    await user.type(input, groups[n - 1] ?? "");
  }
  await user.click(screen.getByRole("button", { name: "Confirm" }));
  expect(confirmed).toHaveBeenCalledTimes(1);
});

test("a wrong recovery key is said in words", async () => {
  const user = userEvent.setup();
  render(<Unlock userId="@ann:x.org" onUnlock={() => Promise.reject(new Error("wrong_key"))} onSignOut={() => {}} />);
  await user.type(screen.getByLabelText("Recovery key"), "EsT");
  await user.click(screen.getByRole("button", { name: "Unlock" }));
  expect((await screen.findByRole("alert")).textContent).toContain("This is not the recovery key of @ann:x.org.");
});

test("signing up says what is taken or too short, and asks for nothing where the server is closed", async () => {
  const user = userEvent.setup();
  const model = fakeSignUp();
  const submit = vi.spyOn(model, "submit");
  const { unmount } = render(<SignUp server="x.org" model={model} onSignIn={() => {}} />);
  await user.type(screen.getByLabelText("Name"), "alice");
  expect(await screen.findByText("This name is taken.")).toBeTruthy();
  await user.type(screen.getByLabelText("Password"), "short");
  await user.click(screen.getByRole("button", { name: "Create account" }));
  expect(await screen.findByText("Use at least 10 characters.")).toBeTruthy();
  expect(submit).not.toHaveBeenCalled();
  unmount();
  render(<SignUp server="x.org" model={fakeSignUp({ step: "closed" })} onSignIn={() => {}} />);
  expect(screen.getByText(/does not take new accounts/)).toBeTruthy();
  expect(screen.queryByLabelText("Password")).toBeNull();
});

test("what the server says of a field stands until it is changed, and the rest is trimmed", async () => {
  const user = userEvent.setup();
  const asks = { token: true, email: "optional", reason: false } as const;
  const draft = { ...emptyDraft, name: "bob", token: "used" };
  const model = fakeSignUp({ asks, draft, wrong: { token: "This invitation is not known." } });
  const submit = vi.spyOn(model, "submit");
  render(<SignUp server="x.org" model={model} onSignIn={() => {}} />);
  expect(screen.getByText("This invitation is not known.")).toBeTruthy();
  await user.clear(screen.getByLabelText("Invitation token"));
  await user.type(screen.getByLabelText("Invitation token"), " fresh ");
  expect(screen.queryByText("This invitation is not known.")).toBeNull();
  await user.type(screen.getByLabelText("Password"), "a long password");
  await user.type(screen.getByLabelText("E-mail address (optional)"), "nobody");
  await user.click(screen.getByRole("button", { name: "Create account" }));
  expect(screen.getByText("This is not an e-mail address that mail can be sent to.")).toBeTruthy();
  await user.type(screen.getByLabelText("E-mail address (optional)"), "@x.org ");
  await user.click(screen.getByRole("button", { name: "Create account" }));
  expect(submit).toHaveBeenCalledWith({
    name: "bob",
    password: "a long password",
    token: "fresh",
    email: "nobody@x.org",
    reason: "",
  });
});

test("documents are agreed to one by one, and all of them", async () => {
  const user = userEvent.setup();
  const policies = ["Terms", "Privacy"].map((name) => ({
    id: name,
    version: "1",
    texts: { en: { name, url: `https://x.org/${name}` }, de: { name: `${name} (de)`, url: "https://x.org/de" } },
  }));
  const model = fakeSignUp({ step: "terms", policies });
  const agree = vi.spyOn(model, "agree");
  render(<SignUp server="x.org" model={model} onSignIn={() => {}} />);
  const links = screen.getAllByRole<HTMLAnchorElement>("link");
  expect(links.map(({ href, rel, target }) => [href, rel, target])).toEqual([
    ["https://x.org/Terms", "noopener noreferrer", "_blank"],
    ["https://x.org/Privacy", "noopener noreferrer", "_blank"],
  ]);
  await user.click(screen.getByLabelText("I agree to: Terms"));
  await user.click(screen.getByRole("button", { name: "Continue" }));
  expect(screen.getByRole("alert").textContent).toContain("Agree to all documents");
  expect(agree).not.toHaveBeenCalled();
  await user.click(screen.getByLabelText("I agree to: Privacy"));
  await user.click(screen.getByRole("button", { name: "Continue" }));
  expect(agree).toHaveBeenCalledTimes(1);
});

test("the page of a stage is believed only from the server, and only from the window that was opened for it", async () => {
  const user = userEvent.setup();
  const model = fakeSignUp({ step: "page", page: "https://hs.test/_matrix/fallback?session=s" });
  const check = vi.spyOn(model, "check");
  const popup = { close: vi.fn() } as unknown as Window;
  vi.spyOn(window, "open").mockReturnValue(popup);
  render(<SignUp server="x.org" model={model} onSignIn={() => {}} />);
  await user.click(screen.getByRole("button", { name: "Open the page" }));
  const say = (data: string, origin: string, source: Window | null): void => {
    const event = new MessageEvent("message", { data, origin });
    Object.defineProperty(event, "source", { value: source });
    window.dispatchEvent(event);
  };
  say("authDone", "https://evil.test", popup);
  say("authDone", "https://hs.test", window);
  say("something", "https://hs.test", popup);
  expect(check).not.toHaveBeenCalled();
  say("authDone", "https://hs.test", popup);
  expect(check).toHaveBeenCalledTimes(1);
  vi.restoreAllMocks();
});

test("a code is taken in whatever form it is pasted, and sent as digits once there are six", async () => {
  const user = userEvent.setup();
  const model = fakeSignIn({ needs: ["totp", "recovery"], chosen: "totp" });
  const factor = vi.spyOn(model, "factor");
  render(
    <SignIn
      server="x.org"
      model={model}
      ended={null}
      onSignUp={() => {}}
      toLetIn={false}
      onDevice={() => {}}
      onForgot={() => {}}
      onSignOut={() => {}}
    />,
  );
  const input = screen.getByLabelText<HTMLInputElement>("Code");
  expect([input.inputMode, input.autocomplete]).toEqual(["numeric", "one-time-code"]);
  await user.type(input, "12345{Enter}");
  expect(screen.getByText("Enter the six digits.")).toBeTruthy();
  expect(factor).not.toHaveBeenCalled();
  await user.clear(input);
  await user.click(input);
  await user.paste(" 123 456\n");
  await user.keyboard("{Enter}");
  expect(factor).toHaveBeenCalledWith("123456");
});

function composer() {
  const room = f.fakeRoom({ summary: f.rooms()[1] ?? null });
  const sent = vi.spyOn(room, "sendText");
  const files = vi.spyOn(room, "sendFile");
  const up = vi.fn();
  render(
    <TooltipProvider>
      <Composer room={room} name="Harbour" input={createRef()} onUp={up} />
    </TooltipProvider>,
  );
  return { room, sent, files, up, user: userEvent.setup(), input: screen.getByRole("textbox") };
}

test("Enter sends, Shift and Enter does not, and nothing empty goes out", async () => {
  const { room, sent, user, input, up } = composer();
  await user.type(input, "  {Enter}");
  expect(sent).not.toHaveBeenCalled();
  await user.clear(input);
  await user.keyboard("{ArrowUp}");
  expect(up).toHaveBeenCalledTimes(1);
  await user.type(input, "one{Shift>}{Enter}{/Shift}two");
  expect(room.draft.get().text).toBe("one\ntwo");
  await user.keyboard("{Enter}");
  expect(sent).toHaveBeenCalledWith("one\ntwo", null);
  expect(room.draft.get()).toEqual({ text: "", replyTo: null });
});

test("a reply goes to what was chosen, and Escape gives it up", async () => {
  const { room, sent, user, input } = composer();
  room.setDraft({ text: "", replyTo: { id: "$q", sender: f.bob, body: "what?" } });
  await user.type(input, "this{Enter}");
  expect(sent).toHaveBeenCalledWith("this", "$q");
  room.setDraft({ text: "that", replyTo: { id: "$q", sender: f.bob, body: "what?" } });
  await user.type(input, "{Escape}");
  expect(room.draft.get()).toEqual({ text: "that", replyTo: null });
});

test("a pasted picture is sent as a file", async () => {
  const { files, user, input } = composer();
  const picture = new File(["x"], "shot.png", { type: "image/png" });
  input.focus();
  const data = new DataTransfer();
  data.items.add(picture);
  await user.paste(data);
  expect(files).toHaveBeenCalledWith(expect.objectContaining({ name: "shot.png" }));
});

test("what others write is text, whatever it looks like", () => {
  const evil = '<img src=x onerror="alert(1)"> javascript:alert(1) https://ok.example/a).';
  const { container } = render(
    <MessageRow
      room={f.fakeRoom({ summary: null })}
      message={f.message(f.bob, f.now, evil)}
      first
      last
      withSender
      actions={actions}
    />,
  );
  expect(container.querySelector("img")).toBeNull();
  expect([...container.querySelectorAll("a")].map((a) => [a.getAttribute("href"), a.rel])).toEqual([
    ["https://ok.example/a", "noopener noreferrer nofollow"],
  ]);
  expect(container.querySelector("p")?.textContent).toContain(evil);
});

test.each([
  ["see https://a.example/x_(y), then", ["https://a.example/x_(y)"]],
  ["http://", []],
  ["ftp://a.example data:text/html,x", []],
  ["https://a.example/?q=1&r=2!", ["https://a.example/?q=1&r=2"]],
])("links in %j", (text, links) => {
  const { container } = render(<Linked text={text} />);
  expect([...container.querySelectorAll("a")].map((a) => a.textContent)).toEqual(links);
  expect(container.textContent).toBe(text);
});

test("a failed message offers to try again and to discard", async () => {
  const user = userEvent.setup();
  const room = f.fakeRoom({ summary: null });
  const retry = vi.spyOn(room, "retry");
  const discard = vi.spyOn(room, "discard");
  const failed = f.message(f.alice, f.now, "hello", { delivery: "failed" });
  render(<MessageRow room={room} message={failed} first last withSender actions={actions} />);
  await user.click(screen.getByRole("button", { name: "Try again" }));
  await user.click(screen.getByRole("button", { name: "Discard" }));
  expect(retry).toHaveBeenCalledWith(failed.id);
  expect(discard).toHaveBeenCalledWith(failed.id);
});

test.each(["sending", "sent", "delivered", "read"] as const)("a %s message says so in words", (delivery) => {
  const own = f.message(f.alice, f.now, "hello", { delivery });
  render(<MessageRow room={f.fakeRoom({ summary: null })} message={own} first last withSender actions={actions} />);
  expect(screen.getByRole("img", { name: new RegExp(`^${delivery}$`, "i") })).toBeTruthy();
});

test.each([
  ["@bob:example.org", true],
  ["@bob:localhost:8448", true],
  ["@b-o_b.=/+:[::1]:80", true],
  ["bob:example.org", false],
  ["@bob", false],
  ["@bo b:example.org", false],
  ["@bob:exa mple.org", false],
  [`@${"b".repeat(300)}:example.org`, false],
])("is %s a Matrix ID: %s", (id, valid) => expect(isUserId(id)).toBe(valid));

test.each([
  ["Alice Weber", "AW"],
  ["@bob:example.org", "B"],
  ["Kitchen, third floor", "KF"],
  ["ليلى عبد الرحمن", "لا"],
  ["🎉🎉 🎉", "🎉"],
  ["👩‍🚀 Crew", "👩‍🚀"],
  ["Crew 👩‍🚀", "C"],
  ["!#@", "?"],
])("the avatar of %s shows %s", (name, shown) => expect(initials(name)).toBe(shown));

test("a file that the server will never take is not offered again", () => {
  const failed = { id: "1", name: "film.mp4", done: 0, total: 9 };
  const uploads = [
    { ...failed, failure: { reason: "Too large.", again: false } },
    { ...failed, id: "2", failure: { reason: "No connection.", again: true } },
  ];
  render(
    <TooltipProvider>
      <Composer room={f.fakeRoom({ summary: null, uploads })} name="Harbour" input={createRef()} onUp={() => {}} />
    </TooltipProvider>,
  );
  expect(screen.getAllByRole("alert").map((row) => row.textContent)).toEqual([
    "film.mp4 was not sent.Too large.",
    "film.mp4 was not sent.No connection.",
  ]);
  expect(screen.getAllByRole("button", { name: "Try again" })).toHaveLength(1);
});

test("what others write is read out while the conversation is open, not what was there before", () => {
  const before = [f.message(f.bob, f.now, "before")];
  const timeline = cell<TimelineModel>({ items: before, firstIndex: 9, loading: false, more: false, failed: false });
  const room = { ...f.fakeRoom({ summary: null }), timeline };
  render(<Timeline room={room} direct={false} onReply={() => {}} onLeave={() => {}} />);
  const say = (...items: TimelineModel["items"]): void =>
    act(() => timeline.set({ ...timeline.get(), items: [...timeline.get().items, ...items] }));
  expect(screen.getByRole("status").textContent).toBe("");
  say(f.message(f.alice, f.now, "my own"));
  expect(screen.getByRole("status").textContent).toBe("");
  say(f.message(f.bob, f.now, "Noted."));
  expect(screen.getByRole("status").textContent).toBe("Bob Okafor: Noted.");
});

function open(path: string, chat: Parameters<typeof f.fakeChat>[0] = {}) {
  const { hook } = memoryLocation({ path });
  return render(
    <Router hook={hook}>
      <ChatView chat={f.fakeChat(chat)} />
    </Router>,
  );
}

test("the tab says how much is unread, and where one is", () => {
  const { unmount } = open("/");
  expect(document.title).toBe("(17) Conclave"); // 3, 1 and 12 messages, and an invitation
  unmount();
  open(`/room/${encodeURIComponent("!board:northwind.org")}`, { rooms: [f.summary("!board:northwind.org", "Board")] });
  expect(document.title).toBe("Board · Conclave");
});

test.each([
  ["a phone", false, 2],
  ["a desktop", true, 1],
])("that there is no connection is said where one looks on %s", (_device, wide, times) => {
  vi.stubGlobal("matchMedia", (query: string) => ({
    matches: query.includes("48rem") && wide,
    addEventListener() {},
    removeEventListener() {},
  }));
  open(`/room/${encodeURIComponent("!board:northwind.org")}`, { connection: "offline" });
  // The list of a phone is there, but not shown beside a conversation.
  expect(screen.getAllByText("No connection. What you write is sent once it is back.")).toHaveLength(times);
  vi.unstubAllGlobals();
});

test("a text that the browser does not let be copied is said not to be", async () => {
  const user = userEvent.setup();
  vi.spyOn(navigator.clipboard, "writeText").mockRejectedValue(new DOMException("no", "NotAllowedError"));
  render(
    <>
      <MessageRow
        room={f.fakeRoom({ summary: null })}
        message={f.message(f.bob, 0, "to be copied")}
        first
        last
        withSender
        actions={actions}
      />
      <Toaster />
    </>,
  );
  await user.click(screen.getByRole("button", { name: "Actions for this message" }));
  await user.click(screen.getByRole("menuitem", { name: "Copy text" }));
  expect(await screen.findByText(/did not let the text be copied/)).toBeTruthy();
});
