import { CircleAlert, CircleCheck, X } from "lucide-react";
import { Toast } from "radix-ui";
import { useSyncExternalStore } from "react";
import { t } from "../i18n";

interface Shown {
  id: number;
  tone: "good" | "bad";
  text: string;
}

let shown: Shown[] = [];
let next = 1;
const listeners = new Set<() => void>();

function set(toasts: Shown[]): void {
  shown = toasts;
  for (const listener of listeners) listener();
}

/** Says one sentence at the edge of the page for a few seconds; a screen reader reads it. */
export function toast(tone: Shown["tone"], text: string): void {
  set([...shown.filter((other) => other.text !== text).slice(-2), { id: next++, tone, text }]);
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// Not sonner: it writes a <style> element, which our Content-Security-Policy refuses.
export function Toaster() {
  const toasts = useSyncExternalStore(subscribe, () => shown);
  return (
    <Toast.Provider swipeDirection="right" duration={5000} label={t("toast.label")}>
      {toasts.map(({ id, tone, text }) => (
        <Toast.Root
          key={id}
          onOpenChange={(open) => {
            if (!open) set(shown.filter((other) => other.id !== id));
          }}
          className="animate-rise flex items-center gap-2.5 rounded-xl border border-line bg-raised py-2 pr-2 pl-3.5 text-sm shadow-pop"
        >
          <span className={tone === "good" ? "text-good" : "text-bad"}>
            {tone === "good" ? <CircleCheck className="size-[18px]" /> : <CircleAlert className="size-[18px]" />}
          </span>
          <Toast.Description className="min-w-0 flex-1 leading-snug wrap-anywhere">{text}</Toast.Description>
          <Toast.Close
            aria-label={t("close")}
            className="touch flex size-8 items-center justify-center rounded-md text-ink-3 hover:bg-hover"
          >
            <X className="size-4" />
          </Toast.Close>
        </Toast.Root>
      ))}
      <Toast.Viewport
        label={t("toast.all")}
        className="fixed right-0 bottom-16 z-50 flex w-full max-w-sm flex-col gap-2 p-4 outline-none"
      />
    </Toast.Provider>
  );
}
