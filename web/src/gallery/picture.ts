/** A picture painted on the spot: the gallery needs one, and a file in the repository would be one more to keep. */
export async function paint(width = 1600, height = 1000): Promise<Blob> {
  const canvas = new OffscreenCanvas(width, height);
  const g = canvas.getContext("2d");
  if (g === null) throw new Error("no canvas here");
  const sky = g.createLinearGradient(0, 0, 0, height * 0.62);
  sky.addColorStop(0, "#22335f");
  sky.addColorStop(0.55, "#8a6f9c");
  sky.addColorStop(1, "#f3b083");
  g.fillStyle = sky;
  g.fillRect(0, 0, width, height * 0.62);
  const sea = g.createLinearGradient(0, height * 0.62, 0, height);
  sea.addColorStop(0, "#c78a78");
  sea.addColorStop(0.25, "#4f5f86");
  sea.addColorStop(1, "#16233f");
  g.fillStyle = sea;
  g.fillRect(0, height * 0.62, width, height);
  g.fillStyle = "#ffe3b8";
  g.beginPath();
  g.arc(width * 0.68, height * 0.56, height * 0.06, 0, Math.PI * 2);
  g.fill();
  g.fillStyle = "#1a2036";
  g.fillRect(0, height * 0.6, width * 0.42, height * 0.045);
  for (const [x, h] of [
    [0.1, 0.34],
    [0.27, 0.27],
  ] as const) {
    g.fillRect(width * x, height * (0.6 - h), width * 0.012, height * h);
    g.fillRect(width * (x - 0.04), height * (0.6 - h), width * 0.17, height * 0.013);
    g.fillRect(width * (x + 0.115), height * (0.6 - h), width * 0.003, height * 0.12);
  }
  g.globalAlpha = 0.35;
  g.fillStyle = "#ffdcae";
  for (let i = 0; i < 26; i++) {
    const y = height * (0.64 + i * 0.0125);
    const w = width * (0.03 + ((i * 37) % 11) * 0.006);
    g.fillRect(width * 0.68 - w / 2 + (((i * 53) % 9) - 4) * width * 0.004, y, w, height * 0.003);
  }
  return canvas.convertToBlob({ type: "image/png" });
}
