import { afterEach, expect, test, vi } from "vitest";
import { loginWays } from "./signin";

afterEach(() => vi.unstubAllGlobals());

test.each([
  ["one of ours without a provider", [{ type: "im.conclave.login.sign_in" }, { type: "m.login.sso" }], []],
  [
    "one of ours with a provider",
    [
      { type: "im.conclave.login.sign_in" },
      {
        type: "m.login.sso",
        identity_providers: [
          { id: "oidc", name: "Northwind" },
          { id: "conclave", name: "northwind.org" },
        ],
      },
    ],
    [{ id: "oidc", name: "Northwind" }],
  ],
  ["another server", [{ type: "m.login.sso" }], [{ id: null, name: null }]],
])("of %s, only ways that lead elsewhere are offered beside its own", async (_server, flows, providers) => {
  vi.stubGlobal("fetch", async () => new Response(JSON.stringify({ flows })));
  expect((await loginWays("https://x.org")).providers).toEqual(providers);
});
