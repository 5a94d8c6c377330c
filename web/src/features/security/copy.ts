import { t } from "../../i18n";
import { describe } from "../../stores/failed";
import { toast } from "../../ui/toast";

/** Puts a text where it can be pasted from, and says so. */
export async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    toast("good", t("copied"));
  } catch (error) {
    toast("bad", describe(error));
  }
}
