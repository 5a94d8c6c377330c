// @vitest-environment happy-dom
/** Where the focus is after a step, for whoever goes by keys or hears the page. */
import { act, cleanup, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { useState } from "react";
import { afterEach, expect, test, vi } from "vitest";
import { TextButton } from "../src/features/auth/Frame";
import { RecoveryKey } from "../src/features/identity/RecoveryKey";
import { LetIn } from "../src/features/security/LetIn";
import { Listed } from "../src/features/security/Listed";
import { fakeAccount } from "../src/gallery/account";
import { Button } from "../src/ui/core";
import { Form, TextField } from "../src/ui/form";
import { Confirm, Dialog, Menu } from "../src/ui/overlay";

afterEach(cleanup);
const nothing = (): void => {};

test("a button that waits for what it began stays where it is, and takes no second press, nor does its form", async () => {
  const user = userEvent.setup();
  const pressed = vi.fn();
  const sent = vi.fn((event: { preventDefault(): void }) => event.preventDefault());
  function Page({ busy, off }: { busy: boolean; off?: boolean }) {
    return (
      <>
        <form onSubmit={sent}>
          <input aria-label="Code" />
          <Button type="submit" busy={busy} aria-disabled={off} onClick={pressed}>
            Go on
          </Button>
        </form>
        <TextButton disabled={busy} onClick={pressed}>
          Send another
        </TextButton>
      </>
    );
  }
  const { rerender } = render(<Page busy={false} />);
  const [button, another] = screen.getAllByRole<HTMLButtonElement>("button");
  await user.click(button as HTMLElement);
  expect([pressed.mock.calls.length, sent.mock.calls.length]).toEqual([1, 1]);
  for (const state of [{ busy: true }, { busy: false, off: true }]) {
    rerender(<Page {...state} />);
    expect([button?.disabled, button?.getAttribute("aria-disabled")]).toEqual([false, "true"]);
    act(() => button?.click());
    await user.type(screen.getByLabelText("Code"), "1{Enter}");
  }
  rerender(<Page busy />);
  expect([another?.disabled, another?.getAttribute("aria-disabled")]).toEqual([false, "true"]);
  act(() => another?.click());
  expect([pressed.mock.calls.length, sent.mock.calls.length]).toEqual([1, 1]);
});

test("a form that may not be sent yet keeps its button", () => {
  const send = vi.fn();
  render(
    <Form action="Sign in" busy={false} disabled failure="Too many tries." onSubmit={send}>
      <TextField label="Name" />
    </Form>,
  );
  const button = screen.getByRole<HTMLButtonElement>("button");
  expect(button.disabled).toBe(false);
  act(() => button.click());
  expect(send).not.toHaveBeenCalled();
});

test("the recovery key is read out from its heading, also when one comes back to it", async () => {
  const user = userEvent.setup();
  render(
    <RecoveryKey
      userId="@ann:x.org"
      recoveryKey="aaaa bbbb cccc"
      onRetry={nothing}
      onSignOut={nothing}
      onConfirmed={async () => {}}
    />,
  );
  const heading = (): HTMLElement => screen.getByRole("heading", { name: "Keep your recovery key" });
  expect(document.activeElement).toBe(heading());
  await user.click(screen.getByRole("button", { name: "I have kept it" }));
  expect(document.activeElement?.tagName).toBe("INPUT");
  await user.click(screen.getByRole("button", { name: "Show the key again" }));
  expect(document.activeElement).toBe(heading());
});

test("whoever has decided about a device goes on at the field of the next code", async () => {
  const user = userEvent.setup();
  render(<LetIn account={fakeAccount({})} onAllowed={nothing} />);
  await user.type(screen.getByLabelText("Code of the device"), "AAAA-AAAA{Enter}");
  await user.click(await screen.findByRole("button", { name: "Cancel" }));
  expect(document.activeElement).toBe(screen.getByLabelText("Code of the device"));
});

test("whoever has removed a row goes on at the heading of the page; what is loaded takes the focus from nobody", () => {
  function Page({ rows }: { rows: string[] | null }) {
    return (
      <main>
        <h1 tabIndex={-1}>Security</h1>
        <Listed list={{ value: rows, failure: null, asking: false, reload: nothing }} label="Passkeys" none="None">
          {(name) => (
            <li key={name}>
              <button type="button">{name}</button>
            </li>
          )}
        </Listed>
      </main>
    );
  }
  const { rerender } = render(<Page rows={null} />);
  rerender(<Page rows={["Laptop", "Phone"]} />);
  expect(document.activeElement).toBe(document.body);
  act(() => screen.getByRole("button", { name: "Phone" }).focus());
  rerender(<Page rows={["Laptop"]} />);
  expect(document.activeElement?.textContent).toBe("Security");
});

test("a dialog gives the focus back to what had it, and where that is gone to the heading of the page", async () => {
  const user = userEvent.setup();
  function Page() {
    const [open, setOpen] = useState<"dialog" | "question" | null>(null);
    const [gone, setGone] = useState(false);
    return (
      <main>
        <h1 tabIndex={-1}>Security</h1>
        <Menu
          trigger={<button type="button">More</button>}
          entries={[{ label: "Rename", icon: null, onSelect: () => setOpen("dialog") }]}
        />
        {gone ? null : (
          <button type="button" onClick={() => setOpen("question")}>
            Remove
          </button>
        )}
        <Dialog open={open === "dialog"} onOpenChange={() => setOpen(null)} title="Rename">
          <input aria-label="Name" autoFocus />
        </Dialog>
        <Confirm
          open={open === "question"}
          onOpenChange={() => setOpen(null)}
          title="Remove?"
          text=""
          action="Do it"
          onConfirm={() => {
            setGone(true);
            setOpen(null);
          }}
        />
      </main>
    );
  }
  render(<Page />);
  const holds = (text: string): Promise<void> =>
    vi.waitFor(() => expect(document.activeElement?.textContent).toBe(text), 10_000);
  await user.click(screen.getByRole("button", { name: "Remove" }));
  await user.keyboard("{Escape}");
  await holds("Remove");
  await user.click(screen.getByRole("button", { name: "More" }));
  await user.click(screen.getByRole("menuitem", { name: "Rename" }));
  await screen.findByLabelText("Name");
  await user.keyboard("{Escape}");
  await holds("More");
  await user.click(screen.getByRole("button", { name: "Remove" }));
  await user.click(screen.getByRole("button", { name: "Do it" }));
  await holds("Security");
});
