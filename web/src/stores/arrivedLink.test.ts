// @vitest-environment happy-dom
import { afterEach, beforeEach, expect, test } from "vitest";
import { arrivedLink, forgetLink, watchForLink } from "./arrivedLink";

let end = (): void => {};

beforeEach(() => {
  sessionStorage.clear();
  history.replaceState(null, "", "/");
});
afterEach(() => {
  end();
  forgetLink();
});

test("a code goes out of the address, and is kept over a way that leads elsewhere, until it was dealt with", () => {
  history.replaceState(null, "", "/?q=1#/link?code=WDJB-MJHT");
  end = watchForLink();
  expect(arrivedLink.get()).toBe("WDJB-MJHT");
  expect(location.href).not.toContain("WDJB");
  expect(location.search + location.hash).toBe("?q=1");
  end();
  end = watchForLink();
  expect(arrivedLink.get()).toBe("WDJB-MJHT");
  forgetLink();
  end();
  end = watchForLink();
  expect(arrivedLink.get()).toBeNull();
});

test("a code arrives in a page that is open, too, and what is no code is not kept", () => {
  end = watchForLink();
  history.replaceState(null, "", "/#/link");
  window.dispatchEvent(new Event("hashchange"));
  expect([arrivedLink.get(), location.hash]).toEqual([null, ""]);
  history.replaceState(null, "", "/#/linked?code=AAAA-AAAA");
  window.dispatchEvent(new Event("hashchange"));
  expect([arrivedLink.get(), location.hash]).toEqual([null, "#/linked?code=AAAA-AAAA"]);
  history.replaceState(null, "", `/#/link?code=${"B".repeat(500)}`);
  window.dispatchEvent(new Event("hashchange"));
  expect(arrivedLink.get()).toHaveLength(40);
  expect(location.hash).toBe("");
});
