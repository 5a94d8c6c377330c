import { cell } from "./observable";

export type Theme = "system" | "light" | "dark";

const key = "conclave.theme";

function saved(): Theme {
  try {
    const value = localStorage.getItem(key);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system"; // the browser keeps nothing for this page
  }
}

/** With the language (i18n/language.ts) all that this client keeps outside the encrypted store: it says nothing about anybody. */
export const theme = cell<Theme>("system");

function apply(choice: Theme): void {
  if (choice === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = choice;
}

/** To be called before the first paint. */
export function restoreTheme(): void {
  theme.set(saved());
  apply(theme.get());
}

export function setTheme(choice: Theme): void {
  theme.set(choice);
  apply(choice);
  try {
    if (choice === "system") localStorage.removeItem(key);
    else localStorage.setItem(key, choice);
  } catch {
    // Then it holds for as long as the page is there.
  }
}
