// @vitest-environment happy-dom
import { IDBFactory } from "fake-indexeddb";
import { beforeEach, expect, test, vi } from "vitest";
import type { Session } from "../sdk";
import { openChat } from "./chat";
import * as observable from "./observable";

const live = vi.hoisted(() => ({ subscriptions: 0 }));

vi.mock("./observable", async (original) => {
  const real = await original<typeof observable>();
  function counted<O extends { subscribe(listener: () => void): () => void }>(made: O): O {
    return {
      ...made,
      subscribe(listener: () => void) {
        live.subscriptions++;
        const end = made.subscribe(listener);
        return () => {
          live.subscriptions--;
          end();
        };
      },
    };
  }
  return {
    cell: (initial: unknown) => counted(real.cell(initial)),
    derived: (compute: () => unknown, same?: (a: unknown, b: unknown) => boolean) =>
      counted(real.derived(compute, same)),
  };
});

beforeEach(() => vi.stubGlobal("indexedDB", new IDBFactory()));

/** A session in which nothing happens. */
function quiet(): Session {
  const client = {
    on: () => undefined,
    isInitialSyncComplete: () => true,
    getVisibleRooms: () => [],
    getRoom: () => null,
    getUser: () => null,
    getAccountData: () => undefined,
  };
  const credentials = { baseUrl: "https://x.org", userId: "@ann:x.org", deviceId: "A", accessToken: "t" };
  const safety = observable.cell({ sealed: true, withoutKeys: [], changed: [] });
  return {
    client,
    credentials,
    connection: observable.cell("live"),
    roomSafety: () => safety,
    isSealed: () => true,
    account: () => ({}),
  } as unknown as Session;
}

test("conversations that were looked at hold nothing once another one is open", async () => {
  const chat = await openChat(
    quiet(),
    () => Promise.reject(new Error("nobody asks")),
    async () => undefined,
  );
  const look = (times: number): void => {
    for (let i = 0; i < times; i++) chat.room(`!${i % 5}:x.org`);
  };
  look(5); // each has a draft from now on
  const before = live.subscriptions;
  look(50);
  expect(live.subscriptions).toBe(before);
});
