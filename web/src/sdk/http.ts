/** One request to the homeserver outside the Matrix client: before there is one, and where it would be in the way. */

const requestTimeoutMs = 30_000;
const maxAnswerBytes = 4 << 20;

/** The answer of a homeserver that refused. `status` is 0 where none came. */
export class ApiError extends Error {
  readonly errcode: string;
  readonly status: number;
  readonly retryAfterMs?: number;
  /** The body as it came: user-interactive authentication puts its stages there. */
  readonly body: Record<string, unknown>;

  constructor(status: number, body: Record<string, unknown>, cause?: unknown) {
    super(typeof body.error === "string" ? body.error.slice(0, 1000) : `The server answered ${status}.`, { cause });
    this.name = "ApiError";
    this.status = status;
    this.errcode = typeof body.errcode === "string" ? body.errcode.slice(0, 255) : "M_UNKNOWN";
    this.body = body;
    if (typeof body.retry_after_ms === "number") this.retryAfterMs = body.retry_after_ms;
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export interface RequestOptions {
  body?: unknown;
  token?: string;
  signal?: AbortSignal;
}

let language: string | null = null;

/** In which language the server writes to the person, in mails for example; that of the browser until this is called. */
export function preferLanguage(tag: string): void {
  language = tag;
}

/** Sends JSON and gives back the object that came; anything but a 2xx is an ApiError, with status 0 where no answer came. */
export async function request(
  baseUrl: string,
  method: "GET" | "POST" | "PUT" | "DELETE",
  path: string,
  options: RequestOptions = {},
): Promise<Record<string, unknown>> {
  const headers = new Headers();
  if (language !== null) headers.set("Accept-Language", language);
  if (options.token) headers.set("Authorization", `Bearer ${options.token}`);
  if (options.body !== undefined) headers.set("Content-Type", "application/json");
  const deadline = AbortSignal.timeout(requestTimeoutMs);
  const response = await fetch(baseUrl.replace(/\/+$/, "") + path, {
    method,
    headers,
    body: options.body === undefined ? null : JSON.stringify(options.body),
    signal: options.signal ? AbortSignal.any([options.signal, deadline]) : deadline,
    credentials: "omit",
    referrerPolicy: "no-referrer",
  }).catch(unreached);
  const body = readObject(await response.text().catch(unreached), response);
  if (!response.ok) throw new ApiError(response.status, body);
  return body;

  /** No answer came, or not to its end. */
  function unreached(error: unknown): never {
    options.signal?.throwIfAborted();
    throw new ApiError(0, { error: "The server cannot be reached." }, error);
  }
}

function readObject(text: string, response: Response): Record<string, unknown> {
  if (text.length > maxAnswerBytes)
    throw new ApiError(response.status, { error: "The answer of the server is too large." });
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // Said below: what a proxy writes in HTML is no answer of a homeserver.
  }
  if (!response.ok) return {};
  throw new ApiError(response.status, { error: "This address does not answer like a Matrix server." });
}
