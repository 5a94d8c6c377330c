"use strict";
// Asks the browser for a passkey, or to make one, and sends what it gives with the form. Browsers that cannot turn JSON into
// what they take, and back, are helped: those of before 2025.
(() => {
  const form = document.getElementById("passkey");
  const failed = document.getElementById("failed");
  const button = form.querySelector("button");
  const make = form.dataset.make === "true";

  const toBytes = (text) => {
    const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(plain, (letter) => letter.charCodeAt(0)).buffer;
  };
  const toText = (buffer) => {
    let plain = "";
    for (const byte of new Uint8Array(buffer)) plain += String.fromCharCode(byte);
    return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  };
  const named = (list) => (list || []).map((entry) => ({ ...entry, id: toBytes(entry.id) }));

  function read(options) {
    if (make) {
      if (PublicKeyCredential.parseCreationOptionsFromJSON) {
        return PublicKeyCredential.parseCreationOptionsFromJSON(options);
      }
      const user = { ...options.user, id: toBytes(options.user.id) };
      const excludeCredentials = named(options.excludeCredentials);
      return { ...options, challenge: toBytes(options.challenge), user, excludeCredentials };
    }
    if (PublicKeyCredential.parseRequestOptionsFromJSON) return PublicKeyCredential.parseRequestOptionsFromJSON(options);
    return { ...options, challenge: toBytes(options.challenge), allowCredentials: named(options.allowCredentials) };
  }

  function write(credential) {
    if (credential.toJSON) return JSON.stringify(credential);
    const response = {};
    for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
      if (credential.response[name]) response[name] = toText(credential.response[name]);
    }
    if (credential.response.getTransports) response.transports = credential.response.getTransports();
    const { id, type, authenticatorAttachment } = credential;
    return JSON.stringify({ id, rawId: toText(credential.rawId), type, authenticatorAttachment, response, clientExtensionResults: {} });
  }

  async function ask() {
    failed.hidden = true;
    button.disabled = true;
    try {
      const publicKey = read(JSON.parse(form.dataset.options).publicKey);
      const credential = await (make ? navigator.credentials.create({ publicKey }) : navigator.credentials.get({ publicKey }));
      form.elements.credential.value = write(credential);
    } catch {
      button.disabled = false;
      failed.hidden = false;
      failed.focus();
      return;
    }
    form.submit();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  // Somebody has just pressed a button to come here: they need not press a second one, where the browser lets them.
  if (document.visibilityState === "visible") ask();
})();
