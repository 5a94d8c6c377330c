import { cell } from "./observable";

export type Theme = "system" | "light" | "dark";

const key = "conclave.theme";

function saved(): Theme {
  const value = localStorage.getItem(key);
  return value === "light" || value === "dark" ? value : "system";
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
  if (choice === "system") localStorage.removeItem(key);
  else localStorage.setItem(key, choice);
  theme.set(choice);
  apply(choice);
}
