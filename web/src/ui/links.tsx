import { Fragment, type ReactNode } from "react";

const address = /https?:\/\/[^\s<>"'`]{2,2000}/g;

/** Punctuation at the end belongs to the sentence; a closing bracket too, unless the address opens one. */
function trim(url: string): string {
  let end = url.length;
  for (; end > 0; end--) {
    const last = url[end - 1] ?? "";
    if (/[.,;:!?*_]/.test(last)) continue;
    if (last === ")" && !url.slice(0, end - 1).includes("(")) continue;
    break;
  }
  return url.slice(0, end);
}

/** Text with its web addresses as links. Nothing else in it means anything: it is never read as markup. */
export function Linked({ text, className }: { text: string; className?: string }): ReactNode {
  const parts: ReactNode[] = [];
  let from = 0;
  for (const match of text.matchAll(address)) {
    const url = trim(match[0]);
    if (!URL.canParse(url)) continue;
    parts.push(<Fragment key={from}>{text.slice(from, match.index)}</Fragment>);
    parts.push(
      <a key={`a${match.index}`} href={url} target="_blank" rel="noopener noreferrer nofollow" className={className}>
        {url}
      </a>,
    );
    from = match.index + url.length;
  }
  parts.push(<Fragment key={from}>{text.slice(from)}</Fragment>);
  return parts;
}

const onlyEmoji = /^(?:\p{RGI_Emoji}|\s){1,40}$/v;

export function isOnlyEmoji(text: string): boolean {
  return onlyEmoji.test(text) && [...new Intl.Segmenter().segment(text.replace(/\s/g, ""))].length <= 5;
}
