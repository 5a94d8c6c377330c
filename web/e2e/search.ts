/** Looks for what must not be there: in every file of a folder, in the forms in which a program may have written it. */
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";

/** The middle of the base64 of a value, for each place at which it may begin in what is encoded. */
function base64Forms(value: Buffer): string[] {
  const forms: string[] = [];
  for (let before = 0; before < 3; before++) {
    const encoded = Buffer.concat([Buffer.alloc(before), value])
      .toString("base64")
      .replace(/=+$/, "");
    const inner = encoded.slice(before === 0 ? 0 : before + 1, -3);
    forms.push(inner, inner.replaceAll("+", "-").replaceAll("/", "_"));
  }
  return forms;
}

function forms(value: Buffer): Buffer[] {
  const text = value.toString("utf8");
  const escaped = JSON.stringify(text).slice(1, -1);
  const hex = value.toString("hex");
  return [
    value,
    Buffer.from(escaped),
    Buffer.from(text, "utf16le"),
    Buffer.from(encodeURIComponent(text)),
    Buffer.from(hex),
    Buffer.from(hex.toUpperCase()),
    ...base64Forms(value).map((form) => Buffer.from(form)),
  ];
}

async function filesBelow(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
}

/** The names of the values that some file holds, with the file. */
export async function findIn(dir: string, values: Map<string, Buffer>): Promise<string[]> {
  const wanted = [...values].flatMap(([name, value]) => forms(value).map((form) => ({ name, form })));
  const found: string[] = [];
  for (const file of await filesBelow(dir)) {
    const bytes = await readFile(file);
    for (const { name, form } of wanted) if (bytes.includes(form)) found.push(`${name} in ${file}`);
  }
  return [...new Set(found)];
}
