// @vitest-environment happy-dom
import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import { createStore } from "zustand/vanilla";
import { AppView } from "../src/app/AppView";
import { ApiError, Cancelled } from "../src/sdk";
import type { App, Phase } from "../src/stores/app";
import { createConfirming } from "../src/stores/confirm";
import { fakeSignIn } from "../src/stores/testing/signIn";

/** What a browser says of a part of the client that is not there any more, or not to be had without a connection. */
function unloaded(): never {
  throw new TypeError("Failed to fetch dynamically imported module");
}
vi.mock("../src/app/EntryPages", unloaded);
vi.mock("../src/features/security/ConfirmDialog", unloaded);

afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

function signedOut(): App {
  const never = (): Promise<never> => new Promise(() => {});
  return {
    phase: createStore<Phase>(() => ({ at: "signedOut", ended: null, signIn: fakeSignIn() })),
    baseUrl: "https://northwind.org",
    server: "northwind.org",
    deviceName: "test",
    confirming: createConfirming(),
    start: never,
    enter: never,
    enrolled: never,
    again: never,
    comeBack: never,
    makeIdentity: never,
    confirmIdentity: never,
    unlock: never,
    signOut: never,
  };
}

test("a page that cannot be loaded leaves no empty window, but a way to load it again", async () => {
  vi.spyOn(console, "error").mockImplementation(() => undefined); // React tells of it there
  location.hash = "#/reset";
  render(<AppView app={signedOut()} />);
  expect(await screen.findByRole("button", { name: "Reload" })).toBeTruthy();
  location.hash = "";
});

test("a question that cannot be shown ends what waits for it, and leaves the page as it is", async () => {
  vi.spyOn(console, "error").mockImplementation(() => undefined);
  const app = signedOut();
  render(<AppView app={app} />);
  const who = { userId: "@ann:x.org", passkeyChallenge: () => Promise.reject(new Error("none")) };
  const challenge = new ApiError(401, { session: "s", flows: [{ stages: ["m.login.password"] }] });
  await expect(app.confirming.confirm(who, () => Promise.reject(challenge))).rejects.toThrow(Cancelled);
  expect(await screen.findByText(/reload the page/)).toBeTruthy();
  expect(screen.getByRole("heading", { name: "Welcome back" })).toBeTruthy();
});
