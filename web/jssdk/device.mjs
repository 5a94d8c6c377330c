/** A signed-in device of a person: a client of the SDK with its own, empty store and its own rust crypto. */
import { ClientEvent, PendingEventOrdering, createClient } from "matrix-js-sdk";
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { logger, recordedFetch, until } from "./harness.mjs";

export const password = "correct horse battery staple 7";

/**
 * The SDK throws this when /sync brings a message before the answer to its sending, in a thread whose first events it is
 * still fetching: it looks for the message among those of the thread, where it is not yet.
 */
const outrun = "called on an event which is not a local echo";

const common = { fetchFn: recordedFetch };

/** A client without a session. */
export function visitor(baseUrl) {
  return createClient({ ...common, baseUrl, logger: logger("visitor") });
}

/** Registers an account as the server's flows ask for: one dummy stage. Gives back its first device. */
export async function register(baseUrl, username) {
  const client = visitor(baseUrl);
  const details = { username, password, initial_device_display_name: `${username}'s first` };
  const session = await uiaSession(() => client.registerRequest(details));
  const answer = await client.registerRequest({ ...details, auth: { type: "m.login.dummy", session } });
  return Device.open(baseUrl, answer, username);
}

/** Signs in once more. Gives back a new device, which knows nothing. */
export async function login(baseUrl, username, label) {
  const answer = await visitor(baseUrl).loginRequest({
    type: "m.login.password",
    identifier: { type: "m.id.user", user: username },
    password,
    initial_device_display_name: label,
  });
  return Device.open(baseUrl, answer, label);
}

/** Makes a request that user-interactive authentication stands before, and gives back the session that the refusal opened. */
export async function uiaSession(request) {
  try {
    await request();
  } catch (error) {
    if (error.httpStatus === 401 && error.data?.session && error.data.flows?.length > 0) return error.data.session;
    throw error;
  }
  throw new Error("the request went through without authentication");
}

export class Device {
  /** Set to sign in to secret storage: the recovery key's bytes. */
  secret = null;
  requests = [];

  static async open(baseUrl, { user_id: userId, device_id: deviceId, access_token: accessToken }, label) {
    const device = new Device();
    device.client = createClient({
      ...common,
      baseUrl,
      userId,
      deviceId,
      accessToken,
      logger: logger(label),
      timelineSupport: true,
      verificationMethods: ["m.sas.v1"],
      cryptoCallbacks: {
        getSecretStorageKey: ({ keys }) =>
          Promise.resolve(device.secret ? [Object.keys(keys)[0], device.secret] : null),
        cacheSecretStorageKey: () => undefined,
      },
    });
    await device.client.initRustCrypto({ useIndexedDB: false });
    device.client.on(CryptoEvent.VerificationRequestReceived, (request) => device.requests.push(request));
    return device;
  }

  get id() {
    return this.client.getUserId();
  }

  get crypto() {
    return this.client.getCrypto();
  }

  /** Starts to sync and waits for the first answer. */
  async start() {
    const synced = new Promise((done) => {
      const look = (state) => {
        if (state !== "PREPARED") return;
        this.client.off(ClientEvent.Sync, look);
        done();
      };
      this.client.on(ClientEvent.Sync, look);
    });
    await this.client.startClient({
      initialSyncLimit: 20,
      threadSupport: true,
      lazyLoadMembers: true,
      pendingEventOrdering: PendingEventOrdering.Detached,
    });
    await synced;
    return this;
  }

  stop() {
    this.client.stopClient();
  }

  /** The answer to user-interactive authentication by password. */
  async byPassword(makeRequest) {
    const session = await uiaSession(() => makeRequest(null));
    const identifier = { type: "m.id.user", user: this.id };
    return makeRequest({ type: "m.login.password", identifier, password, session });
  }

  /** Waits for a room to be there with a membership of one's own. */
  room(roomId, membership = "join") {
    return until(`${this.id} ${membership} in ${roomId}`, () => {
      const room = this.client.getRoom(roomId);
      return room?.getMyMembership() === membership && room;
    });
  }

  async say(roomId, body, more = {}, threadId = null) {
    const txnId = this.client.makeTxnId();
    try {
      const sent = await this.client.sendMessage(roomId, threadId, { msgtype: "m.text", body, ...more }, txnId);
      return sent.event_id;
    } catch (error) {
      if (threadId === null || !String(error).includes(outrun)) throw error;
      return this.echo(roomId, threadId, txnId);
    }
  }

  /**
   * Makes a thread of a message, as pages do when somebody starts one; at whoever only reads it comes by itself. Without it the
   * SDK loses a first message in it that /sync brings before the answer to its sending.
   */
  async startThread(roomId, rootId) {
    this.client.getRoom(roomId).createThread(rootId, await this.event(roomId, rootId), [], true);
  }

  /** What /sync brought of a message in a thread whose sending the SDK lost sight of. */
  async echo(roomId, threadId, txnId) {
    const sent = (event) => event.getUnsigned().transaction_id === txnId;
    const event = await until(`${this.id}'s own message in ${threadId}`, () =>
      this.client.getRoom(roomId).getThread(threadId)?.timelineSet.getLiveTimeline().getEvents().find(sent),
    );
    return event.getId();
  }

  /** Waits for an event to have come and to be readable. */
  event(roomId, eventId) {
    return until(`${this.id} reads ${eventId}`, () => {
      const event = this.client.getRoom(roomId)?.findEventById(eventId);
      const readable =
        event && !event.isBeingDecrypted() && !event.isDecryptionFailure() && event.getType() !== "m.room.encrypted";
      return readable && event;
    });
  }

  /** Waits until this device knows another one's keys: it writes to no device before, and heeds none. */
  knows(other) {
    const device = other.client.getDeviceId();
    return until(`${this.id} knows ${device}`, async () =>
      (await this.crypto.getUserDeviceInfo([other.id])).get(other.id)?.has(device),
    );
  }

  /** Makes an encrypted room and invites people to it. */
  async encryptedRoom(name, invite, more = {}) {
    const { room_id: roomId } = await this.client.createRoom({
      name,
      invite,
      preset: "private_chat",
      initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
      ...more,
    });
    await this.room(roomId);
    return roomId;
  }

  /** Accepts an invitation, and waits until everybody named has seen it. */
  async accept(roomId, ...others) {
    await this.room(roomId, "invite");
    await this.client.joinRoom(roomId);
    await this.room(roomId);
    for (const other of others) {
      await until(
        `${other.id} sees ${this.id} join`,
        () => other.client.getRoom(roomId)?.getMember(this.id)?.membership === "join",
      );
    }
  }
}
