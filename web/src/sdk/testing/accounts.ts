/**
 * The part of a homeserver that makes accounts and signs people in, in memory, for tests of what stands before a session. It keeps to what the
 * real one does where the pages depend on it: sessions of user-interactive authentication that are bound to a name, stages in their turn,
 * sign-ins that are used up, mails whose links somebody opens.
 */
import { isObject } from "../http";

type Body = Record<string, unknown>;

export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly body: Body,
  ) {
    super(String(body.errcode));
  }
}

export function refuse(status: number, errcode: string, more: Body = {}): never {
  throw new Refused(status, { errcode, error: errcode, ...more });
}

interface Account {
  password: string;
  factors: string[];
  /** What is taken as a second factor, each once. */
  codes: string[];
}

interface Uia {
  name: string;
  completed: string[];
}

interface Validation {
  purpose: string;
  address: string;
  secret: string;
  attempts: number[];
  confirmed: boolean;
}

export class AccountServer {
  readonly baseUrl = "https://hs.test";
  readonly accounts = new Map<string, Account>();
  /** What can be used to make an account, and how often. */
  readonly tokens = new Map<string, number>();
  readonly mails: { to: string; purpose: string; sid: string }[] = [];
  readonly requests: { path: string; body: Body }[] = [];
  /** The ways to make an account; none: nobody can. */
  flows: string[][] = [["m.login.dummy"]];
  params: Body = {};
  loginFlows: Body[] = [{ type: "m.login.password" }, { type: "im.conclave.login.sign_in" }];
  approval = false;
  /** Answers of pages of the server: stages that somebody has passed there. */
  readonly passedElsewhere = new Set<string>();
  /** Refuses a request before it is looked at. */
  intercept: (path: string, body: Body) => void = () => undefined;
  private readonly uia = new Map<string, Uia>();
  private readonly validations = new Map<string, Validation>();
  private readonly signIns = new Map<string, { name: string; left: string[] }>();
  /** Devices that wait to be let in, by their secret code. */
  readonly links = new Map<string, { shown: string; decided: { name: string | null } | null }>();
  private made = 0;

  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : String(input));
    const path = url.pathname.replace(/^\/_matrix\/client\/(v3|v1|unstable)/, "");
    const parsed: unknown = typeof init?.body === "string" ? JSON.parse(init.body) : {};
    const body = isObject(parsed) ? parsed : {};
    this.requests.push({ path: `${init?.method ?? "GET"} ${path}`, body });
    try {
      this.intercept(path, body);
      return Response.json(this.answer(init?.method ?? "GET", path, url, body));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return Response.json(error.body, { status: error.status });
    }
  };

  /** Somebody opens the link of the newest mail. */
  openLink(): void {
    const found = this.validations.get(this.mails.at(-1)?.sid ?? "");
    if (found === undefined) throw new Error("there is no mail");
    found.confirmed = true;
  }

  asked(path: string): Body[] {
    return this.requests.filter((each) => each.path === path).map(({ body }) => body);
  }

  private answer(method: string, path: string, url: URL, body: Body): Body {
    switch (`${method} ${path}`) {
      case "GET /login":
        return { flows: this.loginFlows };
      case "POST /login":
        return this.login(body);
      case "POST /im.conclave.login/sign_in":
        return this.signIn(body);
      case "POST /im.conclave.login/factor":
        return this.factor(body);
      case "POST /im.conclave.login/factor/challenge":
      case "POST /im.conclave.login/passkey/challenge":
        return { options: { publicKey: { challenge: "Y2hhbGxlbmdl", rpId: "hs.test" } }, challenge: "challenge" };
      case "POST /im.conclave.login/passkey":
        return this.begun("ann", []);
      case "POST /register":
        return this.register(body);
      case "GET /register/available":
        return this.accounts.has(url.searchParams.get("username") ?? "")
          ? refuse(400, "M_USER_IN_USE")
          : { available: true };
      case "GET /register/m.login.registration_token/validity":
        return { valid: (this.tokens.get(url.searchParams.get("token") ?? "") ?? 0) > 0 };
      case "POST /register/email/requestToken":
        return this.mail("register", body);
      case "POST /account/password/email/requestToken":
        return this.mail("reset", body);
      case "POST /account/password":
        return this.reset(body);
      case "POST /im.conclave.login/link":
        return this.beginLink(body);
      case "POST /im.conclave.login/link/poll":
        return this.pollLink(body);
      case "POST /logout":
        return {};
    }
    return refuse(404, "M_UNRECOGNIZED");
  }

  private opened(name: string, body: Body): Body {
    const deviceId = typeof body.device_id === "string" ? body.device_id : `DEV${++this.made}`;
    return { user_id: `@${name}:hs.test`, device_id: deviceId, access_token: `token-${name}-${deviceId}` };
  }

  private nameOf(body: Body): string {
    const by = isObject(body.identifier) ? body.identifier : {};
    const user = by.type === "m.id.thirdparty" ? String(by.address).replace(/@.*/, "") : String(by.user);
    return user.replace(/^@([^:]+):.*$/, "$1");
  }

  private checked(body: Body): [string, Account] {
    const name = this.nameOf(body);
    const account = this.accounts.get(name);
    if (account === undefined || account.password !== body.password) return refuse(403, "M_FORBIDDEN");
    return [name, account];
  }

  private begun(name: string, left: string[]): Body {
    const secret = `sign-in-${this.signIns.size}`;
    this.signIns.set(secret, { name, left });
    return { sign_in: secret, needs: left, expires_in_ms: 600_000 };
  }

  /** Somebody decides about the newest device that waits: whose account it is let in to, or null. */
  decideLink(name: string | null): void {
    const newest = [...this.links.values()].at(-1);
    if (newest === undefined) throw new Error("no device waits");
    newest.decided = { name };
  }

  private beginLink(body: Body): Body {
    const code = `device-${++this.made}`;
    this.links.set(code, { shown: String(body.device_display_name), decided: null });
    const url = `${this.baseUrl}/#/link?code=WDJB-MJHT`;
    return { device_code: code, user_code: "WDJB-MJHT", url, expires_in_ms: 900_000, interval_ms: 5000 };
  }

  private pollLink(body: Body): Body {
    const code = String(body.device_code);
    const decided = this.links.get(code)?.decided;
    if (decided === undefined) return refuse(404, "M_NOT_FOUND");
    if (decided === null) return { interval_ms: 5000 };
    this.links.delete(code);
    return decided.name === null ? refuse(403, "M_FORBIDDEN") : this.begun(decided.name, []);
  }

  private signIn(body: Body): Body {
    const [name, account] = this.checked(body);
    return this.begun(name, account.factors);
  }

  private factor(body: Body): Body {
    const going = this.signIns.get(String(body.sign_in));
    const account = this.accounts.get(going?.name ?? "");
    if (going === undefined || account === undefined) return refuse(403, "M_FORBIDDEN");
    const shown = body.type === "passkey" ? "passkey" : String(body.code);
    if (!account.codes.includes(shown)) return refuse(403, "M_FORBIDDEN");
    account.codes = account.codes.filter((code) => code !== shown);
    going.left = [];
    return { sign_in: body.sign_in, needs: [], expires_in_ms: 500_000 };
  }

  private login(body: Body): Body {
    switch (body.type) {
      case "im.conclave.login.sign_in": {
        const going = this.signIns.get(String(body.sign_in));
        if (going === undefined || going.left.length > 0) return refuse(403, "M_FORBIDDEN");
        this.signIns.delete(String(body.sign_in));
        return this.opened(going.name, body);
      }
      case "m.login.token":
        return body.token === "good" ? this.opened("ann", body) : refuse(403, "M_FORBIDDEN");
      case "m.login.password": {
        const [name, account] = this.checked(body);
        if (account.factors.length === 0) return this.opened(name, body);
        return refuse(403, "M_FORBIDDEN", { "im.conclave.sign_in": this.begun(name, account.factors) });
      }
    }
    return refuse(400, "M_UNKNOWN");
  }

  private register(body: Body): Body {
    if (this.flows.length === 0) return refuse(403, "M_FORBIDDEN");
    const auth = isObject(body.auth) ? body.auth : {};
    const name = String(body.username ?? "");
    let uia = this.uia.get(String(auth.session));
    let session = String(auth.session);
    if (uia === undefined || uia.name !== name) {
      uia = { name, completed: [] };
      session = `uia-${this.uia.size}`;
      this.uia.set(session, uia);
    }
    const refusal = this.stage(uia, auth);
    if (refusal !== null || !this.flows.some((flow) => flow.every((stage) => uia.completed.includes(stage)))) {
      throw new Refused(401, {
        session,
        flows: this.flows.map((stages) => ({ stages })),
        ...this.rest(uia),
        ...refusal,
      });
    }
    this.uia.delete(session);
    if (this.accounts.has(name)) return refuse(400, "M_USER_IN_USE");
    if (this.approval) return refuse(403, "M_FORBIDDEN", { "im.conclave.awaiting_approval": true });
    this.accounts.set(name, { password: String(body.password), factors: [], codes: [] });
    return this.opened(name, body);
  }

  private rest(uia: Uia): Body {
    return { completed: uia.completed, params: this.params };
  }

  /** Passes a stage whose turn it is, or says why not. */
  private stage(uia: Uia, auth: Body): Body | null {
    const turns = this.flows.flatMap((flow) => flow.find((stage) => !uia.completed.includes(stage)) ?? []);
    for (const stage of turns.filter((turn) => this.passedElsewhere.has(turn))) uia.completed.push(stage);
    if (typeof auth.type !== "string") return null;
    const no = (errcode: string): Body => ({ errcode, error: errcode });
    if (!turns.includes(auth.type)) return no("M_INVALID_PARAM");
    const creds = isObject(auth.threepid_creds) ? auth.threepid_creds : {};
    if (auth.type === "m.login.registration_token") {
      const left = this.tokens.get(String(auth.token)) ?? 0;
      if (left < 1) return no("M_FORBIDDEN");
      if (auth.token === "unprovable") return no("M_THREEPID_MEDIUM_NOT_SUPPORTED");
      this.tokens.set(String(auth.token), left - 1);
    } else if (auth.type === "m.login.email.identity") {
      if (!this.proven("register", creds)) return no("M_THREEPID_AUTH_FAILED");
    } else if (auth.type === "im.conclave.login.pow" && auth.nonce !== "nonce") return no("M_FORBIDDEN");
    uia.completed.push(auth.type);
    return null;
  }

  private proven(purpose: string, creds: Body): boolean {
    const found = this.validations.get(String(creds.sid));
    return found?.purpose === purpose && found.secret === creds.client_secret && found.confirmed;
  }

  private mail(purpose: string, body: Body): Body {
    const address = String(body.email);
    if (!address.includes("@")) return refuse(400, "M_INVALID_PARAM");
    if (address.endsWith("@elsewhere.test")) return refuse(403, "M_THREEPID_DENIED");
    const secret = String(body.client_secret);
    const known = [...this.validations].find(([, v]) => v.address === address && v.secret === secret);
    const [sid, validation] = known ?? [
      `sid-${this.validations.size}`,
      { purpose, address, secret, attempts: [], confirmed: false },
    ];
    this.validations.set(sid, validation);
    if (!validation.attempts.includes(Number(body.send_attempt))) {
      validation.attempts.push(Number(body.send_attempt));
      this.mails.push({ to: address, purpose, sid });
    }
    return { sid };
  }

  private reset(body: Body): Body {
    const auth = isObject(body.auth) ? body.auth : {};
    const creds = isObject(auth.threepid_creds) ? auth.threepid_creds : {};
    const flows = [{ stages: ["m.login.email.identity"] }];
    if (!this.proven("reset", creds))
      throw new Refused(401, { session: "reset", flows, errcode: "M_THREEPID_AUTH_FAILED", error: "not yet" });
    const account = this.accounts.get(String(this.validations.get(String(creds.sid))?.address).replace(/@.*/, ""));
    if (account === undefined) return refuse(400, "M_THREEPID_AUTH_FAILED");
    account.password = String(body.new_password);
    return {};
  }
}
