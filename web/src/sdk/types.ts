import type { MatrixClient, MatrixEvent } from "matrix-js-sdk";
import type { AccountCare } from "./account";
import type { Confirm } from "./uia";

/**
 * What the rest of the client knows of the protocol. Only types stand here, so that importing them costs nothing in the first load.
 */

export interface Credentials {
  baseUrl: string;
  userId: string;
  deviceId: string;
  accessToken: string;
}

/**
 * Why a message is not readable, or not to be trusted. `not_encrypted` is a readable event that travelled in the clear through a sealed room.
 */
export type Failure =
  | "no_key"
  | "withheld"
  | "before_join"
  | "replayed"
  | "forged"
  | "unknown_algorithm"
  | "unsigned_device"
  | "identity_changed"
  | "malformed"
  | "not_encrypted";

/** A value and its changes, in the form that useSyncExternalStore takes. `get` gives the same object until the value changes. */
export interface Observable<T> {
  get(): T;
  subscribe(listener: () => void): () => void;
}

/**
 * `missing`: the account has no identity yet. `locked`: it has one, and this device is not signed by it yet, so others send it no keys.
 */
export type IdentityState = "unknown" | "missing" | "locked" | "ready";

/** `live` is the WebSocket, `polling` the long poll that it falls back to. */
export type Connection = "connecting" | "live" | "polling" | "offline";

/**
 * `signed_out`: the device is gone from the server. `soft`: its keys and data stay good, and its owner has to sign in again on the same
 * device. `locked`: an administrator has locked the account; the session goes on once that ends.
 */
export type Ending = "signed_out" | "soft" | "locked";

export type Delivery = "sending" | "failed" | "sent" | "delivered" | "read";

export interface RoomSafety {
  sealed: boolean;
  /** Members none of whose devices may receive a key: they cannot read what is sent. */
  withoutKeys: string[];
  /** Members whose identity is another than the one this client knows: nothing is sealed to them until it is accepted. */
  changed: string[];
}

/** `confirmed`: the owner's identity vouches for the device. `unconfirmed`: it does not, so no keys go there. */
export type DeviceStanding = "confirmed" | "unconfirmed";

export interface NewIdentity {
  recoveryKey: string;
  /** Publishes the identity. To be called once the person has kept the recovery key. */
  commit(): Promise<void>;
}

export interface SendFileOptions {
  onProgress(done: number, total: number): void;
  signal: AbortSignal;
}

export interface ReadAttachmentOptions {
  thumbnail: boolean;
  signal: AbortSignal;
}

export interface Session {
  readonly credentials: Credentials;
  /** Rooms, timelines and members, with decrypted content. */
  readonly client: MatrixClient;
  readonly identity: Observable<IdentityState>;
  readonly connection: Observable<Connection>;
  /** How the server has ended the session; null while it has not. */
  readonly ended: Observable<Ending | null>;
  /** A later identity than the first has to be confirmed: `confirm` asks for what the password alone does not do. */
  createIdentity(password?: string, confirm?: Confirm): Promise<NewIdentity>;
  /** The care of the account; `confirm` asks the person where the server wants something confirmed. */
  account(confirm: Confirm): AccountCare;
  /** What this device makes of the account's devices that have keys. Asks the server. */
  ownDevices(): Promise<Map<string, DeviceStanding>>;
  /** Throws Error("wrong_key") where the recovery key does not open the identity. */
  unlock(recoveryKey: string): Promise<void>;
  /** Begins to sync. */
  start(): Promise<void>;
  createDirect(userId: string): Promise<string>;
  createGroup(options: { name: string; invite: string[] }): Promise<string>;
  isSealed(roomId: string): boolean;
  /** The message stands in the client's room at once; the promise ends when the server has it, or when it failed for good. */
  sendText(roomId: string, body: string, replyTo?: string): Promise<void>;
  resend(roomId: string, localId: string): Promise<void>;
  discard(roomId: string, localId: string): void;
  /** The promise ends when the file is with the server: then there is a message for it. */
  sendFile(roomId: string, file: File, options: SendFileOptions): Promise<void>;
  /** Checked against its hash before a byte of it is given out; the type comes from an allowlist. */
  readAttachment(event: MatrixEvent, options: ReadAttachmentOptions): Promise<Blob>;
  failure(event: MatrixEvent): Failure | null;
  /** How far an own event has come. */
  delivery(event: MatrixEvent): Delivery;
  roomSafety(roomId: string): Observable<RoomSafety>;
  acceptIdentity(userId: string): Promise<void>;
  /** Tried again until the server has it, has refused it, or there is a newer one for the room. */
  markRead(roomId: string, eventId: string): Promise<void>;
  typing(roomId: string, on: boolean): Promise<void>;
  /** Stops everything; what is stored stays, and the session can be opened again. */
  close(): Promise<void>;
  /** Also deletes the keys and databases of this device. */
  logOut(): Promise<void>;
}
