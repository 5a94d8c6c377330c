/**
 * What this device knows of other users: the identity pinned at first sight, and the devices that it vouches for. Servers say who has which
 * keys; this decides what of it counts.
 */
import {
  asText,
  canonical,
  isJsonObject,
  qualifyDevice,
  readIdentity,
  SealedError,
  type DeviceKeys,
  type Identity,
  type Json,
  type JsonObject,
} from "../crypto";
import type { Api } from "./api";
import { recordName, type KeyStore } from "./keystore";
import type { DeviceStanding } from "./types";

/** Users in one query: a large room is asked for in parts. */
const queryUsers = 200;
const maxDevices = 500;
/** How long a server that could not be asked is left alone; what is known of its users has to do. */
const unreachableMs = 60_000;

/** One user, as stored. */
interface Person {
  /** The master key that this device accepted, first or after a change; "" if the user has shown none. */
  pinned: string;
  /** Master keys accepted earlier. */
  former: string[];
  /** The published keys under the pinned master key, as text; null if not seen. */
  identity: { master: string; selfSigning: string } | null;
  /** Another identity that the server names, waiting for the person's word. */
  offered: { master: string; selfSigning: string } | null;
  /** Device keys as the server gives them out now, of devices that qualify. */
  devices: Record<string, string>;
  /** Devices that the server names and that do not qualify. */
  unqualified: string[];
  /** The keys first seen under a device id: `signing exchange`. Others under the same id are refused. */
  known: Record<string, string>;
}

export interface Holders {
  devices: DeviceKeys[];
  /** Users none of whose devices qualify. */
  withoutKeys: string[];
  /** Users with another identity than the pinned one: nothing is sealed to them. */
  changed: string[];
}

function texts(value: Json | undefined): Record<string, string> {
  if (!isJsonObject(value)) return {};
  return Object.fromEntries(
    Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
}

function list(value: Json | undefined): string[] {
  return Array.isArray(value) ? value.filter((entry) => typeof entry === "string") : [];
}

function published(value: Json | undefined): { master: string; selfSigning: string } | null {
  const { master, selfSigning } = texts(value);
  return master !== undefined && selfSigning !== undefined ? { master, selfSigning } : null;
}

function readPerson(stored: JsonObject | undefined): Person {
  return {
    pinned: typeof stored?.pinned === "string" ? stored.pinned : "",
    former: list(stored?.former),
    identity: published(stored?.identity),
    offered: published(stored?.offered),
    devices: texts(stored?.devices),
    unqualified: list(stored?.unqualified),
    known: texts(stored?.known),
  };
}

function samePerson(a: Person, b: Person): boolean {
  return canonical({ ...a }) === canonical({ ...b });
}

function member(object: Json | undefined, name: string): JsonObject | undefined {
  const value = isJsonObject(object) && Object.hasOwn(object, name) ? object[name] : undefined;
  return isJsonObject(value) ? value : undefined;
}

export class People {
  private readonly persons = new Map<string, Person>();
  private readonly qualified = new Map<string, DeviceKeys>();
  /** Users asked for since the start of this page and not changed since. */
  private readonly fresh = new Set<string>();
  private readonly asking = new Map<string, Promise<void>>();
  private readonly unreachable = new Map<string, number>();
  private readonly listeners = new Set<(userId: string) => void>();
  private readonly staleListeners = new Set<(users: string[]) => void>();

  constructor(
    private readonly api: Api,
    private readonly store: KeyStore,
  ) {}

  /** Called with each user about whom something changed. */
  onChange(listener: (userId: string) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The server has news of these users. */
  markChanged(users: string[]): void {
    for (const user of users) {
      this.fresh.delete(user);
      this.unreachable.delete(user);
    }
    for (const listener of this.staleListeners) listener(users);
  }

  /** Called with users of whom the server has news that nobody has asked for yet. */
  onStale(listener: (users: string[]) => void): () => void {
    this.staleListeners.add(listener);
    return () => this.staleListeners.delete(listener);
  }

  markAllChanged(): void {
    this.fresh.clear();
    this.unreachable.clear();
  }

  /** Another tab wrote. */
  forgetCached(userId: string): void {
    this.persons.delete(userId);
    for (const listener of this.listeners) listener(userId);
  }

  /** Asks the server for what is not fresh. A server that cannot be reached leaves what is known. */
  async refresh(users: string[]): Promise<void> {
    const now = Date.now();
    const missing = users.filter((user) => !this.fresh.has(user) && (this.unreachable.get(user) ?? 0) <= now);
    const waiting = missing.flatMap((user) => this.asking.get(user) ?? []);
    const wanted = missing.filter((user) => !this.asking.has(user));
    for (let i = 0; i < wanted.length; i += queryUsers) {
      const part = wanted.slice(i, i + queryUsers);
      const asked = this.query(part).finally(() => part.forEach((user) => this.asking.delete(user)));
      part.forEach((user) => this.asking.set(user, asked));
      waiting.push(asked);
    }
    await Promise.all(waiting);
  }

  private async query(users: string[]): Promise<void> {
    // Marked before the answer: a change that is told meanwhile makes the user stale again.
    users.forEach((user) => this.fresh.add(user));
    let answer: JsonObject;
    try {
      answer = await this.api.queryKeys(users);
    } catch (error) {
      users.forEach((user) => this.fresh.delete(user));
      throw error;
    }
    const failures = isJsonObject(answer.failures) ? answer.failures : {};
    for (const user of users) {
      if (Object.hasOwn(failures, user.slice(user.indexOf(":") + 1))) {
        this.fresh.delete(user);
        this.unreachable.set(user, Date.now() + unreachableMs);
        continue;
      }
      await this.update(user, await this.learn(user, answer));
    }
  }

  private async learn(userId: string, answer: JsonObject): Promise<Person> {
    const person: Person = { ...(await this.person(userId)) };
    const named = {
      master: asText(member(answer.master_keys, userId)),
      selfSigning: asText(member(answer.self_signing_keys, userId)),
    };
    const identity = await readIdentity(named, userId, "").catch(() => null);
    if (identity) {
      if (person.pinned === "") person.pinned = identity.master;
      if (person.pinned === identity.master) {
        person.identity = named;
        person.offered = null;
      } else {
        person.offered = named;
      }
    }
    const devices = member(answer.device_keys, userId) ?? {};
    return this.learnDevices(userId, person, devices);
  }

  private async learnDevices(userId: string, person: Person, devices: JsonObject): Promise<Person> {
    person.devices = {};
    person.unqualified = [];
    person.known = { ...person.known };
    const identity = await this.identityOf(userId, person);
    for (const [deviceId, object] of Object.entries(devices).slice(0, maxDevices)) {
      const keys =
        identity && isJsonObject(object) ? await this.qualify(canonical(object), userId, deviceId, identity) : null;
      const both = keys ? `${keys.signing} ${keys.exchange}` : "";
      const first = Object.hasOwn(person.known, deviceId) ? person.known[deviceId] : undefined;
      if (!keys || !isJsonObject(object) || (first !== undefined && first !== both)) {
        person.unqualified.push(deviceId);
        continue;
      }
      person.known[deviceId] = both;
      person.devices[deviceId] = canonical(object);
    }
    return person;
  }

  private async update(userId: string, person: Person): Promise<void> {
    const before = await this.person(userId);
    this.persons.set(userId, person);
    if (samePerson(before, person)) return;
    await this.store.put(recordName("person", userId), { ...person });
    for (const listener of this.listeners) listener(userId);
  }

  private async person(userId: string): Promise<Person> {
    const cached = this.persons.get(userId);
    if (cached) return cached;
    const person = readPerson(await this.store.get(recordName("person", userId)));
    this.persons.set(userId, person);
    return person;
  }

  private async identityOf(userId: string, person: Person): Promise<Identity | null> {
    if (!person.identity || person.pinned === "") return null;
    return readIdentity(person.identity, userId, person.pinned).catch(() => null);
  }

  private async qualify(
    text: string,
    userId: string,
    deviceId: string,
    identity: Identity,
  ): Promise<DeviceKeys | null> {
    try {
      return await qualifyDevice(text, userId, deviceId, identity);
    } catch (error) {
      if (error instanceof SealedError) return null;
      throw error;
    }
  }

  /** The pinned master key, "" if there is none. */
  async pinnedMaster(userId: string): Promise<string> {
    return (await this.person(userId)).pinned;
  }

  async formerMasters(userId: string): Promise<string[]> {
    return (await this.person(userId)).former;
  }

  /** The identity under the pin, for somebody who sent something. Throws no_identity if it cannot be had now. */
  async senderFacts(
    userId: string,
    deviceId: string,
  ): Promise<{ identity: Identity; deviceKeys: string | null; first: string | null }> {
    let person = await this.person(userId);
    if (!Object.hasOwn(person.devices, deviceId)) {
      // It may be new; where its server cannot be reached, what is known has to do.
      await this.refresh([userId]).catch(() => undefined);
      person = await this.person(userId);
    }
    const identity = await this.identityOf(userId, person);
    if (!identity) throw new SealedError("no_identity", "the sender's cross-signing keys cannot be had");
    return {
      identity,
      deviceKeys: person.devices[deviceId] ?? null,
      first: Object.hasOwn(person.known, deviceId) ? (person.known[deviceId] ?? null) : null,
    };
  }

  /** Why nothing of this device is accepted, as far as it is known; null if it qualifies. */
  async doubt(userId: string, deviceId: string): Promise<"identity_changed" | "unsigned_device" | null> {
    const person = await this.person(userId);
    if (Object.hasOwn(person.devices, deviceId)) return null;
    if (person.offered) return "identity_changed";
    return person.unqualified.includes(deviceId) ? "unsigned_device" : null;
  }

  /** The devices that may receive keys of a room with these members, and who is left out. Asks the server where needed. */
  async holders(users: string[]): Promise<Holders> {
    await this.refresh(users);
    const holders: Holders = { devices: [], withoutKeys: [], changed: [] };
    for (const user of users) {
      const person = await this.person(user);
      if (person.offered) {
        holders.changed.push(user);
        continue;
      }
      const devices = await this.devicesOf(user, person);
      holders.devices.push(...devices);
      if (devices.length === 0) holders.withoutKeys.push(user);
    }
    return holders;
  }

  private async devicesOf(userId: string, person: Person): Promise<DeviceKeys[]> {
    const identity = await this.identityOf(userId, person);
    if (!identity) return [];
    const devices: DeviceKeys[] = [];
    for (const [deviceId, text] of Object.entries(person.devices)) {
      const name = recordName(userId, deviceId, identity.selfSigning, person.known[deviceId] ?? "");
      const keys = this.qualified.get(name) ?? (await this.qualify(text, userId, deviceId, identity));
      if (!keys) continue;
      this.qualified.set(name, keys);
      devices.push(keys);
    }
    return devices;
  }

  /** The devices of a user that have published keys: which of them qualify. Asks the server where needed. */
  async standings(userId: string): Promise<Map<string, DeviceStanding>> {
    await this.refresh([userId]);
    const person = await this.person(userId);
    return new Map([
      ...Object.keys(person.devices).map((id): [string, DeviceStanding] => [id, "confirmed"]),
      ...person.unqualified.map((id): [string, DeviceStanding] => [id, "unconfirmed"]),
    ]);
  }

  /** Whether a user's identity waits to be accepted, from what is stored. */
  async isChanged(userId: string): Promise<boolean> {
    return (await this.person(userId)).offered !== null;
  }

  /** The person accepts the identity that the server names now. */
  async accept(userId: string): Promise<void> {
    const person = await this.person(userId);
    if (!person.offered) return;
    const identity = await readIdentity(person.offered, userId, "");
    await this.pin(userId, identity.master);
    await this.refresh([userId]);
  }

  /** Sets the pin, to a key that is known from elsewhere: oneself, or a person's word. */
  async pin(userId: string, master: string): Promise<void> {
    const person = await this.person(userId);
    if (person.pinned === master) return;
    const former = person.pinned === "" ? person.former : [...person.former, person.pinned].slice(-10);
    const identity = person.offered;
    await this.update(userId, { ...person, pinned: master, former, identity, offered: null, devices: {}, known: {} });
    this.markChanged([userId]);
  }
}
