import type { Session } from "../sdk";
import { describe, errcodeOf } from "./failed";
import { t } from "../i18n";
import type { Observable, Upload, UploadFailure } from "./model";
import { cell } from "./observable";

/** The files on their way out of one conversation; they go on while one looks at another. */
export interface Uploads {
  readonly list: Observable<Upload[]>;
  send(file: File): void;
  cancel(id: string): void;
  retry(id: string): void;
}

export function uploads(session: Session, roomId: string): Uploads {
  const list = cell<Upload[]>([]);
  const running = new Map<string, { file: File; stop: AbortController }>();
  let serial = 0;

  function change(id: string, part: Partial<Upload>): void {
    list.set(list.get().map((upload) => (upload.id === id ? { ...upload, ...part } : upload)));
  }

  function drop(id: string): void {
    running.delete(id);
    list.set(list.get().filter((upload) => upload.id !== id));
  }

  async function run(id: string, file: File): Promise<void> {
    const stop = new AbortController();
    running.set(id, { file, stop });
    try {
      await session.sendFile(roomId, file, {
        signal: stop.signal,
        onProgress: (done, total) => change(id, { done, total }),
      });
      drop(id);
    } catch (error) {
      // The person decides: the row offers to try again or to give it up.
      if (stop.signal.aborted) drop(id);
      else change(id, { failure: whyNot(error) });
    }
  }

  return {
    list,
    send(file) {
      const id = `upload ${++serial}`;
      list.set([...list.get(), { id, name: file.name, done: 0, total: file.size, failure: null }]);
      void run(id, file);
    },
    cancel(id) {
      const upload = running.get(id);
      upload?.stop.abort();
      drop(id);
    },
    retry(id) {
      const upload = running.get(id);
      if (upload === undefined) return;
      change(id, { done: 0, failure: null });
      void run(id, upload.file);
    },
  };
}

function whyNot(error: unknown): UploadFailure {
  if (error instanceof Error && error.message === "not_sealed")
    return { reason: t("composer.filesSealedOnly"), again: false };
  return { reason: describe(error), again: errcodeOf(error) !== "M_TOO_LARGE" };
}
