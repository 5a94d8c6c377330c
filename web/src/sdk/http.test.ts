import { afterEach, expect, test, vi } from "vitest";
import { request } from "./http";

afterEach(() => vi.unstubAllGlobals());

/** An answer whose connection is cut in the middle. */
function cut(): Response {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(new TextEncoder().encode('{"access_'));
    },
    pull: (controller) => controller.error(new TypeError("terminated")),
  });
  return new Response(body);
}

test("an answer that does not come to its end is none, as one that does not come", async () => {
  vi.stubGlobal("fetch", async () => cut());
  await expect(request("https://x.org", "GET", "/x")).rejects.toMatchObject({ name: "ApiError", status: 0 });
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("fetch failed")));
  await expect(request("https://x.org", "GET", "/x")).rejects.toMatchObject({ name: "ApiError", status: 0 });
});

test("whoever has given up waiting gets that as the reason", async () => {
  const controller = new AbortController();
  vi.stubGlobal("fetch", async () => {
    controller.abort(new Error("given up"));
    return cut();
  });
  const asked = request("https://x.org", "GET", "/x", { signal: controller.signal });
  await expect(asked).rejects.toThrow("given up");
});
