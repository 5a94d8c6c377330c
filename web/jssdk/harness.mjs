/** Steps that report themselves as lines of JSON, a record of every request, and waiting for conditions. */
import { writeSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

const wordy = process.env["JSSDK_DEBUG"] !== undefined;

// Where the SDK does not use the logger that it is given it writes to the console, but the output is for the Go test.
for (const method of ["trace", "debug", "log", "info", "warn", "error"]) {
  console[method] = (...words) => wordy && process.stderr.write(`${words.map(String).join(" ")}\n`);
}

// What the SDK expects of JavaScript and Node 20 lacks; a newer Node brings it itself.
Promise.withResolvers ??= function withResolvers() {
  let resolve, reject;
  const promise = new Promise((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
};

/** How long anything may take before the run calls it lost: far longer than it needs on a busy machine. */
const patienceMs = 60_000;
const lookEveryMs = 20;

/** Writes a line for the Go test. Synchronous: a process that is ended loses nothing that it said. */
function report(line) {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** Runs one step and reports how it went. A step that fails does not end the run: those after it may still tell something. */
export async function step(name, run) {
  const started = Date.now();
  process.stderr.write(`== ${name}\n`);
  try {
    await limited(run(), 2 * patienceMs, name);
    report({ step: name, ok: true, ms: Date.now() - started });
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    process.stderr.write(`FAILED ${name}: ${text}\n`);
    report({ step: name, ok: false, ms: Date.now() - started, error: text });
  }
}

async function limited(promise, ms, what) {
  const stop = new AbortController();
  const late = pause(ms, undefined, { signal: stop.signal }).then(() => {
    throw new Error(`not done after ${ms} ms: ${what}`);
  });
  late.catch(() => undefined); // stopped: the step was in time
  try {
    return await Promise.race([promise, late]);
  } finally {
    stop.abort();
  }
}

/** Waits until look() gives something true, and gives that back. */
export async function until(what, look) {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain for: ${what}`);
    await pause(lookEveryMs);
  }
}

/** Runs what has to be refused by the server, and gives back the SDK's error. */
export async function refused(errcode, run) {
  let error;
  try {
    await run();
  } catch (thrown) {
    error = thrown;
  }
  if (error?.errcode !== errcode) throw new Error(`wanted ${errcode}, got ${error ?? "success"}`);
  return error;
}

/** What the servers answered otherwise than Matrix v1.19 lets them: no operation of it is unknown, nothing fails inside. */
export const faults = [];
const told = new Set();

/** What the SDK tries although no version of the specification has it, and no server needs to know. */
const unspecified = ["/_matrix/client/unstable/org.matrix.msc4143/"];

/**
 * The fetch that the SDK gets: the ordinary one, with a record of each request for the Go test. What a server does not
 * know or breaks on is kept in faults, with question and answer.
 */
export async function recordedFetch(input, init) {
  const url = new URL(String(input));
  const method = init?.method ?? "GET";
  const response = await fetch(input, init);
  const type = response.headers.get("content-type") ?? "";
  const line = { request: method, path: url.pathname, query: url.search, status: response.status, type };
  line.disposition = response.headers.get("content-disposition") ?? "";
  line.body = type.startsWith("application/json") ? await response.clone().text() : "";
  const key = JSON.stringify(line);
  if (!told.has(key)) {
    told.add(key);
    report(line);
  }
  if (response.status >= 400) {
    const answer = await response.clone().text();
    process.stderr.write(`${method} ${url.pathname}${url.search} ${response.status} ${answer.slice(0, 300)}\n`);
    const unknown = answer.includes("M_UNRECOGNIZED") && !unspecified.some((path) => url.pathname.startsWith(path));
    if (response.status >= 500 || unknown) {
      faults.push(
        `${method} ${url.pathname}${url.search} ${String(init?.body ?? "").slice(0, 300)} -> ${response.status} ${answer.slice(0, 300)}`,
      );
    }
  }
  return response;
}

/** What the SDK says goes into the log only when JSSDK_DEBUG is set: it is a thousand lines. */
export function logger(name) {
  const write =
    (level) =>
    (...words) =>
      process.stderr.write(`${name} ${level} ${words.map(String).join(" ")}\n`);
  const silent = () => undefined;
  return {
    trace: silent,
    debug: wordy ? write("debug") : silent,
    info: wordy ? write("info") : silent,
    warn: wordy ? write("warn") : silent,
    error: wordy ? write("error") : silent,
    getChild: (child) => logger(`${name} ${child}`),
  };
}
