if (window.matrixLogin && window.matrixLogin.onLogin) {
  window.matrixLogin.onLogin(JSON.parse(document.getElementById("response").dataset.response));
}
