import { create } from "qrcode";

/** Empty modules around it, which readers need (ISO/IEC 18004). */
const quiet = 4;

/** The dark modules, row by row: one rectangle for each that stand side by side. */
function darkOf(text: string): { path: string; size: number } {
  const { modules } = create(text, { errorCorrectionLevel: "M" });
  const parts: string[] = [];
  for (let y = 0; y < modules.size; y++) {
    for (let x = 0; x < modules.size; x++) {
      let width = 0;
      while (x + width < modules.size && modules.get(y, x + width) !== 0) width++;
      if (width === 0) continue;
      parts.push(`M${x + quiet} ${y + quiet}h${width}v1h-${width}z`);
      x += width;
    }
  }
  return { path: parts.join(""), size: modules.size + 2 * quiet };
}

/** A QR code, dark on white whatever the theme is: many readers know no other. */
export function QrCode({ text, label }: { text: string; label: string }) {
  const { path, size } = darkOf(text);
  return (
    <svg
      role="img"
      aria-label={label}
      viewBox={`0 0 ${size} ${size}`}
      shapeRendering="crispEdges"
      className="w-full max-w-56 rounded-xl border border-line"
    >
      <rect width={size} height={size} fill="#ffffff" />
      <path d={path} fill="#000000" />
    </svg>
  );
}
