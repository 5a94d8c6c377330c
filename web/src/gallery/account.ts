/** An account made of fixed values, and questions to confirm, for the gallery. */
import type { Account, Factors, Named, SignedIn, TotpEnrolment, WaitingDevice } from "../stores/account";
import type { Asking, Confirming, Refusal, Step } from "../stores/confirm";
import { cell } from "../stores/observable";

/** The same afternoon as that of the fixtures. */
const moment = new Date().setHours(15, 24, 0, 0);
const hour = 3_600_000;
const day = 24 * hour;

export const codes = [
  "K7QWD-2MXPA-9RTLE-H3VBN",
  "ZP4FA-7WJKQ-MD2XR-8LTCE",
  "QX9LM-RD5TB-3KPVA-7WHEJ",
  "B2HTR-9QXMD-LA7PK-V4WCE",
  "W8JKD-4PLQA-XR3MT-9EBHV",
  "M3VBX-KT7QD-2WLPA-R9HEJ",
  "D9RTA-XM4KP-7QLWB-3VHCE",
  "T5PLK-9WQXA-MD8RB-2JHVE",
  "H4XMD-7RTQA-KP9LW-B3VCE",
  "L2QKA-8MXRD-W5TPB-9VHEJ",
];

/** A QR code, as the server draws them, without the size. */
const picture = [
  "iVBORw0KGgoAAAANSUhEUgAAADkAAAA5AQMAAAC21hHGAAAABlBMVEX///8AAABVwtN+AAABKklEQVR42mKgGvi3vrXQvoGBgaFpYcBqBRBj",
  "17onF9aBGVJcLnpgxtrn2mBGU/pBhgUgxr9Vq1btBzEYHCxfgM2Zv6tAzBskUmix2XgvSETY//SkuyDG2o8RrTIgxqE41w0bQWocNu6TqwYx",
  "omf/v7waxPBk6TYsBptjzMbEChJp3H5X4QRIxNr/o6QHSCSwau6hUyAGd4tOLNicqfpu5XNAapxEeC+kge1akbWnFcSwj5UU1AExLiSkW8wG",
  "KX7vZFeoA2LMPa4psBzEuOV4g1EEpGautuf0LrAaG//qNSDGwXMMP7tAUvd7DyX8B/v0bfHjbnCItfeGrAIxms5bHO8FMXZ9uXf5F5ix45O1",
  "I5jhYbExDhxiqjt3gYPu30yvizuoF22AAAAA///9M3GuEXCUSQAAAABJRU5ErkJggg==",
].join("");

export function enrolment(): TotpEnrolment {
  return {
    secret: "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
    picture: Uint8Array.from(atob(picture), (char) => char.charCodeAt(0)),
    expires: moment + hour,
  };
}

const factors: Factors = {
  totp: true,
  recoveryCodes: 8,
  passkeys: 2,
  passkeysAvailable: true,
  required: false,
  due: null,
};

export const without: Partial<Factors> = { totp: false, recoveryCodes: 0, passkeys: 0 };

const passkeys: Named[] = [
  { id: "p1", name: "Laptop fingerprint", created: moment - 40 * day, used: moment - 2 * hour },
  { id: "p2", name: "Blue security key", created: moment - 3 * day, used: null },
];

const appPasswords: Named[] = [{ id: "a1", name: "weechat on helios", created: moment - 90 * day, used: moment - day }];

function session(id: string, name: string, rest: Partial<SignedIn>): SignedIn {
  return { id, name, seen: moment - day, address: "2001:db8::7", current: false, standing: "confirmed", ...rest };
}

export const sessions: SignedIn[] = [
  session("QJZUWPLDVR", "Conclave, Chrome (Linux)", { seen: moment, address: "192.0.2.17", current: true }),
  session("AKXNOEDKTW", "Conclave, Safari (iOS)", { seen: moment - 26 * hour }),
  session("PLMOKNIJBU", "Conclave, Firefox (Windows)", { standing: "unconfirmed", address: "198.51.100.4" }),
  session("WEECHATWEE", "weechat on helios", { standing: "withoutKeys", seen: null, address: "" }),
];

export const waitingDevice: WaitingDevice = {
  name: "Conclave, Chrome (Android)",
  client: "",
  address: "198.51.100.23",
  since: moment - 2 * 60_000,
};

interface AccountState extends Partial<Omit<Account, "factors">> {
  factors?: Partial<Factors> | (() => Promise<Factors>);
}

const done = async (): Promise<void> => {};

export function fakeAccount({ factors: state = {}, ...rest }: AccountState = {}): Account {
  const freshCodes = cell<string[]>([]);
  return {
    factors: typeof state === "function" ? state : async () => ({ ...factors, ...state }),
    beginTotp: async () => enrolment(),
    confirmTotp: async () => codes,
    removeTotp: done,
    newRecoveryCodes: async () => codes,
    passkeys: async () => passkeys,
    renamePasskey: done,
    removePasskey: done,
    appPasswords: async () => appPasswords,
    addAppPassword: async () => "K7QWD-2MXPA-9RTLE-H3VBN-ZP4FA",
    removeAppPassword: done,
    renameDevice: done,
    signOutDevices: done,
    lookAtLink: async () => waitingDevice,
    allowLink: done,
    refuseLink: done,
    arrivedLink: cell(null),
    forgetLink: () => {},
    abilities: async () => ({ password: true, emails: true }),
    changePassword: done,
    emails: async () => [{ address: "alice@northwind.org", added: moment - 200 * day }],
    removeEmail: done,
    export: async () => ({ state: "none", rooms: { done: 0, total: 0 }, size: 0, expires: null }),
    beginExport: async () => ({ state: "working", rooms: { done: 0, total: 14 }, size: 0, expires: null }),
    dropExport: done,
    downloadExport: async () => new Blob(),
    canMakePasskeys: true,
    sessions: async () => sessions,
    addPasskey: async () => ({ make: async () => ({ codes: [] }) }),
    freshCodes,
    showCodes: (fresh) => freshCodes.set(fresh),
    codesKept: () => freshCodes.set([]),
    waitingEmail: cell(null),
    mailTo: done,
    mailAgain: done,
    finishEmail: async () => false,
    forgetEmail: () => {},
    close: done,
    ...rest,
  };
}

export function asking(steps: Step[], refusal: Refusal | null = null, busy = false): Confirming {
  const question: Asking = {
    userId: "@alice:northwind.org",
    steps,
    refusal,
    busy,
    answer: () => {},
    answerWithPasskey: async () => "cancelled",
    cancel: () => {},
  };
  return { asking: cell<Asking | null>(question), confirm: (_who, send) => send() };
}
