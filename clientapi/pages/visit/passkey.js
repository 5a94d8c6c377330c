"use strict";
(function () {
  var form = document.getElementById("passkey");
  var failed = document.getElementById("failed");
  var button = form.querySelector("button");
  form.addEventListener("submit", function (event) {
    if (form.elements.credential.value) return;
    event.preventDefault();
    failed.hidden = true;
    button.disabled = true;
    Promise.resolve().then(function () {
      var wanted = JSON.parse(form.dataset.options).publicKey;
      return navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(wanted) });
    }).then(function (credential) {
      form.elements.credential.value = JSON.stringify(credential);
      form.submit();
    }).catch(function () {
      button.disabled = false;
      failed.hidden = false;
      failed.focus();
    });
  });
})();
