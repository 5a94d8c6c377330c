/**
 * From a Matrix event to what is shown of it. Everything in an event was written by somebody else: each field is checked
 * for its type, and what is not as it should be is shown as a message that this client cannot show.
 */
import type { MatrixEvent, Room } from "matrix-js-sdk";
import type { Session } from "../sdk";
import type { AttachmentInfo, Body, Happening, Message, Notice, Person, QuotedMessage } from "./model";

/** What of a session the mapping needs. */
export type Judge = Pick<Session, "failure" | "delivery">;

type Content = Record<string, unknown>;

const longest = 60_000;

export function text(value: unknown, most = longest): string | null {
  return typeof value === "string" ? value.slice(0, most) : null;
}

function object(value: unknown): Content | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Content) : null;
}

function count(value: unknown): number | null {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : null;
}

/**
 * How somebody without a display name is called: by the first part of the address among people of the same server, and
 * with their server where they come from another, so that two Bobs are never one.
 */
export function shortName(userId: string, me: string): string {
  const colon = userId.indexOf(":");
  if (!userId.startsWith("@") || colon < 2) return userId;
  const [name, server] = [userId.slice(1, colon), userId.slice(colon + 1)];
  return server === me.slice(me.indexOf(":") + 1) ? name : `${name} (${server})`;
}

export function personOf(room: Room, userId: string): Person {
  const name = room.getMember(userId)?.name.trim() ?? "";
  return { userId, name: name === "" || name === userId ? shortName(userId, room.myUserId) : name.slice(0, 200) };
}

function contentOf(event: MatrixEvent): Content {
  return object(event.getContent()) ?? {};
}

function relation(content: Content): Content {
  return object(content["m.relates_to"]) ?? {};
}

export function replyTarget(event: MatrixEvent): string | null {
  const reply = object(relation(contentOf(event))["m.in_reply_to"]);
  return reply === null ? null : text(reply["event_id"], 300);
}

/** Older clients repeat what they answer to at the head of the text. */
function withoutFallback(body: string): string {
  if (!body.startsWith("> ")) return body;
  const lines = body.split("\n");
  let i = 0;
  while (i < lines.length && (lines[i] ?? "").startsWith("> ")) i++;
  if (lines[i] === "") i++;
  return lines.slice(i).join("\n");
}

function attachment(content: Content): AttachmentInfo | null {
  const body = text(content["body"], 300);
  if (body === null || (object(content["file"]) === null && text(content["url"]) === null)) return null;
  const info = object(content["info"]) ?? {};
  return {
    // Nothing in it turns its direction, so that what stands at its end is its ending.
    name: (text(content["filename"], 300) ?? body).replace(/[\u202a-\u202e\u2066-\u2069]/g, ""),
    size: count(info["size"]),
    mimetype: text(info["mimetype"], 100) ?? "application/octet-stream",
    width: count(info["w"]),
    height: count(info["h"]),
  };
}

function messageBody(event: MatrixEvent): Body {
  const content = contentOf(event);
  const msgtype = text(content["msgtype"], 100);
  const body = text(content["body"]);
  switch (msgtype) {
    case "m.text":
    case "m.notice":
    case "m.emote":
      if (body === null) break;
      return {
        kind: "text",
        text: replyTarget(event) === null ? body : withoutFallback(body),
        emote: msgtype === "m.emote",
      };
    case "m.image":
    case "m.file":
    case "m.video":
    case "m.audio": {
      const file = attachment(content);
      if (file === null) break;
      return { kind: msgtype === "m.image" ? "image" : "file", attachment: file };
    }
  }
  return { kind: "unsupported", type: msgtype ?? event.getType() };
}

/** A redacted copy without a redaction: the sender's account was erased before this user came into the room. */
function isErased(event: MatrixEvent): boolean {
  const content = object(event.getWireContent());
  return !event.isState() && content !== null && Object.keys(content).length === 0;
}

export function bodyOf(event: MatrixEvent, judge: Judge): Body {
  if (event.isRedacted() || isErased(event)) return { kind: "removed" };
  const undecrypted = event.getType() === "m.room.encrypted";
  if (undecrypted && event.isBeingDecrypted() && !event.isDecryptionFailure()) return { kind: "waiting" };
  const failure = judge.failure(event);
  if (failure !== null && !isReadable(event)) return { kind: "unreadable", failure };
  if (undecrypted) return { kind: "waiting" };
  return messageBody(event);
}

/** There is clear content to show, even if it comes with a warning. */
function isReadable(event: MatrixEvent): boolean {
  return event.getType() !== "m.room.encrypted" && !event.isDecryptionFailure();
}

const shown = new Set(["m.room.message", "m.room.encrypted", "m.sticker"]);

/** Edits and reactions belong to another event; most other types are not meant for eyes. */
export function isMessage(event: MatrixEvent): boolean {
  if (event.isState() || !shown.has(event.getType())) return false;
  const kind = relation(contentOf(event))["rel_type"] ?? relation(object(event.getWireContent()) ?? {})["rel_type"];
  return (
    kind !== "m.replace" &&
    kind !== "m.annotation" &&
    !(kind === "m.reference" && event.getType() === "m.room.encrypted")
  );
}

export function plainOf(body: Body): string | null {
  switch (body.kind) {
    case "text":
      return body.text;
    case "image":
    case "file":
      return body.attachment.name;
    default:
      return null;
  }
}

function quotedBy(event: MatrixEvent, room: Room, judge: Judge): QuotedMessage | null {
  const id = replyTarget(event);
  if (id === null) return null;
  const target = room.findEventById(id);
  const sender = target?.getSender();
  if (target === undefined || sender === undefined) return { id, sender: { userId: "", name: "" }, body: null };
  return { id, sender: personOf(room, sender), body: plainOf(bodyOf(target, judge)) };
}

const keys = new WeakMap<MatrixEvent, string>();

/** The local echo and the event that the server makes of it are one object, and one row of the list. */
function keyOf(event: MatrixEvent, id: string): string {
  const known = keys.get(event);
  if (known !== undefined) return known;
  keys.set(event, id);
  return id;
}

export function messageOf(event: MatrixEvent, room: Room, judge: Judge): Message | null {
  const id = event.getId();
  const sender = event.getSender();
  if (id === undefined || sender === undefined) return null;
  const own = sender === room.myUserId;
  const body = bodyOf(event, judge);
  return {
    kind: "message",
    key: keyOf(event, id),
    id,
    sender: personOf(room, sender),
    own,
    at: event.getTs(),
    body,
    edited: body.kind === "text" && event.replacingEvent() !== null && event.replacingEvent() !== undefined,
    quoted: body.kind === "removed" || body.kind === "unreadable" ? null : quotedBy(event, room, judge),
    warning:
      body.kind === "unreadable" || body.kind === "removed" || body.kind === "waiting" ? null : judge.failure(event),
    delivery: own ? judge.delivery(event) : null,
  };
}

function membership(event: MatrixEvent, room: Room): Happening | null {
  const now = text(contentOf(event)["membership"], 20);
  const before = text((object(event.getPrevContent()) ?? {})["membership"], 20);
  const target = event.getStateKey() ?? "";
  const bySelf = event.getSender() === target;
  const name = personOf(room, target).name;
  switch (now) {
    case "join":
      if (before !== "join") return { what: "joined" };
      return renamed(event);
    case "invite":
      return { what: "invited", target: name };
    case "ban":
      return { what: "banned", target: name };
    case "leave":
      if (before === "ban") return { what: "unbanned", target: name };
      if (before === "invite") return bySelf ? { what: "declined" } : { what: "invitation_withdrawn", target: name };
      return bySelf ? { what: "left" } : { what: "kicked", target: name };
    default:
      return null;
  }
}

function renamed(event: MatrixEvent): Happening | null {
  const to = text(contentOf(event)["displayname"], 200);
  const from = text((object(event.getPrevContent()) ?? {})["displayname"], 200);
  if (from === to || from === null || to === null) return null;
  return { what: "profile", from, to };
}

function happeningOf(event: MatrixEvent, room: Room, sealedAtStart: boolean): Happening | null {
  const content = contentOf(event);
  switch (event.getType()) {
    case "m.room.create":
      return { what: "created", sealed: sealedAtStart };
    case "m.room.encryption":
      // A room that begins sealed says so at its beginning.
      return sealedAtStart ? null : { what: "sealed" };
    case "m.room.member":
      return membership(event, room);
    case "m.room.name":
      return { what: "renamed", name: text(content["name"], 200) ?? "" };
    case "m.room.topic":
      return { what: "topic", topic: text(content["topic"], 300) ?? "" };
    case "m.room.avatar":
      return { what: "avatar" };
    case "m.room.power_levels":
      return Object.keys(object(event.getPrevContent()) ?? {}).length === 0 ? null : { what: "permissions" };
    case "m.room.history_visibility":
      return Object.keys(object(event.getPrevContent()) ?? {}).length === 0 ? null : { what: "history" };
    case "m.room.join_rules":
      return Object.keys(object(event.getPrevContent()) ?? {}).length === 0 ? null : { what: "access" };
    default:
      return null;
  }
}

export function noticeOf(event: MatrixEvent, room: Room, sealedAtStart: boolean): Notice | null {
  const id = event.getId();
  const sender = event.getSender();
  if (id === undefined || sender === undefined || !event.isState()) return null;
  const happening = happeningOf(event, room, sealedAtStart);
  if (happening === null) return null;
  return { kind: "notice", key: id, id, at: event.getTs(), actors: [personOf(room, sender).name], happening };
}
