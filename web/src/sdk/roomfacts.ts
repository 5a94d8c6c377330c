/** What encrypting for a room depends on, read from the client's present state of it. */
import type { MatrixEvent, Room } from "matrix-js-sdk";
import { isJsonObject, toJson, type JsonObject } from "../crypto";
import type { RoomFacts } from "./outbound";

/** State events by names that the SDK's types know only as enum members. */
function stateOf(room: Room, type: string): MatrixEvent | null {
  const event: MatrixEvent | MatrixEvent[] | null = room.currentState.getStateEvents(type, "");
  return Array.isArray(event) ? null : event;
}

function contentOf(room: Room, type: string): JsonObject {
  const content = toJson(stateOf(room, type)?.getContent() ?? {});
  return isJsonObject(content) ? content : {};
}

const visibilities = ["invited", "joined", "shared", "world_readable"];

export async function roomFacts(room: Room): Promise<RoomFacts> {
  const members = new Map<string, { event: string; replaces: string }>();
  for (const member of await room.getEncryptionTargetMembers()) {
    const event = member.events.member;
    const replaces: unknown = event?.getUnsigned().replaces_state;
    members.set(member.userId, { event: event?.getId() ?? "", replaces: typeof replaces === "string" ? replaces : "" });
  }
  const encryption = contentOf(room, "m.room.encryption");
  const visibility = contentOf(room, "m.room.history_visibility").history_visibility;
  return {
    roomId: room.roomId,
    encryption,
    historyVisibility: typeof visibility === "string" && visibilities.includes(visibility) ? visibility : "shared",
    rules: { encryption, join_rules: contentOf(room, "m.room.join_rules") },
    members,
  };
}
