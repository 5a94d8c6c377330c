/** The names and bounds of the protocol (sealed-rooms.md, sections 1 to 9). */
export const algorithmSealed = "im.conclave.sealed.v1";
export const algorithmGroup = "im.conclave.group.v1";
export const typeEncrypted = "m.room.encrypted";
export const typeRoomKey = "im.conclave.room_key";

export const maxEnvelope = 64 * 1024;
export const maxPlaintext = 40 * 1024;
export const maxIndex = 1024;
export const maxName = 255;
/** Sessions held per room and sender, and per sender for rooms that the user is not in. */
export const maxSessions = 10_000;
export const maxSessionsUnjoined = 100;
/** A to-device request of a fan-out. */
export const maxFanOutDevices = 100;
export const maxFanOutBytes = 512 * 1024;
