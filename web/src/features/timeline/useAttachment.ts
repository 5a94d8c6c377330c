import { useEffect, useState } from "react";
import { t } from "../../i18n";
import { describe } from "../../stores/failed";
import type { RoomModel } from "../../stores/model";

interface Loaded {
  url: string | null;
  failure: string | null;
  retry(): void;
}

/** What to tell of a file that could not be had; a wrong hash is not a matter of trying again. */
export function attachmentFailure(error: unknown): string {
  const message = error instanceof Error ? error.message : "";
  if (/hash|digest|damaged/i.test(message)) return t("file.damaged");
  if (message === "too_large") return t("file.tooLarge");
  return message === "no_attachment" ? t("file.loadFailed") : describe(error);
}

/** The address of a decrypted picture for as long as the component stands; its bytes never leave this page. */
export function useAttachment(room: RoomModel, messageId: string, thumbnail: boolean): Loaded {
  const [state, setState] = useState<{ url: string | null; failure: string | null }>({ url: null, failure: null });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    let url: string | null = null;
    room.readAttachment(messageId, { thumbnail, signal: stop.signal }).then(
      (blob) => {
        if (stop.signal.aborted) return;
        url = URL.createObjectURL(blob);
        setState({ url, failure: null });
      },
      (error: unknown) => {
        if (!stop.signal.aborted) setState({ url: null, failure: attachmentFailure(error) });
      },
    );
    return () => {
      stop.abort();
      if (url !== null) URL.revokeObjectURL(url);
    };
  }, [room, messageId, thumbnail, round]);
  return {
    ...state,
    retry() {
      setState({ url: null, failure: null });
      setRound(round + 1);
    },
  };
}
