/** A Matrix user ID by the grammar that servers accept for old ones too: sigil, localpart, server name; 255 bytes. */
const userId = /^@[!-9;-~]+:(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/;

export function isUserId(text: string): boolean {
  return userId.test(text) && text.length <= 255;
}
