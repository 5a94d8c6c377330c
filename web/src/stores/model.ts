/**
 * What the features show and do, in plain values: no feature knows the Matrix SDK. `chat.ts` makes these from a
 * session; the gallery and the tests of components make them from fixtures.
 *
 * Strings that came from other people (names, bodies, topics, file names) are data to be shown as text, nothing more.
 */
import type { Connection, Delivery, Failure, Observable, RoomSafety } from "../sdk";
import type { Account } from "./account";

export type { Connection, Delivery, Failure, Observable, RoomSafety };

export interface Person {
  userId: string;
  name: string;
}

export interface Preview {
  /** Who wrote it, when that is worth saying: in a group, and not by oneself. */
  sender: string | null;
  own: boolean;
  content: { kind: "text"; body: string } | { kind: "image" } | { kind: "file"; name: string } | { kind: "unreadable" };
  /** How far an own last message has come. */
  delivery: Delivery | null;
}

export interface RoomSummary {
  id: string;
  name: string;
  direct: boolean;
  sealed: boolean;
  /** `invited` with who invited; `left` when one was removed while the room was open. */
  membership: "joined" | "invited" | "left";
  invitedBy: Person | null;
  unread: number;
  mentions: number;
  /** When something last happened, in ms. */
  at: number;
  preview: Preview | null;
  typing: boolean;
  draft: boolean;
  members: number;
}

export interface AttachmentInfo {
  name: string;
  size: number | null;
  mimetype: string;
  width: number | null;
  height: number | null;
}

export interface QuotedMessage {
  id: string;
  sender: Person;
  /** Null while the quoted message is not known or not readable. */
  body: string | null;
}

export type Body =
  | { kind: "text"; text: string; emote: boolean }
  | { kind: "image"; attachment: AttachmentInfo }
  | { kind: "file"; attachment: AttachmentInfo }
  | { kind: "removed" }
  | { kind: "unreadable"; failure: Failure }
  /** It is being decrypted. */
  | { kind: "waiting" }
  | { kind: "unsupported"; type: string };

export interface Message {
  kind: "message";
  /** The same from the local echo to the event of the server. */
  key: string;
  id: string;
  sender: Person;
  own: boolean;
  at: number;
  body: Body;
  edited: boolean;
  quoted: QuotedMessage | null;
  /** A readable message that is not to be trusted fully, for example one that travelled in the clear. */
  warning: Failure | null;
  /** Of own messages; null on those of others. */
  delivery: Delivery | null;
}

/** What happened to the room, as a short line. */
export type Happening =
  | { what: "created"; sealed: boolean }
  | { what: "sealed" }
  | { what: "joined" | "left" | "declined" }
  | { what: "invited" | "kicked" | "banned" | "unbanned" | "invitation_withdrawn"; target: string }
  | { what: "renamed"; name: string }
  | { what: "topic"; topic: string }
  | { what: "avatar" }
  | { what: "profile"; from: string; to: string }
  | { what: "permissions" }
  | { what: "history" }
  | { what: "access" };

export interface Notice {
  kind: "notice";
  key: string;
  id: string;
  at: number;
  /** Those of the same kind that follow one another become one line. */
  actors: string[];
  happening: Happening;
}

export type TimelineItem =
  | Message
  | Notice
  | { kind: "day"; key: string; at: number }
  | { kind: "unread"; key: string }
  | { kind: "start"; key: string; sealed: boolean; direct: boolean; name: string };

export interface Timeline {
  items: TimelineItem[];
  /** Rises with what is put in front, so that the list can keep its place. */
  firstIndex: number;
  loading: boolean;
  /** There is more to be had from the server. */
  more: boolean;
  /** Asking for more failed; asking again is the person's choice. */
  failed: boolean;
}

export interface Member extends Person {
  membership: "joined" | "invited";
  role: "admin" | "moderator" | "member";
  self: boolean;
  mayKick: boolean;
}

export interface Upload {
  id: string;
  name: string;
  done: number;
  total: number;
  failure: UploadFailure | null;
}

export interface UploadFailure {
  /** One sentence. */
  reason: string;
  /** Whether to try again may help. */
  again: boolean;
}

export interface Draft {
  text: string;
  replyTo: QuotedMessage | null;
}

/** One open room. */
export interface RoomModel {
  readonly id: string;
  readonly summary: Observable<RoomSummary | null>;
  readonly timeline: Observable<Timeline>;
  readonly members: Observable<Member[]>;
  readonly typing: Observable<Person[]>;
  readonly safety: Observable<RoomSafety>;
  readonly draft: Observable<Draft>;
  readonly uploads: Observable<Upload[]>;
  readonly mayInvite: Observable<boolean>;
  readonly maySend: Observable<boolean>;
  pageBack(): Promise<void>;
  setDraft(draft: Draft): void;
  sendText(text: string, replyTo: string | null): void;
  sendFile(file: File): void;
  cancelUpload(id: string): void;
  retryUpload(id: string): void;
  retry(messageId: string): void;
  discard(messageId: string): void;
  /** The person has seen everything up to the newest message. */
  markRead(): void;
  setTyping(on: boolean): void;
  readAttachment(messageId: string, options: { thumbnail: boolean; signal: AbortSignal }): Promise<Blob>;
  invite(userId: string): Promise<void>;
  kick(userId: string): Promise<void>;
  acceptIdentity(userId: string): Promise<void>;
  leave(): Promise<void>;
}

/** Everything that a signed-in person can reach. */
export interface Chat {
  readonly me: Person;
  readonly server: string;
  readonly deviceId: string;
  /** Invitations first, then by what happened last. */
  readonly rooms: Observable<RoomSummary[]>;
  readonly connection: Observable<Connection>;
  /** The first sync has brought the rooms. */
  readonly loaded: Observable<boolean>;
  room(id: string): RoomModel;
  accept(roomId: string): Promise<void>;
  decline(roomId: string): Promise<void>;
  createDirect(userId: string): Promise<string>;
  createGroup(options: { name: string; invite: string[] }): Promise<string>;
  readonly account: Account;
  signOut(): Promise<void>;
}
