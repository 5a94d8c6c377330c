/** The key of a group session as it travels, sealed, to those who may read: im.conclave.room_key. */
import { algorithmGroup, maxIndex } from "./bounds";
import { concat, equalBytes, fromBase64Exact, toBase64, utf8, type Bytes } from "./encoding";
import { must } from "./errors";
import { Form } from "./form";
import { canonical, type JsonObject } from "./json";
import { decodeVerifyKey, sign, verify } from "./primitives";
import { stepRatchet } from "./ratchet";

const ownerDomain = utf8("im.conclave.owner.v1\0");
const visibilities = ["invited", "joined", "shared", "world_readable"];

/** A session as a device holds it to read with: whose it is, and the ratchet from some index on. Plain data, to be stored. */
export interface InboundSession {
  roomId: string;
  sessionId: string;
  sender: string;
  senderDevice: string;
  /** The Ed25519 key of the device that made it. */
  senderKey: string;
  /** Unpadded base64 of the value at `index`, the lowest that this session opens. */
  ratchet: string;
  index: number;
  historyVisibility: string;
  /** `vouched`: not its device sent it, but somebody else says that it did. */
  source: "direct" | "vouched";
}

export interface SessionOrigin {
  sender: string;
  senderDevice: string;
  senderKey: string;
  source: "direct" | "vouched";
}

/** What the session's own key signs, so that nobody can occupy a session id seen on the wire. */
function ownerStatement(roomId: string, historyVisibility: string, sender: string, senderKey: string): Bytes {
  const statement = { history_visibility: historyVisibility, room_id: roomId, sender, sender_key: senderKey };
  return concat(ownerDomain, utf8(canonical(statement)));
}

export async function signOwnership(
  key: CryptoKey,
  roomId: string,
  historyVisibility: string,
  sender: string,
  senderKey: string,
): Promise<string> {
  return sign(key, ownerStatement(roomId, historyVisibility, sender, senderKey));
}

/** The content of the room key that lets its reader decrypt from `index` on. The session has to reach that far back. */
export async function roomKeyContent(session: InboundSession, proof: string, index: number): Promise<JsonObject> {
  must(index >= session.index && index < maxIndex, "unknown_index", "the session does not reach back so far");
  const ratchet = await stepRatchet(fromBase64Exact(session.ratchet, 32), index - session.index);
  return {
    algorithm: algorithmGroup,
    room_id: session.roomId,
    session_id: session.sessionId,
    ratchet: toBase64(ratchet),
    index,
    history_visibility: session.historyVisibility,
    proof,
  };
}

/** Reads a room key and checks that it belongs to the device that it is said to come from. */
export async function readRoomKey(contentText: string, origin: SessionOrigin): Promise<InboundSession> {
  const form = Form.read(contentText);
  form.algorithm(algorithmGroup);
  form.check();
  const index = form.integer("index");
  const session: InboundSession = {
    ...origin,
    roomId: form.name("room_id"),
    sessionId: form.name("session_id"),
    ratchet: toBase64(form.bytes("ratchet", 32)),
    index,
    historyVisibility: form.text("history_visibility"),
  };
  const proof = form.text("proof");
  if (!visibilities.includes(session.historyVisibility)) form.fail("malformed", "no such history visibility");
  form.check();
  must(index < maxIndex, "oversize", `index ${index}`);
  decodeVerifyKey(session.sessionId);
  const statement = ownerStatement(session.roomId, session.historyVisibility, origin.sender, origin.senderKey);
  must(
    await verify(session.sessionId, proof, statement),
    "forged_signature",
    "the session's key did not sign whose it is",
  );
  return session;
}

/**
 * The session to hold when another copy of a known one arrives. Of two copies of the same session the one that opens more wins; another
 * ratchet never overwrites, save that what its device sends directly replaces what somebody else vouched for.
 */
export async function mergeSessions(known: InboundSession, fresh: InboundSession): Promise<InboundSession> {
  if (!(await isSameSession(known, fresh))) {
    must(
      known.source === "vouched" && fresh.source === "direct",
      "conflicting_session",
      "the session is known with another ratchet, room or owner",
    );
    return fresh;
  }
  const source = known.source === "vouched" && fresh.source === "vouched" ? "vouched" : "direct";
  return { ...(fresh.index < known.index ? fresh : known), source };
}

async function isSameSession(a: InboundSession, b: InboundSession): Promise<boolean> {
  const [early, late] = a.index <= b.index ? [a, b] : [b, a];
  if (a.sessionId !== b.sessionId || a.roomId !== b.roomId || a.historyVisibility !== b.historyVisibility) return false;
  if (a.sender !== b.sender || a.senderDevice !== b.senderDevice || a.senderKey !== b.senderKey) return false;
  const stepped = await stepRatchet(fromBase64Exact(early.ratchet, 32), late.index - early.index);
  return equalBytes(stepped, fromBase64Exact(late.ratchet, 32));
}
