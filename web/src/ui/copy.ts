import { t } from "../i18n";
import { toast } from "./toast";

/** Puts a text where it can be pasted from, and says so. */
export async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    toast("good", t("copied"));
  } catch {
    toast("bad", t("failed.copy"));
  }
}
