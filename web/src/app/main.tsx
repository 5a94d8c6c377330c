import { lazy, StrictMode, Suspense } from "react";
import { createRoot } from "react-dom/client";
import { currentLanguage, onLanguage, restoreLanguage } from "../i18n";
import {
  endSession,
  factorRule,
  forgetSession,
  openSession,
  preferLanguage,
  savedSession,
  unlessSignedIn,
} from "../sdk";
import { createApp, describeDevice } from "../stores/app";
import { restoreTheme } from "../stores/appearance";
import { watchForLink } from "../stores/arrivedLink";
import { createSignIn } from "../stores/signIn";
import "../ui/theme.css";
import { AppView } from "./AppView";

restoreTheme();

const root = document.getElementById("root");
if (root === null) throw new Error("the page has no #root");

// Every component in each of its states: for developers, and for the pictures that tests take. Not in a build.
const Gallery = import.meta.env.DEV
  ? lazy(() => import("../gallery/Gallery").then((m) => ({ default: m.Gallery })))
  : null;

function show(page: HTMLElement): void {
  if (Gallery !== null && location.pathname.startsWith("/gallery")) {
    createRoot(page).render(
      <Suspense>
        <Gallery />
      </Suspense>,
    );
    return;
  }
  watchForLink();
  const app = createApp({
    sdk: { endSession, factorRule, forgetSession, openSession, savedSession, unlessSignedIn },
    createSignIn,
    baseUrl: location.origin,
    deviceName: describeDevice(navigator.userAgent),
    openChat: async (...args) => (await import("../stores/chat")).openChat(...args),
  });
  void app.start();
  createRoot(page).render(
    <StrictMode>
      <AppView app={app} />
    </StrictMode>,
  );
}

onLanguage(() => preferLanguage(currentLanguage()));
// Texts are right from the first one on.
void restoreLanguage().then(() => show(root));
