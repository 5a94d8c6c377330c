import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AccountCare } from "./account";
import { Api } from "./api";
import { SecureAccount } from "./testing/security";
import { type Answer, confirmed, type Confirm } from "./uia";

let hs: SecureAccount;
let care: AccountCare;
/** What the person was asked for. */
let asked: string[];

beforeEach(() => {
  hs = new SecureAccount();
  vi.stubGlobal("fetch", hs.fetch);
  asked = [];
  const confirm: Confirm = (who, send) =>
    confirmed(who, send, {
      async ask(steps, refusal): Promise<Answer> {
        const kind = steps[0]?.kind ?? "";
        asked.push(refusal === null ? kind : `${kind} ${refusal.why}`);
        if (kind === "password") return { kind: "password", password: hs.password };
        return { kind: "factor", type: "totp", code: hs.code };
      },
      end: () => undefined,
    });
  care = new AccountCare(
    new Api({ baseUrl: hs.baseUrl, userId: "@ann:hs.test", deviceId: "HERE", accessToken: "t" }),
    confirm,
  );
});
afterEach(() => vi.unstubAllGlobals());

test("an authenticator app is set up, used and replaced", async () => {
  expect(await care.factors()).toEqual({
    totp: false,
    recoveryCodes: 0,
    passkeys: 0,
    passkeysAvailable: true,
    required: true,
    due: 7,
  });
  const begun = await care.beginTotp();
  expect(begun.secret).toBe("JBSWY3DP");
  expect([...begun.picture]).toEqual([0x89, 0x50, 0x4e, 0x47]);
  expect(begun.expires).toBeGreaterThan(Date.now());
  await expect(care.confirmTotp("000000")).rejects.toMatchObject({ errcode: "M_FORBIDDEN" });
  expect(await care.confirmTotp(hs.code)).toHaveLength(2);
  expect(await care.factors()).toMatchObject({ totp: true, recoveryCodes: 2, due: null });
  expect(asked).toEqual(["password"]);
  expect(await care.newRecoveryCodes()).toEqual(["EEEEE-FFFFF"]);
  expect(asked).toEqual(["password", "password", "factor"]);
  await care.beginTotp();
  expect(await care.confirmTotp(hs.code)).toEqual([]);
  await expect(care.removeTotp()).rejects.toMatchObject({ errcode: "M_FORBIDDEN" });
});

test("app passwords are made, listed and removed", async () => {
  expect(await care.addAppPassword("weechat")).toBe("AAAAA-BBBBB-CCCCC-DDDDD-EEEEE");
  expect(await care.appPasswords()).toEqual([{ id: "a1", name: "weechat", created: 1, used: null }]);
  await care.removeAppPassword("a1");
  expect(await care.appPasswords()).toEqual([]);
  expect(asked).toEqual(["password"]);
});

test("sessions stand in order, this one first, and are renamed and signed out", async () => {
  hs.devices.unshift({ device_id: "A/B", last_seen_ts: 9 }, { device_id: "OLD" });
  expect(await care.devices()).toEqual([
    { id: "HERE", name: "here", seen: 5, address: "192.0.2.1", current: true },
    { id: "A/B", name: "", seen: 9, address: "", current: false },
    { id: "OLD", name: "", seen: null, address: "", current: false },
  ]);
  await care.renameDevice("A/B", "telephone");
  expect((await care.devices())[1]?.name).toBe("telephone");
  await care.signOutDevices(["A/B", "OLD"]);
  expect((await care.devices()).map(({ id }) => id)).toEqual(["HERE"]);
});

test("a device that waits is looked at, and let in once that is confirmed", async () => {
  await expect(care.lookAtLink("AAAA-AAAA")).rejects.toMatchObject({ errcode: "M_NOT_FOUND" });
  expect(await care.lookAtLink("WDJB-MJHT")).toEqual({
    name: "telephone",
    client: "",
    address: "192.0.2.9",
    since: 4,
  });
  expect(asked).toEqual([]);
  await care.allowLink("WDJB-MJHT");
  expect([asked, hs.letIn]).toEqual([["password"], 1]);
  await expect(care.allowLink("WDJB-MJHT")).rejects.toMatchObject({ errcode: "M_NOT_FOUND" });
});

test("a device is refused without more ado", async () => {
  await care.refuseLink("WDJB-MJHT");
  expect([asked, hs.letIn]).toEqual([[], 0]);
  await expect(care.lookAtLink("WDJB-MJHT")).rejects.toMatchObject({ errcode: "M_NOT_FOUND" });
});

test("an address is added once the link in its mail was opened", async () => {
  const proof = await care.mailTo("ann@example.org", "secret", 1);
  expect(await care.addEmail(proof)).toBe(false);
  expect(asked).toEqual([]);
  await care.mailTo("ann@example.org", "secret", 2);
  const [mail] = hs.mails.values();
  expect(mail).toMatchObject({ address: "ann@example.org", attempts: 2 });
  if (mail) mail.opened = true;
  expect(await care.addEmail(proof)).toBe(true);
  expect(await care.emails()).toEqual([{ address: "ann@example.org", added: 3 }]);
  await care.removeEmail("ann@example.org");
  expect(await care.emails()).toEqual([]);
});

test("what a server does not mention it lets one change", async () => {
  expect(await care.abilities()).toEqual({ password: true, emails: false });
});

test("the password is changed, and what belongs to it is said", async () => {
  await care.changePassword("another secret", true);
  expect(hs.password).toBe("another secret");
  expect(hs.requests.at(-1)).toEqual([
    "POST /account/password",
    { new_password: "another secret", logout_devices: true },
  ]);
  await care.close(true);
  expect(hs.closed).toEqual({ erase: true });
});

test("an archive is asked for, followed, downloaded and dropped", async () => {
  expect(await care.export()).toEqual({ state: "none", rooms: { done: 0, total: 0 }, size: 0, expires: null });
  expect(await care.beginExport()).toMatchObject({ state: "working", rooms: { done: 1, total: 4 } });
  hs.exporting = { state: "ready", rooms_total: 4, rooms_done: 4, size: 10, expires_ts: 99 };
  expect(await care.export()).toEqual({ state: "ready", rooms: { done: 4, total: 4 }, size: 10, expires: 99 });
  const progress: number[] = [];
  const blob = await care.downloadExport((bytes) => progress.push(bytes), new AbortController().signal);
  expect(await blob.text()).toBe("PK archive");
  expect(progress.at(-1)).toBe(10);
  await care.dropExport();
  expect((await care.export()).state).toBe("none");
});
