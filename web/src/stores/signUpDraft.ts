/** What this tab keeps of an account that is being made, so that a reload loses nothing. Never the password. */
import type { AddressProof } from "../sdk";

const key = "conclave.signUp";
/** A link in a mail and what it confirms are good for half an hour together; then there is nothing to go on with. */
const keptMs = 30 * 60_000;

export interface Draft {
  name: string;
  token: string;
  email: string;
  reason: string;
  /** Of user-interactive authentication. */
  session: string;
  /** The documents and versions that were agreed to. */
  agreed: string;
  proof: AddressProof | null;
  awaiting: boolean;
  /** When it was kept, in ms. */
  at: number;
}

export const emptyDraft: Draft = {
  name: "",
  token: "",
  email: "",
  reason: "",
  session: "",
  agreed: "",
  proof: null,
  awaiting: false,
  at: 0,
};

/** Whether something has the members of a model, each of the same type. */
function isLike<T extends object>(model: T, value: unknown): value is T {
  if (typeof value !== "object" || value === null) return false;
  const found = value as Record<string, unknown>;
  return Object.entries(model).every(([name, of]) => of === null || typeof found[name] === typeof of);
}

const emptyProof: AddressProof = { address: "", sid: "", secret: "", attempt: 0, sentAt: 0 };

export function keptDraft(): Draft | null {
  try {
    const found: unknown = JSON.parse(sessionStorage.getItem(key) ?? "null");
    if (!isLike(emptyDraft, found) || Date.now() - found.at > keptMs) {
      clearDraft();
      return null;
    }
    return { ...found, proof: isLike(emptyProof, found.proof) ? found.proof : null };
  } catch {
    return null;
  }
}

export function keepDraft(draft: Draft): void {
  sessionStorage.setItem(key, JSON.stringify({ ...draft, at: Date.now() }));
}

export function clearDraft(): void {
  sessionStorage.removeItem(key);
}
