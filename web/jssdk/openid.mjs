/**
 * openid-client as it comes from its makers, which knows nothing of Matrix, against one server:
 * `node openid.mjs URL PERSON`, where PERSON is JSON of somebody with an authenticator app. It goes through the server's own
 * pages as a browser without scripts does. Writes lines of JSON as run.mjs; the Go test beside the one of matrix-js-sdk
 * starts the server and reads them.
 */
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import * as oidc from "openid-client";
import { recordedFetch, step } from "./harness.mjs";

const [url, json] = process.argv.slice(2);
/** name, id, password, a code of the authenticator app, and recovery codes. */
const person = JSON.parse(json);
const base = new URL(`${url}/`);
const redirect = "https://client.example.org/back";
const insecure = { algorithm: "oauth2", execute: [oidc.allowInsecureRequests], [oidc.customFetch]: recordedFetch };

/** Somebody in front of a browser without scripts: it keeps cookies, follows redirects, and stops where one leads away. */
class Browser {
  cookies = new Map();
  page = "";
  left = null;

  async open(where, form) {
    let next = new URL(where, base);
    let body = form;
    this.left = null;
    for (let hops = 0; hops < 10; hops++) {
      const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
      const response = await fetch(next, {
        method: body === undefined ? "GET" : "POST",
        redirect: "manual",
        headers: { Cookie: cookie, "Sec-Fetch-Site": "same-origin", Origin: body === undefined ? "" : "null" },
        ...(body === undefined ? {} : { body: new URLSearchParams(body) }),
      });
      for (const line of response.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
        this.cookies.set(name, value);
      }
      this.page = await response.text();
      const location = response.headers.get("location");
      if (location === null) return response.status;
      next = new URL(location, next);
      body = undefined;
      if (next.origin !== base.origin) {
        this.left = next;
        return response.status;
      }
    }
    throw new Error("it is sent around in circles");
  }

  /** Sends a form of the page, with the token that it carries. */
  async submit(where, fields) {
    const token = /name="csrf" value="([^"]+)"/.exec(this.page);
    assert.ok(token, `no form on the page: ${this.page}`);
    assert.ok(this.page.includes(`action="${where}"`), `no form to ${where} on the page: ${this.page}`);
    return this.open(where, { ...fields, csrf: token[1] });
  }

  async signIn(factor) {
    await this.submit("/oauth2/sign_in", { name: person.name, password: person.password });
    await this.submit("/oauth2/factor", factor);
  }
}

const recovery = () => ({ type: "recovery", code: person.recovery.shift() });
const scope = (device) => `urn:matrix:client:api:* urn:matrix:client:device:${device}`;

let config;
const api = (path) => new URL(`_matrix/client/v3/${path}`, base);

async function as(tokens, method, path, body) {
  const headers = new Headers({ "Content-Type": "application/json" });
  const text = body === undefined ? undefined : JSON.stringify(body);
  const response = await oidc
    .fetchProtectedResource(config, tokens.access_token, api(path), method, text, headers)
    .catch((error) => error.response ?? Promise.reject(error));
  return { status: response.status, body: await response.json() };
}

const lives = async (tokens) => (await as(tokens, "GET", "account/whoami")).status === 200;

/** Authorization code with PKCE, through the pages. */
async function authorize(device, factor) {
  const verifier = oidc.randomPKCECodeVerifier();
  const state = oidc.randomState();
  const target = oidc.buildAuthorizationUrl(config, {
    redirect_uri: redirect,
    scope: scope(device),
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    response_mode: "query",
    state,
  });
  const browser = new Browser();
  await browser.open(target);
  await browser.signIn(factor);
  await browser.submit("/oauth2/decide", { decision: "allow" });
  assert.ok(browser.left?.href.startsWith(`${redirect}?`), `it was sent to ${browser.left}: ${browser.page}`);
  return oidc.authorizationCodeGrant(config, browser.left, { pkceCodeVerifier: verifier, expectedState: state });
}

async function refusedBy(error, run) {
  await assert.rejects(run, (thrown) => thrown.error === error);
}

await step("discovery and registration", async () => {
  const metadata = {
    client_name: "Foreign",
    client_uri: "https://client.example.org/",
    redirect_uris: [redirect],
    grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  };
  const registered = await oidc.dynamicClientRegistration(base, metadata, oidc.None(), insecure);
  const { client_id: id } = registered.clientMetadata();
  config = await oidc.discovery(base, id, { token_endpoint_auth_method: "none" }, oidc.None(), insecure);
  const known = await (await recordedFetch(new URL("_matrix/client/v1/auth_metadata", base))).json();
  const found = config.serverMetadata();
  for (const [name, value] of Object.entries(known)) assert.deepEqual(found[name], value, name);
  assert.ok(found.supportsPKCE());
});

await step("code, PKCE, password and authenticator app", async () => {
  const tokens = await authorize("FIRST", { type: "totp", code: person.code });
  const { body } = await as(tokens, "GET", "account/whoami");
  assert.equal(body.user_id, person.id);
  assert.equal(body.device_id, "FIRST");
  assert.equal(tokens.scope, scope("FIRST"));

  const renewed = await oidc.refreshTokenGrant(config, tokens.refresh_token);
  assert.notEqual(renewed.refresh_token, tokens.refresh_token);
  assert.ok(await lives(renewed));
  await refusedBy("invalid_grant", () => oidc.refreshTokenGrant(config, tokens.refresh_token));
  assert.equal(await lives(renewed), false, "a refresh token that is used twice ends the session");
});

await step("re-authentication for cross-signing", async () => {
  const tokens = await authorize("SECOND", recovery());
  const keys = () => {
    const name = generateKeyPairSync("ed25519").publicKey.export({ format: "jwk" }).x;
    const unpadded = Buffer.from(name, "base64url").toString("base64").replace(/=+$/, "");
    return { master_key: { user_id: person.id, usage: ["master"], keys: { [`ed25519:${unpadded}`]: unpadded } } };
  };
  const upload = (body) => as(tokens, "POST", "keys/device_signing/upload", body);
  assert.equal((await upload(keys())).status, 200);
  const next = keys();
  const asked = await upload(next);
  assert.equal(asked.status, 401);
  assert.deepEqual(asked.body.flows, [{ stages: ["m.oauth"] }]);
  const auth = { session: asked.body.session };
  assert.equal((await upload({ ...next, auth })).status, 401);
  const browser = new Browser();
  await browser.open(asked.body.params["m.oauth"].url);
  await browser.signIn(recovery());
  await browser.submit("/oauth2/account", { do: "reset" });
  assert.equal((await upload({ ...next, auth })).status, 200);

  await oidc.tokenRevocation(config, tokens.access_token);
  assert.equal(await lives(tokens), false);
  await refusedBy("invalid_grant", () => oidc.refreshTokenGrant(config, tokens.refresh_token));
});

await step("device grant", async () => {
  const grant = await oidc.initiateDeviceAuthorization(config, { scope: scope("TELEVISION") });
  const browser = new Browser();
  await browser.open(grant.verification_uri);
  await browser.submit("/oauth2/link", { user_code: grant.user_code });
  await browser.signIn(recovery());
  await browser.submit("/oauth2/decide", { decision: "allow", mine: "yes" });
  // It is let in before it asks: it need not wait long for its first question.
  const tokens = await oidc.pollDeviceAuthorizationGrant(config, { ...grant, interval: 1 });
  assert.equal((await as(tokens, "GET", "account/whoami")).body.device_id, "TELEVISION");
  await oidc.tokenRevocation(config, tokens.refresh_token);
  assert.equal(await lives(tokens), false);
});
process.exit(0);
