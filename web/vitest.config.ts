import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";
import { aliases } from "./vite.config.ts";

const report = process.env["TEST_REPORT"];

export default defineConfig({
  plugins: [react()],
  resolve: { alias: aliases },
  test: {
    include: ["src/**/*.test.{ts,tsx}", "test/**/*.test.{ts,tsx}"],
    setupFiles: ["test/setup.ts"],
    // Tests of the crypto and sdk layers need no page; those of components ask for one in their first line:
    // `// @vitest-environment happy-dom`.
    environment: "node",
    // Far more than anything needs, on a machine that is busy with other things.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    maxWorkers: 2,
    allowOnly: false,
    css: false,
    server: { deps: { inline: ["matrix-js-sdk"] } },
    reporters: report === undefined ? ["default"] : ["default", "json"],
    ...(report === undefined ? {} : { outputFile: { json: report } }),
  },
});
