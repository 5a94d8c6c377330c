import { expect, test } from "vitest";
import { ApiError, Cancelled, type Confirmer } from "../sdk";
import { createConfirming } from "./confirm";

const who: Confirmer = {
  userId: "@ann:x.org",
  passkeyChallenge: async () => ({ options: { publicKey: {} }, challenge: "c" }),
};

function challenge(stage: string): ApiError {
  const params = { "im.conclave.second_factor": { types: ["passkey"] } };
  return new ApiError(401, { session: "s", flows: [{ stages: [stage] }], params });
}

/** A request that wants one stage, and takes what is right. */
function guarded(stage: string, right: (auth: Record<string, unknown>) => boolean) {
  return async (auth?: Record<string, unknown>): Promise<string> => {
    if (auth !== undefined && right(auth)) return "done";
    throw challenge(stage);
  };
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

test("a question is there until it is answered, busy while the answer is looked at", async () => {
  const { asking, confirm } = createConfirming();
  const done = confirm(
    who,
    guarded("m.login.password", ({ password }) => password === "right"),
  );
  await settle();
  const question = asking.get();
  expect(question).toMatchObject({ userId: "@ann:x.org", steps: [{ kind: "password" }], busy: false, refusal: null });
  question?.answer({ kind: "password", password: "right" });
  expect(asking.get()).toMatchObject({ busy: true });
  question?.cancel(); // too late
  expect(await done).toBe("done");
  expect(asking.get()).toBeNull();
});

test("whoever cancels ends the request", async () => {
  const { asking, confirm } = createConfirming();
  const done = confirm(
    who,
    guarded("m.login.password", () => false),
  );
  await settle();
  asking.get()?.cancel();
  await expect(done).rejects.toThrow(Cancelled);
  expect(asking.get()).toBeNull();
});

test("whoever cancels while an answer is looked at is not asked again", async () => {
  const { asking, confirm } = createConfirming();
  const answer = Promise.withResolvers<void>();
  const done = confirm(who, async (auth) => {
    if (auth !== undefined) await answer.promise;
    throw auth === undefined ? challenge("m.login.password") : new ApiError(0, {});
  });
  await settle();
  asking.get()?.answer({ kind: "password", password: "right" });
  asking.get()?.cancel(); // as the end of the session does
  answer.resolve();
  await expect(done).rejects.toThrow(Cancelled);
  expect(asking.get()).toBeNull();
});

test("two requests are confirmed one after the other", async () => {
  const { asking, confirm } = createConfirming();
  const order: string[] = [];
  const right = guarded("m.login.password", ({ password }) => password === "right");
  const first = confirm(who, right).then(() => order.push("first"));
  const second = confirm(who, right).then(() => order.push("second"));
  for (const _ of [1, 2]) {
    await settle();
    asking.get()?.answer({ kind: "password", password: "right" });
    await settle();
  }
  await Promise.all([first, second]);
  expect(order).toEqual(["first", "second"]);
});

test("a passkey answers, or what stands in its way is told", async () => {
  let works = false;
  const { asking, confirm } = createConfirming(async (options) => {
    expect(options).toEqual({ publicKey: {} });
    return works ? { ok: true, credential: { id: "k" } } : { ok: false, problem: "cancelled" };
  });
  const seen: unknown[] = [];
  const done = confirm(
    who,
    guarded("im.conclave.second_factor", (auth) => seen.push(auth) > 0),
  );
  await settle();
  expect(await asking.get()?.answerWithPasskey()).toBe("cancelled");
  expect(asking.get()).toMatchObject({ busy: false });
  works = true;
  expect(await asking.get()?.answerWithPasskey()).toBeNull();
  await done;
  expect(seen).toEqual([
    {
      type: "im.conclave.second_factor",
      session: "s",
      factor: "passkey",
      challenge: "c",
      credential: { id: "k" },
    },
  ]);
});
