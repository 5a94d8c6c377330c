/** The calls of one signed-in device that belong to keys and messages between devices. Matrix client and tests stand outside of it. */
import { toJson, type JsonObject, isJsonObject } from "../crypto";
import { ApiError, isObject, request, type RequestOptions } from "./http";
import { endingOf } from "./transport";
import type { Credentials, Ending } from "./types";

/** How long the server may wait for other servers with a query of keys. */
const queryTimeoutMs = 10_000;

type Method = "GET" | "POST" | "PUT" | "DELETE";

export class Api {
  constructor(
    readonly credentials: Credentials,
    private readonly onEnded: (ending: Ending) => void = () => undefined,
  ) {}

  call(method: Method, path: string, options: RequestOptions = {}): Promise<JsonObject> {
    return this.send(method, `/_matrix/client/v3${path}`, options);
  }

  /** A request to an address outside of the specification's present version. */
  async send(method: Method, path: string, options: RequestOptions = {}): Promise<JsonObject> {
    const { baseUrl, accessToken } = this.credentials;
    try {
      const answer = toJson(await request(baseUrl, method, path, { ...options, token: accessToken }));
      return isJsonObject(answer) ? answer : {};
    } catch (error) {
      const ending = error instanceof ApiError && error.status === 401 ? endingOf(error.body) : null;
      if (ending !== null) this.onEnded(ending);
      throw error;
    }
  }

  /** A file of any size, which the browser keeps where it has room. `onProgress` is told the bytes that have come. */
  async download(path: string, onProgress: (done: number) => void, signal: AbortSignal): Promise<Blob> {
    const { baseUrl, accessToken } = this.credentials;
    const response = await fetch(baseUrl.replace(/\/+$/, "") + path, {
      headers: { Authorization: `Bearer ${accessToken}` },
      signal,
      credentials: "omit",
      referrerPolicy: "no-referrer",
      cache: "no-store",
    }).catch((error: unknown) => {
      signal.throwIfAborted();
      throw new ApiError(0, { error: "The server cannot be reached." }, error);
    });
    if (!response.ok || response.body === null) {
      const body: unknown = await response.json().catch(() => ({}));
      throw new ApiError(response.status, isObject(body) ? body : {});
    }
    let done = 0;
    const counted = response.body.pipeThrough(
      new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
        transform(chunk, controller) {
          done += chunk.length;
          onProgress(done);
          controller.enqueue(chunk);
        },
      }),
    );
    return new Response(counted, { headers: { "Content-Type": "application/zip" } }).blob();
  }

  queryKeys(users: string[]): Promise<JsonObject> {
    const device_keys = Object.fromEntries(users.map((user) => [user, []]));
    return this.call("POST", "/keys/query", { body: { device_keys, timeout: queryTimeoutMs } });
  }

  /** Messages by user and device, in one request, repeated under one transaction ID if it is repeated. */
  async sendToDevice(
    type: string,
    messages: Record<string, JsonObject>,
    txnId: string = crypto.randomUUID(),
  ): Promise<void> {
    await this.call("PUT", `/sendToDevice/${encodeURIComponent(type)}/${txnId}`, { body: { messages } });
  }

  /** Account data; null where there is none. */
  async accountData(type: string): Promise<JsonObject | null> {
    try {
      return await this.call("GET", `${this.accountDataPath}/${encodeURIComponent(type)}`);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return null;
      throw error;
    }
  }

  async setAccountData(type: string, content: JsonObject): Promise<void> {
    await this.call("PUT", `${this.accountDataPath}/${encodeURIComponent(type)}`, { body: content });
  }

  private get accountDataPath(): string {
    return `/user/${encodeURIComponent(this.credentials.userId)}/account_data`;
  }
}
