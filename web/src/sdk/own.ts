/**
 * This device and its owner's identity: making them, publishing them, and letting the identity vouch for the device, which is what makes
 * other people seal keys to it.
 */
import {
  asText,
  createCrossSigning,
  createDevice,
  crossSigningFromSeeds,
  isJsonObject,
  publicDeviceKeys,
  readIdentity,
  signObject,
  type Bytes,
  type JsonObject,
  type NewCrossSigning,
  type OwnDevice,
  type Sender,
} from "../crypto";
import type { Api } from "./api";
import { confirmerOf } from "./account";
import type { KeyStore } from "./keystore";
import { Value } from "./observable";
import type { People } from "./people";
import { createStorageKey, readSecrets, writeSecrets, type StorageKey } from "./secretstorage";
import type { IdentityState, NewIdentity } from "./types";
import { confirmed, type Confirm } from "./uia";

const secretNames = {
  master: "m.cross_signing.master",
  self_signing: "m.cross_signing.self_signing",
  user_signing: "m.cross_signing.user_signing",
} as const;

/** The names under which this device's keys are stored. */
const names = { device: "device", signing: "device/signing", exchange: "device/exchange" };

function text(value: JsonObject, name: string): string {
  const found = value[name];
  if (typeof found !== "string") throw new Error("this device's own record is damaged");
  return found;
}

/** Confirms by the password alone, where there is nobody to ask for more. */
const withoutPerson: Confirm = (who, send) =>
  confirmed(who, send, { ask: () => Promise.reject(new Error("password_needed")), end: () => undefined });

export class OwnKeys {
  readonly state = new Value<IdentityState>("unknown");

  private constructor(
    private readonly api: Api,
    private readonly store: KeyStore,
    private readonly people: People,
    readonly device: OwnDevice,
    /** The published keys, with every signature that this device knows of. */
    private signedKeys: JsonObject,
  ) {}

  /** Loads this device's keys, or makes them where there are none. Without network. */
  static async open(api: Api, store: KeyStore, people: People): Promise<OwnKeys> {
    const { userId, deviceId } = api.credentials;
    const stored = await store.get(names.device);
    if (stored) {
      const [signing, exchange] = [await store.key(names.signing), await store.key(names.exchange)];
      if (!signing || !exchange || !isJsonObject(stored.keys)) throw new Error("this device's keys are gone");
      const device = {
        userId,
        deviceId,
        signing: { privateKey: signing, publicKey: text(stored, "signing") },
        exchange: { privateKey: exchange, publicKey: text(stored, "exchange"), kid: text(stored, "kid") },
      };
      const own = new OwnKeys(api, store, people, device, stored.keys);
      if (await own.isVouchedFor()) own.state.set("ready");
      return own;
    }
    const device = await createDevice(userId, deviceId);
    const own = new OwnKeys(api, store, people, device, await publicDeviceKeys(device));
    await own.save();
    return own;
  }

  private async save(): Promise<void> {
    const { signing, exchange } = this.device;
    const record = {
      signing: signing.publicKey,
      exchange: exchange.publicKey,
      kid: exchange.kid,
      keys: this.signedKeys,
    };
    await this.store.write({
      put: [[names.device, record]],
      putKeys: [
        [names.signing, signing.privateKey],
        [names.exchange, exchange.privateKey],
      ],
    });
  }

  /** What this device seals with. Only a device that its owner's identity vouches for may send. */
  async sender(): Promise<Sender> {
    const masterKey = await this.people.pinnedMaster(this.device.userId);
    if (this.state.get() !== "ready" || masterKey === "") throw new Error("identity_not_ready");
    return { device: this.device, deviceKeys: this.signedKeys, masterKey };
  }

  /** Publishes the device's keys and looks at what the server says of the identity. */
  async publish(): Promise<void> {
    await this.api.call("POST", "/keys/upload", { body: { device_keys: this.signedKeys } });
    await this.check();
  }

  /** Called whenever the server has news of the own user. */
  async check(): Promise<void> {
    const { userId, deviceId } = this.device;
    const answer = await this.api.queryKeys([userId]);
    const named = isJsonObject(answer.master_keys) ? answer.master_keys[userId] : undefined;
    const known = await this.store.has("identity");
    if (!named && !known) return this.state.set("missing");
    this.people.markChanged([userId]);
    // Another device of this user can only be believed once this one has the identity; until then nothing is pinned from a server's word.
    if (!known) return this.state.set("locked");
    await this.people.refresh([userId]);
    const devices = isJsonObject(answer.device_keys) ? answer.device_keys[userId] : undefined;
    const own = isJsonObject(devices) ? devices[deviceId] : undefined;
    const right = (await this.isVouchedFor()) && isJsonObject(own) && !(await this.people.isChanged(userId));
    this.state.set(right ? "ready" : "locked");
  }

  private async isVouchedFor(): Promise<boolean> {
    const identity = await this.store.get("identity");
    const signatures = isJsonObject(this.signedKeys.signatures) ? this.signedKeys.signatures[this.device.userId] : {};
    return (
      identity !== undefined && isJsonObject(signatures) && `ed25519:${text(identity, "self_signing")}` in signatures
    );
  }

  /** Makes an identity. Nothing of it leaves this device until `commit`, after the person has kept the recovery key. */
  async create(password?: string, confirm?: Confirm): Promise<NewIdentity> {
    const storage = createStorageKey();
    const cross = await createCrossSigning(this.device.userId);
    return { recoveryKey: storage.recoveryKey, commit: () => this.commit(storage, cross, password, confirm) };
  }

  private async commit(
    storage: StorageKey,
    cross: NewCrossSigning,
    password?: string,
    confirm?: Confirm,
  ): Promise<void> {
    const { userId, deviceId, signing } = this.device;
    await this.api.call("POST", "/keys/upload", { body: { device_keys: await publicDeviceKeys(this.device) } });
    // The secrets first: an identity that nobody can open again would lock its owner out.
    const secrets = Object.entries(secretNames).map(([usage, name]): [string, Bytes] => [
      name,
      cross.seeds[usage as keyof typeof secretNames],
    ]);
    await writeSecrets(this.api, storage, Object.fromEntries(secrets));
    const master = await signObject(cross.objects.master, userId, `ed25519:${deviceId}`, signing.privateKey);
    await this.uploadIdentity(
      {
        master_key: master,
        self_signing_key: cross.objects.self_signing,
        user_signing_key: cross.objects.user_signing,
      },
      password,
      confirm,
    );
    await this.adopt(cross);
  }

  /** The first identity of an account needs no confirmation; a later one does, by the password that is known and whatever else is asked. */
  private async uploadIdentity(keys: JsonObject, password?: string, confirm: Confirm = withoutPerson): Promise<void> {
    await confirm(confirmerOf(this.api, password), (auth) =>
      this.api.call("POST", "/keys/device_signing/upload", { body: auth === undefined ? keys : { ...keys, auth } }),
    );
  }

  /** Lets the identity vouch for this device, keeps its lower keys, and pins it. */
  private async adopt(cross: NewCrossSigning): Promise<void> {
    const { userId, deviceId } = this.device;
    const { publicKey, privateKey } = cross.keys.self_signing;
    const signed = await signObject(await publicDeviceKeys(this.device), userId, `ed25519:${publicKey}`, privateKey);
    const answer = await this.api.call("POST", "/keys/signatures/upload", {
      body: { [userId]: { [deviceId]: signed } },
    });
    if (isJsonObject(answer.failures) && Object.keys(answer.failures).length > 0) throw new Error("signature_refused");
    this.signedKeys = signed;
    const identity = {
      master: cross.keys.master.publicKey,
      self_signing: publicKey,
      user_signing: cross.keys.user_signing.publicKey,
    };
    await this.store.write({
      put: [["identity", identity]],
      putKeys: [
        ["identity/self_signing", privateKey],
        ["identity/user_signing", cross.keys.user_signing.privateKey],
      ],
    });
    await this.save();
    await this.people.pin(userId, identity.master);
    this.people.markChanged([userId]);
    await this.check();
  }

  /**
   * Opens the identity with the recovery key. The own master key is the one inside secret storage, whatever the server names: the public
   * keys are derived from the secrets, and a server that publishes others is refused.
   */
  async unlock(recoveryKey: string): Promise<void> {
    const { userId } = this.device;
    const secrets = await readSecrets(this.api, recoveryKey, Object.values(secretNames));
    const seed = (usage: keyof typeof secretNames): Bytes => {
      const found = secrets[secretNames[usage]];
      if (!found || found.length !== 32) throw new Error("wrong_key");
      return found;
    };
    const seeds = { master: seed("master"), self_signing: seed("self_signing"), user_signing: seed("user_signing") };
    const cross = await crossSigningFromSeeds(userId, seeds);
    const answer = await this.api.queryKeys([userId]);
    const named = (kind: string): string => {
      const keys = answer[kind];
      const object = isJsonObject(keys) ? keys[userId] : undefined;
      return asText(isJsonObject(object) ? object : undefined);
    };
    const published = { master: named("master_keys"), selfSigning: named("self_signing_keys") };
    const identity = await readIdentity(published, userId, cross.keys.master.publicKey).catch((error: unknown) => {
      throw new Error("identity_changed", { cause: error });
    });
    if (identity.selfSigning !== cross.keys.self_signing.publicKey) throw new Error("identity_changed");
    await this.adopt(cross);
  }
}
