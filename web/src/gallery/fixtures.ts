/** A chat made of fixed values: for the gallery and the tests of components, never for the app. */
import type {
  Body,
  Chat,
  Connection,
  Draft,
  Failure,
  Member,
  Message,
  Person,
  RoomModel,
  RoomSafety,
  RoomSummary,
  Timeline,
  TimelineItem,
  Upload,
} from "../stores/model";
import type { Account } from "../stores/account";
import { cell } from "../stores/observable";
import { fakeAccount } from "./account";

const person = (userId: string, name: string): Person => ({ userId, name });
export const alice = person("@alice:northwind.org", "Alice Weber");
export const bob = person("@bob:harbour.example", "Bob Okafor");
export const carla = person("@carla:northwind.org", "Carla Méndez");
export const dmitri = person("@dmitri:harbour.example", "Dmitri Sokolov");
export const erin = person("@erin:northwind.org", "Erin Walsh");

const minute = 60_000;
const hour = 60 * minute;

/** A fixed afternoon, so that pictures of two runs can be compared; its day is today, as the list of rooms wants it. */
export const now = new Date().setHours(15, 24, 0, 0);

let serial = 0;

export function message(sender: Person, at: number, body: Body | string, rest: Partial<Message> = {}): Message {
  const own = sender === alice;
  const id = `$m${++serial}`;
  return {
    kind: "message",
    key: id,
    id,
    sender,
    own,
    at,
    body: typeof body === "string" ? { kind: "text", text: body, emote: false } : body,
    edited: false,
    quoted: null,
    warning: null,
    delivery: own ? "read" : null,
    ...rest,
  };
}

export function notice(
  actors: string[],
  happening: Extract<TimelineItem, { kind: "notice" }>["happening"],
  at = now,
): TimelineItem {
  const id = `$n${++serial}`;
  return { kind: "notice", key: id, id, at, actors, happening };
}

const photo: Body = {
  kind: "image",
  attachment: { name: "quay-at-dawn.jpg", size: 2_418_000, mimetype: "image/jpeg", width: 1600, height: 1000 },
};

export function conversation(): TimelineItem[] {
  const yesterday = now - 24 * hour;
  const first = message(
    bob,
    yesterday - 40 * minute,
    "Morning! The harbour authority moved the inspection to Thursday, 9:00.",
  );
  return [
    { kind: "start", key: "start", sealed: true, direct: false, name: "Harbour project" },
    { kind: "day", key: "d0", at: yesterday },
    notice([alice.name], { what: "created", sealed: true }, yesterday),
    notice([alice.name], { what: "invited", target: bob.name }, yesterday),
    notice([bob.name, carla.name, dmitri.name], { what: "joined" }, yesterday),
    first,
    message(bob, yesterday - 39 * minute, "Can someone bring the signed drawings? They only accept paper."),
    message(alice, yesterday - 31 * minute, "I have them here and will be there at quarter to nine.", {
      quoted: { id: first.id, sender: bob, body: first.body.kind === "text" ? first.body.text : null },
    }),
    message(carla, yesterday - 22 * minute, "I can join by phone from ten. Minutes of last week, for reference:"),
    message(carla, yesterday - 21 * minute, {
      kind: "file",
      attachment: {
        name: "Minutes 2026-11-17.pdf",
        size: 184_300,
        mimetype: "application/pdf",
        width: null,
        height: null,
      },
    }),
    { kind: "day", key: "d1", at: now },
    message(bob, now - 84 * minute, photo),
    message(
      bob,
      now - 83 * minute,
      "Taken this morning. The east quay is clear, so the crane can come in on Wednesday already.",
    ),
    message(dmitri, now - 71 * minute, "👏"),
    message(
      alice,
      now - 66 * minute,
      "That saves us a day. Numbers are updated in https://plan.northwind.org/harbour (section 4).",
      {
        edited: true,
      },
    ),
    message(alice, now - 65 * minute, "Dmitri, could you confirm the crane with the yard?", { delivery: "read" }),
    { kind: "unread", key: "unread" },
    message(dmitri, now - 12 * minute, "Done: crane on site Wednesday 7:00, paid until Friday noon."),
    message(bob, now - 4 * minute, "Perfect. Then I tell the pilots."),
    message(alice, now - 2 * minute, "Thank you both. I will write to the insurer this afternoon.", {
      delivery: "delivered",
    }),
    message(alice, now - minute, "And bring biscuits on Thursday.", { delivery: "sent" }),
  ];
}

export function direct(): TimelineItem[] {
  return [
    { kind: "start", key: "start", sealed: true, direct: true, name: bob.name },
    { kind: "day", key: "d1", at: now },
    message(bob, now - 30 * minute, "Are you at the office today?"),
    message(alice, now - 28 * minute, "Until five. Why?"),
    message(
      bob,
      now - 27 * minute,
      "I have the contract with me. The printed one, with three signatures and a coffee stain.",
    ),
    message(bob, now - 27 * minute, "It is a good contract though."),
    message(alice, now - 20 * minute, photo, { delivery: "read" }),
    message(alice, now - 20 * minute, "We look at it from here. Third floor, second door.", { delivery: "read" }),
    message(bob, now - 9 * minute, "On my way 🚲"),
    message(alice, now - minute, "I put the kettle on.", { delivery: "sending" }),
  ];
}

const failures: Failure[] = [
  "no_key",
  "withheld",
  "before_join",
  "replayed",
  "forged",
  "unknown_algorithm",
  "unsigned_device",
  "identity_changed",
  "malformed",
];

export function troubled(): TimelineItem[] {
  return [
    { kind: "day", key: "d1", at: now },
    ...failures.map((failure, i) =>
      message(i % 2 === 0 ? bob : carla, now - (60 - i * 6) * minute, { kind: "unreadable", failure }),
    ),
    message(dmitri, now - 5 * minute, "I wrote this with an old client.", { warning: "not_encrypted" }),
    message(dmitri, now - 4 * minute, { kind: "removed" }),
    message(dmitri, now - 4 * minute, { kind: "waiting" }),
    message(dmitri, now - 3 * minute, { kind: "unsupported", type: "m.poll" }),
    message(alice, now - 2 * minute, "This one did not get out.", { delivery: "failed" }),
    message(alice, now - minute, "This one is on its way.", { delivery: "sending" }),
  ];
}

/** More than anybody reads at once. */
export function long(count: number): TimelineItem[] {
  const people = [bob, alice, carla, dmitri];
  const words = "the crane waits at the east quay until the tide lets the pilots in again".split(" ");
  return Array.from({ length: count }, (_, i) =>
    message(
      people[Math.floor(i / 3) % people.length] ?? bob,
      now - (count - i) * minute,
      `${i + 1}: ${words.slice(0, 3 + ((i * 7) % (words.length - 3))).join(" ")}`,
    ),
  );
}

export const leila = person("@leila:harbour.example", "ليلى عبد الرحمن");
export const endless = person(`@${"w".repeat(120)}:northwind.org`, "Wolfeschlegelsteinhausenbergerdorff".repeat(4));

/** What people, and others, write in fact: nothing of it may leave its bubble. */
export function extremes(): TimelineItem[] {
  return [
    message(endless, now - 40 * minute, "x".repeat(400)),
    message(endless, now - 39 * minute, `https://plan.northwind.org/${"a-very-long-path/".repeat(20)}`),
    message(leila, now - 30 * minute, "صباح الخير، موعد التفتيش يوم الخميس الساعة التاسعة."),
    message(alice, now - 29 * minute, "שלום, نعم, and yes: see you at 9:00 (gate 3).", { edited: true }),
    message(leila, now - 28 * minute, "👍🏽"),
    message(alice, now - 27 * minute, "🎉🎉🎉"),
    message(leila, now - 26 * minute, "👨‍👩‍👧‍👦 🏳️‍🌈"),
    message(alice, now - 25 * minute, "one\n\n\ntwo\n  indented\tand tabbed"),
    message(leila, now - 24 * minute, "Zalgo: Z̵̡̢̛̗̘̙̜̝̞a̵̡̢̛̗̘̙̜̝̞l̵̡̢̛̗̘̙̜̝̞g̵̡̢̛̗̘̙̜̝̞o̵"),
    message(endless, now - 10 * minute, {
      kind: "file",
      attachment: {
        name: `${"report-".repeat(30)}.pdf`,
        size: null,
        mimetype: "application/pdf",
        width: null,
        height: null,
      },
    }),
    message(alice, now - 9 * minute, "A reply to somebody with a long name", {
      quoted: { id: "$q", sender: endless, body: "y".repeat(300) },
    }),
    message(alice, now - 8 * minute, "k"),
  ];
}

/** Names as long as names get, in either direction. */
export function extremeRooms(): RoomSummary[] {
  return [
    summary("!inv2:x.org", endless.name, { membership: "invited", invitedBy: endless, at: now }),
    summary("!harbour:northwind.org", endless.name, {
      at: now,
      unread: 1234,
      preview: from(endless.name, text("y".repeat(300))),
    }),
    summary("!leila:harbour.example", leila.name, {
      direct: true,
      at: now - minute,
      unread: 1,
      preview: from(null, text("صباح الخير، موعد التفتيش يوم الخميس.")),
    }),
    summary("!emoji:northwind.org", "🎉🎉 🎉", { at: now - hour, preview: from("👩‍🚀", text("🚀🚀🚀")) }),
    summary("!space:northwind.org", "!#@", { at: now - 2 * hour, preview: mine("z".repeat(200), "failed") }),
  ];
}

export function happenings(): TimelineItem[] {
  const a = [alice.name];
  return [
    notice(a, { what: "created", sealed: true }),
    notice(a, { what: "sealed" }),
    notice(a, { what: "invited", target: bob.name }),
    notice([bob.name, carla.name, dmitri.name, erin.name], { what: "joined" }),
    notice([erin.name], { what: "declined" }),
    notice(a, { what: "renamed", name: "Harbour project" }),
    notice(a, { what: "topic", topic: "East quay, until March" }),
    notice([dmitri.name], { what: "profile", from: "Dima", to: "Dmitri Sokolov" }),
    notice(a, { what: "permissions" }),
    notice(a, { what: "history" }),
    notice(a, { what: "kicked", target: erin.name }),
    notice([dmitri.name], { what: "left" }),
  ];
}

export function summary(id: string, name: string, rest: Partial<RoomSummary> = {}): RoomSummary {
  return {
    id,
    name,
    direct: false,
    sealed: true,
    membership: "joined",
    invitedBy: null,
    unread: 0,
    mentions: 0,
    at: now - hour,
    preview: null,
    typing: false,
    draft: false,
    members: 4,
    ...rest,
  };
}

const text = (body: string) => ({ kind: "text", body }) as const;
const from = (sender: string | null, content: NonNullable<RoomSummary["preview"]>["content"]) => ({
  sender,
  own: false,
  content,
  delivery: null,
});
const mine = (body: string, delivery: "sent" | "delivered" | "read" | "sending" | "failed") => ({
  sender: null,
  own: true,
  content: text(body),
  delivery,
});

export function rooms(): RoomSummary[] {
  const yesterday = now - 26 * hour;
  return [
    summary("!inv:harbour.example", "Pilots and tugs", {
      membership: "invited",
      invitedBy: dmitri,
      at: now - 6 * minute,
    }),
    summary("!harbour:northwind.org", "Harbour project", {
      at: now - minute,
      preview: mine("And bring biscuits on Thursday.", "sent"),
    }),
    summary("!bob:northwind.org", bob.name, {
      direct: true,
      at: now - minute,
      members: 2,
      preview: mine("I put the kettle on.", "sending"),
    }),
    summary("!board:northwind.org", "Board", {
      at: now - 18 * minute,
      unread: 3,
      preview: from("Erin", text("The vote is open until six.")),
    }),
    summary("!carla:northwind.org", carla.name, {
      direct: true,
      at: now - 25 * minute,
      unread: 1,
      members: 2,
      preview: from(null, { kind: "image" }),
    }),
    summary("!press:northwind.org", "Press office", {
      at: now - 3 * hour,
      mentions: 1,
      unread: 12,
      preview: from("Tomás", text("@alice can you have a look at the second paragraph?")),
    }),
    summary("!dmitri:harbour.example", dmitri.name, { direct: true, at: now - 4 * hour, typing: true, members: 2 }),
    summary("!kitchen:northwind.org", "Kitchen, third floor", { at: now - 5 * hour, draft: true }),
    summary("!erin:northwind.org", erin.name, {
      direct: true,
      at: yesterday,
      members: 2,
      preview: mine("See you on Monday then.", "read"),
    }),
    summary("!night:northwind.org", "Night shift", {
      at: yesterday,
      preview: from("Yuki", { kind: "file", name: "rota-december.xlsx" }),
    }),
    summary("!archive:old.example", "Archive", {
      sealed: false,
      at: now - 9 * 24 * hour,
      preview: from("Ines", { kind: "unreadable" }),
    }),
  ];
}

export function members(): Member[] {
  return [
    { ...alice, membership: "joined", role: "admin", self: true, mayKick: false },
    { ...bob, membership: "joined", role: "moderator", self: false, mayKick: true },
    { ...carla, membership: "joined", role: "member", self: false, mayKick: true },
    { ...dmitri, membership: "joined", role: "member", self: false, mayKick: true },
    { ...erin, membership: "invited", role: "member", self: false, mayKick: true },
  ];
}

const safe: RoomSafety = { sealed: true, withoutKeys: [], changed: [] };

export interface RoomStateInput {
  summary: RoomSummary | null;
  items?: TimelineItem[];
  timeline?: Partial<Timeline>;
  members?: Member[];
  typing?: Person[];
  safety?: RoomSafety;
  draft?: Draft;
  uploads?: Upload[];
  maySend?: boolean;
  picture?: () => Promise<Blob>;
}

const done = async (): Promise<void> => {};

export function fakeRoom(state: RoomStateInput): RoomModel {
  const draft = cell<Draft>(state.draft ?? { text: "", replyTo: null });
  return {
    id: state.summary?.id ?? "!none:northwind.org",
    summary: cell(state.summary),
    timeline: cell<Timeline>({
      items: state.items ?? [],
      firstIndex: 10_000,
      loading: false,
      more: false,
      failed: false,
      ...state.timeline,
    }),
    members: cell(state.members ?? members()),
    typing: cell(state.typing ?? []),
    safety: cell(state.safety ?? safe),
    draft,
    uploads: cell(state.uploads ?? []),
    mayInvite: cell(true),
    maySend: cell(state.maySend ?? true),
    pageBack: done,
    setDraft: (next) => draft.set(next),
    sendText() {},
    sendFile() {},
    cancelUpload() {},
    retryUpload() {},
    retry() {},
    discard() {},
    markRead() {},
    setTyping() {},
    readAttachment: state.picture ?? (() => new Promise<Blob>(() => {})),
    invite: done,
    kick: done,
    acceptIdentity: done,
    leave: done,
  };
}

interface ChatState {
  rooms?: RoomSummary[];
  connection?: Connection;
  loaded?: boolean;
  room?: RoomModel;
  account?: Account;
}

export function fakeChat(state: ChatState = {}): Chat {
  const list = state.rooms ?? rooms();
  return {
    me: alice,
    server: "northwind.org",
    deviceId: "QJZUWPLDVR",
    rooms: cell(list),
    connection: cell<Connection>(state.connection ?? "live"),
    loaded: cell(state.loaded ?? true),
    room: (id) =>
      state.room?.id === id ? state.room : fakeRoom({ summary: list.find((room) => room.id === id) ?? null }),
    accept: done,
    decline: done,
    createDirect: async () => "!bob:northwind.org",
    createGroup: async () => "!harbour:northwind.org",
    account: state.account ?? fakeAccount(),
    signOut: done,
  };
}
