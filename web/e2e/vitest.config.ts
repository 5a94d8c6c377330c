import { defineConfig } from "vitest/config";

const report = process.env["TEST_REPORT"];

/** The tests that drive a real browser: against the built client and whole servers, or against the gallery. */
export default defineConfig({
  root: new URL("..", import.meta.url).pathname,
  test: {
    include: ["e2e/*.e2e.ts"],
    environment: "node",
    testTimeout: 600_000,
    hookTimeout: 300_000,
    fileParallelism: false,
    allowOnly: false,
    reporters: report === undefined ? ["verbose"] : ["verbose", "json"],
    ...(report === undefined ? {} : { outputFile: { json: report } }),
  },
});
