import { expect, test, vi } from "vitest";
import { ApiError, type SendFileOptions, type Session } from "../sdk";
import { uploads } from "./uploads";

/** Waits until a check passes, on a busy machine as well. */
const soon = (check: () => void): Promise<void> => vi.waitFor(check, 20_000);

const file = new File(["bytes"], "plan.pdf");

/** Uploads over a session in which the test decides what becomes of a file. */
function started() {
  const calls: { options: SendFileOptions; done(): void; fail(error: unknown): void }[] = [];
  const session = {
    sendFile: (_room: string, _file: File, options: SendFileOptions) =>
      new Promise<void>((done, fail) => calls.push({ options, done, fail })),
  } as unknown as Session;
  const model = uploads(session, "!r:x.org");
  model.send(file);
  const [call] = calls;
  if (call === undefined) throw new Error("nothing was sent");
  return { model, calls, call, row: () => model.list.get()[0] };
}

test("progress is shown, and the row goes once the file is sent", async () => {
  const { call, row } = started();
  call.options.onProgress(2, 5);
  expect(row()).toMatchObject({ name: "plan.pdf", done: 2, total: 5, failure: null });
  call.done();
  await soon(() => expect(row()).toBeUndefined());
});

test("a cancelled upload is stopped, and leaves nothing behind", async () => {
  const { model, call, row } = started();
  model.cancel(row()?.id ?? "");
  expect(call.options.signal.aborted).toBe(true);
  call.fail(new DOMException("aborted", "AbortError"));
  await Promise.resolve();
  expect(model.list.get()).toEqual([]);
});

test("a lost connection is said, and trying again sends the same file", async () => {
  const { model, calls, call, row } = started();
  call.fail(new ApiError(0, {}));
  await soon(() => expect(row()?.failure).toMatchObject({ again: true }));
  expect(row()?.failure?.reason).toMatch(/cannot be reached/);
  model.retry(row()?.id ?? "");
  expect(calls).toHaveLength(2);
  expect(row()).toMatchObject({ failure: null, done: 0 });
});

test("a file that is too large says how large one may be, and is not offered again", async () => {
  const { call, row } = started();
  call.fail(Object.assign(new ApiError(413, { errcode: "M_TOO_LARGE" }), { limit: 50_000_000 }));
  await soon(() => expect(row()?.failure).toEqual({ reason: "This server takes files of up to 50 MB.", again: false }));
});
