import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** Modules that are never wanted in our pages, and what stands in their place. */
export const aliases = [
  // The SDK's own encryption is 7.6 MiB of wasm that this client does not use.
  { find: /^.*\/rust-crypto\/index\.js$/, replacement: here("./src/stubs/rustCrypto.ts") },
  // Radix locks scrolling with a <style> element, which our Content-Security-Policy refuses.
  { find: "react-style-singleton", replacement: here("./src/stubs/styleSingleton.ts") },
];

export default defineConfig({
  plugins: [react(), tailwindcss()],
  resolve: { alias: aliases },
  build: {
    target: ["chrome137", "firefox130", "safari17"],
    assetsDir: "assets",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    chunkSizeWarningLimit: 1200,
  },
  worker: { format: "es" },
  server: {
    port: 5173,
    strictPort: true,
    proxy: {
      "/_matrix": { target: process.env["CONCLAVE_URL"] ?? "http://localhost:8008", ws: true },
      "/.well-known": process.env["CONCLAVE_URL"] ?? "http://localhost:8008",
    },
  },
});
