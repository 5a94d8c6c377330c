import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { expect, test, vi } from "vitest";
import { build } from "vite";

interface Chunk {
  type: string;
  fileName: string;
  code?: string;
  source?: string | Uint8Array;
  imports?: string[];
}

/** What the first page loads, and what everything together weighs (web.md: 200 and 700 KiB, compressed). */
test(
  "the first load stays small, and the wasm of the SDK's own encryption is not in a build",
  { timeout: 240_000 },
  async () => {
    vi.stubEnv("NODE_ENV", "production"); // the tests' own would bring React's development build
    const root = path.resolve(import.meta.dirname, "..");
    const result = await build({
      root,
      configFile: path.join(root, "vite.config.ts"),
      logLevel: "error",
      build: { write: false },
    });
    if (!("output" in result)) throw new Error("one build was expected");
    const files = new Map((result.output as Chunk[]).map((chunk) => [chunk.fileName, chunk]));
    const size = (name: string): number => {
      const bytes = files.get(name)?.code ?? files.get(name)?.source ?? "";
      return name.endsWith(".woff2") ? bytes.length : gzipSync(bytes).length;
    };
    const page = String(files.get("index.html")?.source);
    const first = new Set([
      "index.html",
      ...[...page.matchAll(/(?:src|href)="\/(assets\/[^"]+)"/g)].map((match) => match[1] ?? ""),
    ]);
    for (const name of first) for (const imported of files.get(name)?.imports ?? []) first.add(imported);
    for (const name of files.keys()) if (name.endsWith(".woff2")) first.add(name);
    const sum = (names: Iterable<string>): number => [...names].reduce((total, name) => total + size(name), 0) / 1024;
    expect(first.size).toBeGreaterThan(3);
    expect(sum(first)).toBeLessThan(200);
    // One language is there from the start; every other is one chunk, which nobody loads who does not want it.
    const german = [...files.values()].filter((file) => file.code?.includes("Willkommen zurück"));
    expect(german.map((file) => [first.has(file.fileName), file.imports])).toEqual([[false, []]]);
    expect(sum(files.keys())).toBeLessThan(700);
    expect([...files.keys()].filter((name) => name.endsWith(".wasm"))).toEqual([]);
    // Nothing in the page runs inline: the policy would refuse it.
    expect(page).not.toMatch(/<script(?![^>]*src=)|<style|\son[a-z]+=/);
    expect(
      existsSync(path.join(root, "public/icon.svg")) && readFileSync(path.join(root, "index.html"), "utf8"),
    ).toContain("/icon.svg");
  },
);
