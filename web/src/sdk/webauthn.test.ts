import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { toBase64Url, utf8 } from "../crypto/encoding";
import { createPasskey, hasPasskeys, suggestsPasskeys, usePasskey } from "./webauthn";

const text = (buffer: BufferSource): string => new TextDecoder().decode(buffer);
const b64 = (value: string): string => toBase64Url(utf8(value));

const create = vi.fn();
const get = vi.fn();

beforeEach(() => {
  vi.stubGlobal("navigator", { credentials: { create, get } });
  vi.stubGlobal(
    "PublicKeyCredential",
    Object.assign(function PublicKeyCredential() {}, { isConditionalMediationAvailable: async () => true }),
  );
});

afterEach(() => {
  vi.unstubAllGlobals();
  create.mockReset();
  get.mockReset();
});

const creation = {
  publicKey: {
    rp: { id: "chat.example", name: "Example" },
    user: { id: b64("handle"), name: "@ann:example", displayName: "ann" },
    challenge: b64("challenge"),
    pubKeyCredParams: [{ type: "public-key", alg: -7 }],
    excludeCredentials: [{ type: "public-key", id: b64("old"), transports: ["usb"] }],
    authenticatorSelection: { residentKey: "preferred" },
  },
};
const request = {
  publicKey: { rpId: "chat.example", challenge: b64("challenge"), allowCredentials: [], userVerification: "required" },
};

describe("making a passkey", () => {
  test("bytes go in and out as base64url, and the rest as it is", async () => {
    create.mockResolvedValue({
      id: b64("new"),
      rawId: utf8("new").buffer,
      type: "public-key",
      authenticatorAttachment: "platform",
      response: {
        clientDataJSON: utf8("client").buffer,
        attestationObject: utf8("attestation").buffer,
        getTransports: () => ["internal"],
      },
    });
    const outcome = await createPasskey(creation);
    expect(outcome).toEqual({
      ok: true,
      credential: {
        id: b64("new"),
        rawId: b64("new"),
        type: "public-key",
        authenticatorAttachment: "platform",
        clientExtensionResults: {},
        response: {
          clientDataJSON: b64("client"),
          attestationObject: b64("attestation"),
          transports: ["internal"],
        },
      },
    });
    const asked = (create.mock.calls[0]?.[0] as CredentialCreationOptions).publicKey!;
    expect([text(asked.challenge), text(asked.user.id), text(asked.excludeCredentials![0]!.id)]).toEqual([
      "challenge",
      "handle",
      "old",
    ]);
    expect(asked.rp).toEqual(creation.publicKey.rp);
    expect(asked.pubKeyCredParams).toEqual(creation.publicKey.pubKeyCredParams);
    expect(asked.excludeCredentials![0]!.transports).toEqual(["usb"]);
  });

  test.each([
    ["NotAllowedError", "cancelled"],
    ["AbortError", "cancelled"],
    ["InvalidStateError", "exists"],
    ["NotSupportedError", "unsupported"],
    ["ConstraintError", "unsupported"],
    ["SecurityError", "wrong_site"],
    ["UnknownError", "failed"],
  ])("%s is told as %s", async (name, problem) => {
    create.mockRejectedValue(new DOMException("no", name));
    expect(await createPasskey(creation)).toEqual({ ok: false, problem });
  });

  test("options that are none are no crash", async () => {
    expect(await createPasskey({})).toEqual({ ok: false, problem: "failed" });
    expect(await createPasskey({ publicKey: { ...creation.publicKey, challenge: "!" } })).toEqual({
      ok: false,
      problem: "failed",
    });
    expect(create).not.toHaveBeenCalled();
  });
});

describe("using a passkey", () => {
  const shown = {
    id: b64("key"),
    rawId: utf8("key").buffer,
    type: "public-key",
    response: {
      clientDataJSON: utf8("client").buffer,
      authenticatorData: utf8("data").buffer,
      signature: utf8("signature").buffer,
      userHandle: utf8("handle").buffer,
    },
  };

  test("what the browser shows goes to the server as JSON", async () => {
    get.mockResolvedValue(shown);
    expect(await usePasskey(request)).toEqual({
      ok: true,
      credential: {
        id: b64("key"),
        rawId: b64("key"),
        type: "public-key",
        clientExtensionResults: {},
        response: {
          clientDataJSON: b64("client"),
          authenticatorData: b64("data"),
          signature: b64("signature"),
          userHandle: b64("handle"),
        },
      },
    });
    const asked = get.mock.calls[0]?.[0] as CredentialRequestOptions;
    expect(asked.mediation).toBeUndefined();
    expect(asked.publicKey).toMatchObject({ rpId: "chat.example", userVerification: "required" });
  });

  test("what waits behind suggestions makes room for a window", async () => {
    get.mockImplementationOnce(
      ({ signal }: CredentialRequestOptions) =>
        new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason as Error))),
    );
    const suggested = usePasskey(request, { conditional: true });
    expect((get.mock.calls[0]?.[0] as CredentialRequestOptions).mediation).toBe("conditional");
    get.mockResolvedValueOnce(shown);
    expect((await usePasskey(request)).ok).toBe(true);
    expect(await suggested).toEqual({ ok: false, problem: "cancelled" });
  });

  test("whoever asks can give up", async () => {
    get.mockImplementation(({ signal }: CredentialRequestOptions) => Promise.reject(signal?.reason as Error));
    const aborted = AbortSignal.abort();
    expect(await usePasskey(request, { signal: aborted })).toEqual({ ok: false, problem: "cancelled" });
  });

  test("nothing at all is a window that was closed", async () => {
    get.mockResolvedValue(null);
    expect(await usePasskey(request)).toEqual({ ok: false, problem: "cancelled" });
  });
});

test("a browser without passkeys says so before anything is asked of it", async () => {
  expect(hasPasskeys()).toBe(true);
  expect(await suggestsPasskeys()).toBe(true);
  vi.stubGlobal("PublicKeyCredential", undefined);
  expect(hasPasskeys()).toBe(false);
  expect(await suggestsPasskeys()).toBe(false);
  expect(await createPasskey(creation)).toEqual({ ok: false, problem: "unsupported" });
  expect(await usePasskey(request)).toEqual({ ok: false, problem: "unsupported" });
  expect([create, get].map((f) => f.mock.calls.length)).toEqual([0, 0]);
});
