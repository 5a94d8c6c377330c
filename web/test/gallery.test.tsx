// @vitest-environment happy-dom
import { cleanup, render } from "@testing-library/react";
import type { ReactNode } from "react";
import { afterEach, expect, test, vi } from "vitest";
import { Router } from "wouter";
import { memoryLocation } from "wouter/memory-location";
import { states } from "../src/gallery/states";
import { TooltipProvider } from "../src/ui/icon";

afterEach(cleanup);

function Page({ path, children }: { path: string; children: ReactNode }) {
  const { hook } = memoryLocation({ path });
  return (
    <Router hook={hook}>
      <TooltipProvider>{children}</TooltipProvider>
    </Router>
  );
}

// What axe has to say is asked in a real browser, where colours, sizes and virtual lists are: e2e/gallery.e2e.ts.
test.each(Object.keys(states))("%s renders, and React complains about nothing", async (name) => {
  const state = states[name];
  if (state === undefined) throw new Error(name);
  const complaints = vi.spyOn(console, "error").mockImplementation(() => {});
  const { findAllByText } = render(<Page path={state.path}>{state.render()}</Page>);
  expect((await findAllByText(/\S/)).length).toBeGreaterThan(0);
  expect(complaints.mock.calls.map((call) => String(call[0]))).toEqual([]);
  complaints.mockRestore();
});
