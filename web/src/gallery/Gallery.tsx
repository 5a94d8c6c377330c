import type { ReactNode } from "react";
import { Router } from "wouter";
import { memoryLocation } from "wouter/memory-location";
import { useLanguage } from "../i18n";
import { TooltipProvider } from "../ui/icon";
import { Toaster } from "../ui/toast";
import { states } from "./states";

/** `/gallery` lists the states; `/gallery/NAME` shows one as the whole page. */
export function Gallery() {
  useLanguage();
  const name = location.pathname.split("/")[2] ?? "";
  const state = states[name];
  if (state === undefined) {
    return (
      <main className="h-full overflow-y-auto p-8">
        <h1 className="text-xl font-semibold">Gallery</h1>
        <ul className="mt-4 columns-2 gap-8 text-sm leading-7">
          {Object.keys(states).map((each) => (
            <li key={each}>
              <a href={`/gallery/${each}`} className="text-accent-ink underline">
                {each}
              </a>
            </li>
          ))}
        </ul>
      </main>
    );
  }
  return <Shown path={state.path}>{state.render()}</Shown>;
}

function Shown({ path, children }: { path: string; children: ReactNode }) {
  const { hook } = memoryLocation({ path });
  return (
    <Router hook={hook}>
      <TooltipProvider delayDuration={450}>
        {children}
        <Toaster />
      </TooltipProvider>
    </Router>
  );
}
