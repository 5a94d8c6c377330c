/**
 * The account operations of a homeserver in memory, for tests: they want to be confirmed by the password and, where there is one, a second
 * factor. The codes are fixed; what a real authenticator and a real browser do is tested with those.
 */
import { isObject } from "../http";

interface Named {
  id: string;
  name: string;
  created_ts: number;
  last_used_ts?: number;
}

type Answer = [status: number, body: Record<string, unknown>];

const own = "/_matrix/client/unstable/im.conclave.account";
const spec = "/_matrix/client/v3";
const forbidden: Answer = [403, { errcode: "M_FORBIDDEN", error: "no" }];

export class SecureAccount {
  readonly baseUrl = "https://hs.test";
  password = "a secret of mine";
  /** What the authenticator app shows; a right code is used up. */
  code = "123456";
  totp = false;
  enrolling = false;
  recovery: string[] = [];
  passkeys: Named[] = [];
  appPasswords: Named[] = [];
  devices: Record<string, unknown>[] = [
    { device_id: "HERE", display_name: "here", last_seen_ts: 5, last_seen_ip: "192.0.2.1" },
  ];
  emails: string[] = [];
  /** Addresses by the session of their mail, and whether the link was opened. */
  readonly mails = new Map<string, { address: string; secret: string; attempts: number; opened: boolean }>();
  /** The device that waits with the code WDJB-MJHT; null: none. */
  waiting: Record<string, unknown> | null = { device_display_name: "telephone", address: "192.0.2.9", since_ts: 4 };
  letIn = 0;
  closed: { erase: unknown } | null = null;
  exporting: Record<string, unknown> = { state: "none", rooms_total: 0, rooms_done: 0 };
  /** Every request, with its body but the confirmation. */
  readonly requests: [string, Record<string, unknown>][] = [];
  private passed = new Set<string>();

  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const path = String(input).slice(this.baseUrl.length);
    if (path === `${own}/export/download`) return new Response("PK archive");
    const body: unknown = typeof init?.body === "string" ? JSON.parse(init.body) : {};
    const { auth, ...rest } = isObject(body) ? body : {};
    const method = init?.method ?? "GET";
    this.requests.push([`${method} ${path.replace(own, "").replace(spec, "")}`, rest]);
    const [status, answer] = this.answer(method, path, rest, isObject(auth) ? auth : null);
    return Response.json(answer, { status });
  };

  private answer(
    method: string,
    path: string,
    body: Record<string, unknown>,
    auth: Record<string, unknown> | null,
  ): Answer {
    const open = this.open(method, path, body);
    if (open !== null) return open;
    const work = this.guarded(method, path, body);
    if (work === null) return [404, { errcode: "M_UNRECOGNIZED", error: `${method} ${path}` }];
    const missing = this.challenge(auth);
    return missing ?? work();
  }

  /** What needs no confirmation; null if the operation is not one of these. */
  private open(method: string, path: string, body: Record<string, unknown>): Answer | null {
    switch (`${method} ${path.replace(own, "").replace(spec, "")}`) {
      case "GET /factors":
        return [
          200,
          {
            totp: this.totp,
            recovery_codes: this.recovery.length,
            passkeys: this.passkeys.length,
            passkeys_available: true,
            required: true,
            ...(this.totp ? {} : { due_ts: 7 }),
          },
        ];
      case "POST /link/look":
        return this.waits(body) ?? [200, this.waiting ?? {}];
      case "POST /link/refuse":
        return this.waits(body) ?? ((this.waiting = null), [200, {}]);
      case "POST /totp/confirm":
        return this.confirmTotp(body);
      case "GET /passkeys":
        return [200, { passkeys: this.passkeys }];
      case "GET /app_passwords":
        return [200, { app_passwords: this.appPasswords }];
      case "GET /devices":
        return [200, { devices: this.devices }];
      case "GET /capabilities":
        return [200, { capabilities: { "m.3pid_changes": { enabled: false } } }];
      case "GET /account/3pid":
        return [200, { threepids: this.emails.map((address) => ({ medium: "email", address, added_at: 3 })) }];
      case "POST /account/3pid/email/requestToken":
        return this.mail(body);
      case "POST /account/3pid/delete":
        this.emails = this.emails.filter((address) => address !== body.address);
        return [200, { id_server_unbind_result: "success" }];
      case "GET /export":
        return [200, this.exporting];
      case "DELETE /export":
        this.exporting = { state: "none", rooms_total: 0, rooms_done: 0 };
        return [200, {}];
      case "POST /account/3pid/add":
        // Before anybody is asked for a password.
        return this.mails.get(String(body.sid))?.opened === true
          ? null
          : [400, { errcode: "M_THREEPID_AUTH_FAILED", error: "not opened" }];
    }
    const device = /^\/_matrix\/client\/v3\/devices\/(.+)$/.exec(path);
    if (method === "PUT" && device !== null) {
      this.devices = this.devices.map((each) =>
        each.device_id === decodeURIComponent(device[1] ?? "") ? { ...each, display_name: body.display_name } : each,
      );
      return [200, {}];
    }
    const app = /\/app_passwords\/(.+)$/.exec(path);
    if (method === "DELETE" && app !== null) {
      this.appPasswords = this.appPasswords.filter(({ id }) => id !== app[1]);
      return [200, {}];
    }
    return null;
  }

  /** Null where a device waits with the code. */
  private waits({ user_code }: Record<string, unknown>): Answer | null {
    return this.waiting !== null && user_code === "WDJB-MJHT" ? null : [404, { errcode: "M_NOT_FOUND", error: "none" }];
  }

  private confirmTotp({ code }: Record<string, unknown>): Answer {
    if (!this.enrolling) return [404, { errcode: "M_NOT_FOUND", error: "begin again" }];
    if (code !== this.code) return forbidden;
    this.enrolling = false;
    const first = !this.totp && this.passkeys.length === 0;
    this.totp = true;
    if (!first) return [200, {}];
    this.recovery = ["AAAAA-BBBBB", "CCCCC-DDDDD"];
    return [200, { recovery_codes: this.recovery }];
  }

  private mail({ email, client_secret, send_attempt }: Record<string, unknown>): Answer {
    const sid = `sid-${String(client_secret)}`;
    const opened = this.mails.get(sid)?.opened ?? false;
    this.mails.set(sid, {
      address: String(email),
      secret: String(client_secret),
      attempts: Number(send_attempt),
      opened,
    });
    return [200, { sid }];
  }

  /** What has to be confirmed; null if there is no such operation. */
  private guarded(method: string, path: string, body: Record<string, unknown>): (() => Answer) | null {
    const done: Answer = [200, {}];
    switch (`${method} ${path.replace(own, "").replace(spec, "")}`) {
      case "POST /totp/begin":
        return () => {
          this.enrolling = true;
          return [200, { uri: "otpauth://", secret: "JBSWY3DP", qr_png: "iVBORw==", expires_in_ms: 900_000 }];
        };
      case "POST /totp/remove":
        return () => (this.passkeys.length === 0 ? forbidden : ((this.totp = false), done));
      case "POST /recovery_codes":
        return () => {
          this.recovery = ["EEEEE-FFFFF"];
          return [200, { recovery_codes: this.recovery }];
        };
      case "POST /app_passwords":
        return () => {
          this.appPasswords.push({ id: "a1", name: String(body.name), created_ts: 1 });
          return [200, { id: "a1", password: "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE" }];
        };
      case "POST /delete_devices":
        return () => {
          const gone = Array.isArray(body.devices) ? body.devices : [];
          this.devices = this.devices.filter(({ device_id }) => !gone.includes(device_id));
          return done;
        };
      case "POST /account/password":
        return () => ((this.password = String(body.new_password)), done);
      case "POST /account/3pid/add":
        return () => (this.emails.push(this.mails.get(String(body.sid))?.address ?? ""), done);
      case "POST /account/deactivate":
        return () => ((this.closed = { erase: body.erase }), done);
      case "POST /link/allow":
        return () => this.waits(body) ?? (this.letIn++, (this.waiting = null), done);
      case "POST /export":
        return () => {
          this.exporting = { state: "working", rooms_total: 4, rooms_done: 1 };
          return [200, this.exporting];
        };
    }
    return null;
  }

  /** Null once everything is shown. */
  private challenge(auth: Record<string, unknown> | null): Answer | null {
    const stages = ["m.login.password", ...(this.totp ? ["im.conclave.second_factor"] : [])];
    if (auth === null || auth.session !== "s") this.passed = new Set();
    const right =
      auth?.type === "m.login.password"
        ? auth.password === this.password
        : auth?.type === "im.conclave.second_factor" && auth.factor === "totp" && auth.code === this.code;
    if (right) this.passed.add(String(auth?.type));
    if (stages.every((stage) => this.passed.has(stage))) {
      this.passed = new Set();
      return null;
    }
    return [
      401,
      {
        session: "s",
        flows: [{ stages }],
        completed: [...this.passed],
        params: { "im.conclave.second_factor": { types: ["totp", "recovery"] } },
        ...(auth !== null && !right ? { errcode: "M_FORBIDDEN", error: "wrong" } : {}),
      },
    ];
  }
}
