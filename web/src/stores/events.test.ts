import { MatrixEvent, type Room } from "matrix-js-sdk";
import { expect, test } from "vitest";
import type { Failure } from "../sdk";
import { bodyOf, isMessage, messageOf, noticeOf, shortName } from "./events";

const me = "@ann:localhost";
const room = {
  myUserId: me,
  getMember: (userId: string) => (userId === "@bob:localhost" ? { name: "Bob" } : null),
  findEventById: () => undefined,
} as unknown as Room;

const judge = (failure: Failure | null = null) => ({ failure: () => failure, delivery: () => "sent" as const });

let serial = 0;
function event(content: unknown, rest: Record<string, unknown> = {}): MatrixEvent {
  return new MatrixEvent({
    type: "m.room.message",
    event_id: `$e${++serial}`,
    sender: "@bob:localhost",
    origin_server_ts: 1_700_000_000_000,
    room_id: "!r:localhost",
    content: content as object,
    ...rest,
  });
}

const strange = [
  [],
  "text",
  { msgtype: 7, body: "x" },
  { msgtype: "m.text" },
  { msgtype: "m.text", body: { toString: "evil" } },
  { msgtype: "m.image", body: "x" },
  { msgtype: "m.image", body: "x", file: [] },
  { msgtype: "constructor", body: "__proto__" },
  { msgtype: "m.text", body: ["a"], "m.relates_to": 3 },
  { msgtype: "m.new", body: "x" },
];

test.each(strange)("malformed content %j is said to be unknown, and breaks nothing", (content) => {
  const strangeEvent = event(content);
  expect(isMessage(strangeEvent)).toBe(true);
  expect(messageOf(strangeEvent, room, judge())?.body.kind).toBe("unsupported");
});

test.each(["m.room.message", "m.room.encrypted"])("%s of somebody who was erased shows as removed", (type) => {
  for (const content of [{}, null, undefined])
    // as the server gives it, and as good as that
    expect(messageOf(event(content, { type }), room, judge())?.body.kind).toBe("removed");
});

test("fields of the wrong kind do not spoil those that are right", () => {
  const content = {
    msgtype: "m.image",
    body: "a.png",
    url: "mxc://localhost/abc",
    info: { size: -1, w: "wide", h: 2 ** 60, mimetype: 9 },
  };
  expect(bodyOf(event(content), judge())).toEqual({
    kind: "image",
    attachment: { name: "a.png", size: null, width: null, height: null, mimetype: "application/octet-stream" },
  });
});

test("a text is cut at a length that a page can bear", () => {
  const body = bodyOf(event({ msgtype: "m.text", body: "x".repeat(1_000_000) }), judge());
  expect(body.kind === "text" && body.text.length).toBe(60_000);
});

test("what an answer repeats at its head is left out, and only in an answer", () => {
  const body = "> <@ann:localhost> hello\n> there\n\nyes";
  const relates = { "m.relates_to": { "m.in_reply_to": { event_id: "$x" } } };
  expect(bodyOf(event({ msgtype: "m.text", body, ...relates }), judge())).toMatchObject({ text: "yes" });
  expect(bodyOf(event({ msgtype: "m.text", body }), judge())).toMatchObject({ text: body });
  expect(messageOf(event({ msgtype: "m.text", body, ...relates }), room, judge())?.quoted).toMatchObject({
    id: "$x",
    body: null,
  });
});

test("edits, reactions and unknown types are no rows of their own", () => {
  expect(
    isMessage(event({ msgtype: "m.text", body: "* x", "m.relates_to": { rel_type: "m.replace", event_id: "$x" } })),
  ).toBe(false);
  expect(
    isMessage(
      event({ "m.relates_to": { rel_type: "m.annotation", event_id: "$x", key: "+" } }, { type: "m.reaction" }),
    ),
  ).toBe(false);
  expect(isMessage(event({}, { type: "org.example.thing" }))).toBe(false);
});

test("a readable message keeps its text and gets its warning; an unreadable one says why", () => {
  const plain = messageOf(event({ msgtype: "m.text", body: "hello" }), room, judge("not_encrypted"));
  expect(plain).toMatchObject({ body: { kind: "text", text: "hello" }, warning: "not_encrypted" });
  const sealed = event({ algorithm: "im.conclave.group.v1" }, { type: "m.room.encrypted" });
  expect(messageOf(sealed, room, judge("before_join"))).toMatchObject({
    body: { kind: "unreadable", failure: "before_join" },
    warning: null,
  });
});

test.each([
  [{ membership: "join" }, {}, { what: "joined" }],
  [{ membership: "leave" }, { membership: "join" }, { what: "left" }],
  [{ membership: "leave" }, { membership: "invite" }, { what: "declined" }],
  [{ membership: "ban" }, {}, { what: "banned", target: "Bob" }],
  [
    { membership: "join", displayname: "B" },
    { membership: "join", displayname: "Bob" },
    { what: "profile", from: "Bob", to: "B" },
  ],
  [{ membership: "join" }, { membership: "join" }, null],
  [{ membership: 5 }, {}, null],
])("membership %j after %j", (content, before, happening) => {
  const member = event(content, {
    type: "m.room.member",
    state_key: "@bob:localhost",
    unsigned: { prev_content: before },
  });
  expect(noticeOf(member, room, false)?.happening ?? null).toEqual(happening);
});

test("who removes another is named, and whom", () => {
  const member = event(
    { membership: "leave" },
    {
      type: "m.room.member",
      sender: "@eve:localhost",
      state_key: "@bob:localhost",
      unsigned: { prev_content: { membership: "join" } },
    },
  );
  expect(noticeOf(member, room, false)).toMatchObject({
    actors: ["eve"],
    happening: { what: "kicked", target: "Bob" },
  });
});

test("two people of the same name and different servers are told apart", () => {
  expect(shortName("@bob:localhost", me)).toBe("bob");
  expect(shortName("@bob:other.example:8448", me)).toBe("bob (other.example:8448)");
  expect(shortName("Harbour", me)).toBe("Harbour");
});
