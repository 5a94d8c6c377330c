import { describe, expect, test } from "vitest";
import { ApiError } from "./http";
import {
  answered,
  type Answer,
  authOf,
  begin,
  Cancelled,
  type Challenge,
  confirmed,
  type Confirmation,
  readChallenge,
  type Refusal,
  refused,
  type Step,
} from "./uia";

const password: Answer = { kind: "password", password: "a secret of mine" };
const code: Answer = { kind: "factor", type: "totp", code: "123456" };
const both = [["m.login.password", "im.conclave.second_factor"]];
const kinds = { "im.conclave.second_factor": { types: ["totp", "passkey", "recovery", "smoke signals"] } };

function challenge(rest: Record<string, unknown> = {}): ApiError {
  return new ApiError(401, {
    session: "s",
    flows: [{ stages: ["m.login.password"] }],
    params: {},
    ...rest,
  });
}

function asked(flows: string[][], rest: Partial<Challenge> = {}): Confirmation {
  return begin({ session: "s", flows, completed: [], factors: [], refused: null, ...rest });
}

function steps(state: Confirmation): Step[] {
  if (state.at === "over") throw state.error;
  return state.steps;
}

describe("what a challenge asks for", () => {
  test("only a 401 with flows is one", () => {
    expect(readChallenge(new Error("no"))).toBeNull();
    expect(readChallenge(new ApiError(401, { errcode: "M_UNKNOWN_TOKEN" }))).toBeNull();
    expect(readChallenge(new ApiError(403, { flows: [] }))).toBeNull();
    expect(
      readChallenge(challenge({ flows: [{ stages: ["a", 7] }, "nonsense"], params: kinds, errcode: "M_FORBIDDEN" })),
    ).toEqual({
      session: "s",
      flows: [["a"]],
      completed: [],
      factors: ["totp", "passkey", "recovery"],
      refused: "M_FORBIDDEN",
    });
  });

  test("the stages of a flow come one after the other", () => {
    expect(steps(asked(both, { factors: ["totp"] }))).toEqual([{ kind: "password" }]);
    expect(steps(asked(both, { completed: ["m.login.password"], factors: ["totp"] }))).toEqual([
      { kind: "factor", types: ["totp"] },
    ]);
  });

  test("what this client does not know is left to a page of the server, after what it knows", () => {
    const flows = [["m.login.sso"], ["m.login.password"], ["m.login.sso", "m.login.dummy"]];
    expect(steps(asked(flows))).toEqual([
      { kind: "password" },
      {
        kind: "elsewhere",
        stage: "m.login.sso",
        path: "/_matrix/client/v3/auth/m.login.sso/fallback/web?session=s",
      },
    ]);
    const [page] = steps(asked([["../../x?y"]], { session: "a&b=c" }));
    expect(page).toMatchObject({ path: "/_matrix/client/v3/auth/..%2F..%2Fx%3Fy/fallback/web?session=a%26b%3Dc" });
    // A second factor of kinds that are not known here.
    expect(steps(asked([["im.conclave.second_factor"]]))).toMatchObject([{ kind: "elsewhere" }]);
  });

  test("without any flow there is nothing to go on with", () => {
    expect(asked([]).at).toBe("over");
    expect(asked([["m.login.password"]], { completed: ["m.login.password"] }).at).toBe("over");
  });
});

describe("what a refusal means", () => {
  const at = (flows: string[][]): Confirmation => answered(asked(flows));
  const why = (state: Confirmation): Refusal | null | string => (state.at === "over" ? "over" : state.refusal);

  test("a wrong answer is asked for again, with the reason", () => {
    const state = refused(at(both), challenge({ errcode: "M_FORBIDDEN" }), password, 0);
    expect(state).toMatchObject({ at: "asking", session: "s", refusal: { why: "wrong" } });
    expect(answered(state)).toMatchObject({ at: "checking", refusal: null });
  });

  test("a code that cannot be checked is not called wrong", () => {
    const state = refused(at(both), challenge({ errcode: "IM.CONCLAVE.AUTHENTICATOR_UNREADABLE" }), code, 0);
    expect(state).toMatchObject({ at: "asking", refusal: { why: "unreadable" } });
  });

  test("a right one leads to the next stage", () => {
    const error = challenge({ flows: [{ stages: both[0] }], completed: ["m.login.password"], params: kinds });
    expect(refused(at(both), error, password, 0)).toEqual({
      at: "asking",
      session: "s",
      steps: [{ kind: "factor", types: ["totp", "passkey", "recovery"] }],
      refusal: null,
    });
  });

  test("too many tries are told with the time, and nothing is lost", () => {
    const limited = new ApiError(429, { errcode: "M_LIMIT_EXCEEDED", retry_after_ms: 900_000 });
    expect(refused(at(both), limited, code, 1000)).toMatchObject({
      at: "asking",
      session: "s",
      refusal: { why: "limited", until: 901_000 },
    });
    expect(why(refused(at(both), new ApiError(429, { errcode: "M_LIMIT_EXCEEDED" }), code, 0))).toEqual({
      why: "limited",
      until: 5000,
    });
  });

  test("without a connection it can be tried again", () => {
    expect(why(refused(at(both), new ApiError(0, {}), password, 0))).toEqual({ why: "offline" });
  });

  test("another session is a beginning", () => {
    const state = refused(at(both), challenge({ session: "t" }), code, 0);
    expect(state).toMatchObject({ session: "t", steps: [{ kind: "password" }], refusal: { why: "expired" } });
  });

  test("a page that is not done is said to be so", () => {
    const flows = { flows: [{ stages: ["m.login.sso"] }] };
    expect(why(refused(at([["m.login.sso"]]), challenge(flows), { kind: "elsewhere" }, 0))).toEqual({
      why: "unfinished",
    });
    const next = { flows: [{ stages: ["m.login.sso", "m.login.password"] }], completed: ["m.login.sso"] };
    expect(why(refused(at([["m.login.sso"]]), challenge(next), { kind: "elsewhere" }, 0))).toBeNull();
  });

  test("anything else ends it", () => {
    for (const error of [
      new ApiError(403, { errcode: "M_FORBIDDEN" }),
      new TypeError("no"),
      new ApiError(401, { errcode: "M_UNKNOWN_TOKEN" }),
    ]) {
      const state = refused(at(both), error, password, 0);
      expect(state).toEqual({ at: "over", error });
      expect(refused(state, error, password, 0)).toBe(state);
      expect(answered(state)).toBe(state);
    }
  });
});

test("an answer has the form of its stage", () => {
  expect(authOf("s", "@a:x", password)).toEqual({
    type: "m.login.password",
    session: "s",
    identifier: { type: "m.id.user", user: "@a:x" },
    password: "a secret of mine",
  });
  expect(authOf("s", "@a:x", code)).toEqual({
    type: "im.conclave.second_factor",
    session: "s",
    factor: "totp",
    code: "123456",
  });
  expect(authOf("s", "@a:x", { kind: "factor", type: "passkey", challenge: "c", credential: { id: "k" } })).toEqual({
    type: "im.conclave.second_factor",
    session: "s",
    factor: "passkey",
    challenge: "c",
    credential: { id: "k" },
  });
  expect(authOf("s", "@a:x", { kind: "elsewhere" })).toEqual({ session: "s" });
});

describe("a request and its confirmation", () => {
  /** A server that asks for stages in order, and takes one answer for each. */
  function server(stages: string[], right: (auth: Record<string, unknown>) => boolean, params: object = {}) {
    const completed: string[] = [];
    const seen: unknown[] = [];
    return {
      seen,
      async send(auth?: Record<string, unknown>): Promise<string> {
        seen.push(auth?.type);
        const ok = auth !== undefined && right(auth);
        if (ok && typeof auth.type === "string") completed.push(auth.type);
        if (completed.length === stages.length) return "done";
        throw challenge({
          flows: [{ stages }],
          completed: [...completed],
          params,
          ...(auth !== undefined && !ok ? { errcode: "M_FORBIDDEN" } : {}),
        });
      },
    };
  }

  function person(...answers: Answer[]) {
    const asked: [string, string | undefined][] = [];
    let ended = 0;
    return {
      asked,
      ended: () => ended,
      async ask(list: Step[], refusal: Refusal | null): Promise<Answer> {
        asked.push([list[0]?.kind ?? "", refusal?.why]);
        const answer = answers.shift();
        if (answer === undefined) throw new Cancelled();
        return answer;
      },
      end(): void {
        ended++;
      },
    };
  }

  test("goes through the stages, and says what was wrong on the way", async () => {
    const hs = server(
      both[0] ?? [],
      ({ password: typed, code: shown }) => typed === "a secret of mine" || shown === "123456",
      kinds,
    );
    const ann = person({ kind: "password", password: "guess" }, password, { ...code, code: "000000" } as Answer, code);
    expect(await confirmed({ userId: "@a:x" }, hs.send, ann)).toBe("done");
    expect(ann.asked).toEqual([
      ["password", undefined],
      ["password", "wrong"],
      ["factor", undefined],
      ["factor", "wrong"],
    ]);
    expect(ann.ended()).toBe(1);
  });

  test("asks nobody where nothing is to be confirmed, or only a formality", async () => {
    const ann = person();
    expect(await confirmed({ userId: "@a:x" }, async () => "at once", ann)).toBe("at once");
    expect(await confirmed({ userId: "@a:x" }, server(["m.login.dummy"], () => true).send, ann)).toBe("done");
    await expect(confirmed({ userId: "@a:x" }, server(["m.login.dummy"], () => false).send, ann)).rejects.toThrow(
      ApiError,
    );
    expect(ann.asked).toEqual([]);
    expect(ann.ended()).toBe(0);
  });

  test("tries a password that is known before it asks, once", async () => {
    const hs = server(
      both[0] ?? [],
      ({ password: typed, code: shown }) => typed === "a secret of mine" || shown === "123456",
      kinds,
    );
    const ann = person(code);
    expect(await confirmed({ userId: "@a:x", password: "a secret of mine" }, hs.send, ann)).toBe("done");
    expect(ann.asked).toEqual([["factor", undefined]]);
    const bob = person(password);
    await confirmed(
      { userId: "@b:x", password: "old" },
      server(["m.login.password"], (a) => a.password === "a secret of mine").send,
      bob,
    );
    expect(bob.asked).toEqual([["password", "wrong"]]);
  });

  test("waits for a moment where that is all that is asked", async () => {
    let calls = 0;
    const send = async (): Promise<string> => {
      if (++calls === 1) throw new ApiError(429, { errcode: "M_LIMIT_EXCEEDED", retry_after_ms: 1 });
      return "done";
    };
    expect(await confirmed({ userId: "@a:x" }, send, person())).toBe("done");
    const long = new ApiError(429, { errcode: "M_LIMIT_EXCEEDED", retry_after_ms: 60_000 });
    await expect(confirmed({ userId: "@a:x" }, () => Promise.reject(long), person())).rejects.toBe(long);
  });

  test("ends where the person does not go on, and where the request fails for another reason", async () => {
    const hs = server(["m.login.password"], () => false);
    const ann = person();
    await expect(confirmed({ userId: "@a:x" }, hs.send, ann)).rejects.toThrow(Cancelled);
    expect(hs.seen).toEqual([undefined]);
    expect(ann.ended()).toBe(1);
    const gone = person(password);
    const send = async (auth?: object): Promise<string> => {
      throw auth === undefined ? challenge() : new ApiError(404, { errcode: "M_NOT_FOUND" });
    };
    await expect(confirmed({ userId: "@a:x" }, send, gone)).rejects.toMatchObject({ errcode: "M_NOT_FOUND" });
    expect(gone.ended()).toBe(1);
  });
});
