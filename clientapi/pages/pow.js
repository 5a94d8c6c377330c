"use strict";
// Looks for a nonce with which the SHA-256 of seed and nonce begins with enough zero bits, and sends the form with it.
(() => {
  const form = document.getElementById("form");
  const seed = form.dataset.seed;
  const difficulty = Number(form.dataset.difficulty);
  const K = new Uint32Array(64);
  const H = new Uint32Array(8);
  for (let n = 2, found = 0; found < 64; n++) {
    let prime = true;
    for (let d = 2; d * d <= n; d++) if (n % d === 0) { prime = false; break; }
    if (!prime) continue;
    if (found < 8) H[found] = (n ** 0.5 % 1) * 4294967296;
    K[found++] = (Math.cbrt(n) % 1) * 4294967296;
  }
  const w = new Uint32Array(64);
  // hash gives the first word of the SHA-256 of a text of less than 56 bytes of ASCII: one block.
  function hash(text) {
    w.fill(0);
    for (let i = 0; i < text.length; i++) w[i >> 2] |= text.charCodeAt(i) << (24 - (i % 4) * 8);
    w[text.length >> 2] |= 0x80 << (24 - (text.length % 4) * 8);
    w[15] = text.length * 8;
    for (let i = 16; i < 64; i++) {
      const a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (((a >>> 7) | (a << 25)) ^ ((a >>> 18) | (a << 14)) ^ (a >>> 3)) +
        (((b >>> 17) | (b << 15)) ^ ((b >>> 19) | (b << 13)) ^ (b >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = H;
    for (let i = 0; i < 64; i++) {
      const t = (h + (((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))) + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const u = ((((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t) | 0; d = c; c = b; b = a; a = (t + u) | 0;
    }
    return (a + H[0]) >>> 0;
  }
  let nonce = 0;
  function work() {
    const until = Date.now() + 50; // then the page may breathe
    while (Date.now() < until) {
      for (let i = 0; i < 500; i++, nonce++) {
        if (Math.clz32(hash(seed + nonce)) >= difficulty) {
          form.elements.nonce.value = String(nonce);
          form.submit();
          return;
        }
      }
    }
    setTimeout(work, 0);
  }
  setTimeout(work, 0);
})();
