/** Files: encrypted before they leave, checked before they are used. */
import type { MatrixClient, MatrixEvent } from "matrix-js-sdk";
import { decryptBlob, encryptStream, fileContent, isJsonObject, readFileKey, toJson, type JsonObject } from "../crypto";
import { ApiError } from "./http";
import type { ReadAttachmentOptions, SendFileOptions } from "./types";

const maxThumbnailBytes = 2 << 20;
const maxAttachmentBytes = 4 * 2 ** 30;
const thumbnailSide = 800;
/** An image larger than this is decoded by nobody to make a thumbnail. */
const maxThumbnailSource = 64 << 20;
const maxNameLength = 255;

/** Types that a page may be given as they are: pictures and sounds that cannot run anything. */
const shown = new Set([
  "image/png",
  "image/jpeg",
  "image/gif",
  "image/webp",
  "image/avif",
  "video/mp4",
  "video/webm",
  "audio/mpeg",
  "audio/mp4",
  "audio/ogg",
  "audio/wav",
  "audio/webm",
  "audio/flac",
]);

function safeType(value: unknown): string {
  return typeof value === "string" && shown.has(value) ? value : "application/octet-stream";
}

function messageType(type: string): string {
  const kind = type.slice(0, type.indexOf("/"));
  return shown.has(type) && ["image", "video", "audio"].includes(kind) ? `m.${kind}` : "m.file";
}

interface Uploaded {
  file: JsonObject;
  size: number;
}

async function upload(client: MatrixClient, source: Blob, options: SendFileOptions): Promise<Uploaded> {
  const { stream, done } = encryptStream(source.stream());
  // A Blob of many parts: the browser keeps large ones on disk, and can send them again.
  const parts: Blob[] = [];
  for (const reader = stream.getReader(); ;) {
    options.signal.throwIfAborted();
    const next = await reader.read();
    if (next.done) break;
    parts.push(new Blob([next.value]));
  }
  const key = await done;
  const abort = new AbortController();
  const onAbort = (): void => abort.abort();
  options.signal.addEventListener("abort", onAbort);
  try {
    const { content_uri: url } = await client.uploadContent(new Blob(parts), {
      type: "application/octet-stream",
      includeFilename: false,
      progressHandler: ({ loaded, total }) => options.onProgress(loaded, total),
      abortController: abort,
    });
    return { file: fileContent({ ...key, url }), size: source.size };
  } finally {
    options.signal.removeEventListener("abort", onAbort);
  }
}

/** What the server says it takes; asked once a client. */
const limits = new WeakMap<MatrixClient, Promise<number | undefined>>();

function uploadLimit(client: MatrixClient): Promise<number | undefined> {
  const known = limits.get(client);
  if (known) return known;
  const asked = client.getMediaConfig(true).then(
    (config) => (typeof config["m.upload.size"] === "number" ? config["m.upload.size"] : undefined),
    () => {
      limits.delete(client); // the upload itself says what is wrong; the next one asks again
      return undefined;
    },
  );
  limits.set(client, asked);
  return asked;
}

/** Nobody waits for the encryption and the upload of what the server will refuse. The ciphertext is as long as the file. */
async function checkSize(client: MatrixClient, file: File): Promise<void> {
  const limit = await uploadLimit(client);
  if (limit !== undefined && file.size > limit) throw new TooLarge(limit);
}

/** The server would refuse the file; `limit` is the largest that it takes, in bytes. */
export class TooLarge extends ApiError {
  constructor(readonly limit: number) {
    super(413, { errcode: "M_TOO_LARGE", error: `The server takes files of up to ${limit} bytes.` });
  }
}

/** Uploads a file and gives the content of the event that carries it. */
export async function prepareFile(client: MatrixClient, file: File, options: SendFileOptions): Promise<JsonObject> {
  await checkSize(client, file);
  const type = file.type || "application/octet-stream";
  const info: JsonObject = { mimetype: type, size: file.size };
  const preview = type.startsWith("image/") ? await makeThumbnail(file) : null;
  if (preview) {
    info.w = preview.width;
    info.h = preview.height;
    if (preview.blob) {
      const { file: key, size } = await upload(client, preview.blob, { ...options, onProgress: () => undefined });
      info.thumbnail_file = key;
      info.thumbnail_info = { mimetype: preview.blob.type, size, w: preview.thumbWidth, h: preview.thumbHeight };
    }
  }
  const { file: key } = await upload(client, file, options);
  const name = file.name.slice(0, maxNameLength) || "file";
  return { msgtype: messageType(type), body: name, filename: name, info, file: key };
}

interface Preview {
  width: number;
  height: number;
  thumbWidth: number;
  thumbHeight: number;
  /** Null where the image is small enough to be its own thumbnail. */
  blob: Blob | null;
}

/** Null where this browser cannot draw the image: then there is no thumbnail. */
async function makeThumbnail(file: File): Promise<Preview | null> {
  if (
    file.size > maxThumbnailSource ||
    typeof createImageBitmap !== "function" ||
    typeof OffscreenCanvas !== "function"
  )
    return null;
  const image = await createImageBitmap(file).catch(() => null);
  if (!image) return null;
  const { width, height } = image;
  const scale = Math.min(1, thumbnailSide / Math.max(width, height));
  const [thumbWidth, thumbHeight] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  try {
    if (scale === 1) return { width, height, thumbWidth, thumbHeight, blob: null };
    const canvas = new OffscreenCanvas(thumbWidth, thumbHeight);
    canvas.getContext("2d")?.drawImage(image, 0, 0, thumbWidth, thumbHeight);
    const type = file.type === "image/png" || file.type === "image/gif" ? "image/png" : "image/jpeg";
    const blob = await canvas.convertToBlob({ type, quality: 0.8 });
    return { width, height, thumbWidth, thumbHeight, blob };
  } finally {
    image.close();
  }
}

/** Fetches an attachment of an event. Of an encrypted one no byte is given out before its hash is right. */
export async function readFile(
  client: MatrixClient,
  event: MatrixEvent,
  options: ReadAttachmentOptions,
  sealed: boolean,
): Promise<Blob> {
  const content = toJson(event.getContent());
  const info = isJsonObject(content) && isJsonObject(content.info) ? content.info : {};
  const thumbInfo = isJsonObject(info.thumbnail_info) ? info.thumbnail_info : {};
  const useThumbnail = options.thumbnail && isJsonObject(info.thumbnail_file);
  const holder = useThumbnail ? info.thumbnail_file : isJsonObject(content) ? content.file : undefined;
  const type = safeType(useThumbnail ? thumbInfo.mimetype : info.mimetype);
  const limit = useThumbnail ? maxThumbnailBytes : maxAttachmentBytes;
  if (isJsonObject(holder)) {
    const key = readFileKey(JSON.stringify(holder));
    return decryptBlob(key, await download(client, key.url, limit, options.signal), type);
  }
  const url = isJsonObject(content) ? content.url : undefined;
  // In a sealed room a file in the clear is a server's word, and not shown.
  if (sealed || typeof url !== "string") throw new Error("no_attachment");
  return new Blob([await download(client, url, limit, options.signal)], { type });
}

async function download(client: MatrixClient, mxc: string, limit: number, signal: AbortSignal): Promise<Blob> {
  const url = client.mxcUrlToHttp(mxc, undefined, undefined, undefined, false, true, true);
  if (!url) throw new Error("no_attachment");
  const response = await fetch(url, {
    headers: { Authorization: `Bearer ${client.getAccessToken() ?? ""}` },
    signal,
    credentials: "omit",
  });
  if (!response.ok || !response.body) throw new ApiError(response.status, {});
  const parts: Blob[] = [];
  let size = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts);
    size += value.length;
    if (size > limit) {
      await reader.cancel();
      throw new Error("too_large");
    }
    parts.push(new Blob([value]));
  }
}
