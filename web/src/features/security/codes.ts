/** A code as it is sent: people type it in groups, and copy it with spaces around it. */
export function bare(code: string): string {
  return code.replace(/\s/g, "");
}

/** A key in groups of four, to be read and typed. */
export function grouped(key: string): string {
  return key.replace(/(.{4})(?=.)/g, "$1 ");
}
