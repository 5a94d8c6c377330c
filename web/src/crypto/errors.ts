/**
 * The named ways in which something that came from outside fails. The names, and the order of the checks that give them, are those of
 * the Go implementation (keys/sealed/testdata/README.md): the vectors of both sides hold them together.
 */
export type FailureClass =
  | "malformed"
  | "duplicate_key"
  | "oversize"
  | "unknown_algorithm"
  | "unknown_type"
  | "weak_key"
  | "bad_device_id"
  | "wrong_device"
  | "unsigned_device"
  | "forged_signature"
  | "no_identity"
  | "identity_changed"
  | "device_changed"
  | "dehydrated_sender"
  | "altered_header"
  | "wrong_recipient"
  | "foreign_identity"
  | "wrong_sender"
  | "replayed_message"
  | "expired"
  | "undecryptable"
  | "no_key"
  | "unknown_index"
  | "wrong_room"
  | "replayed_index"
  | "altered_relation"
  | "conflicting_session"
  | "wrong_hash";

export class SealedError extends Error {
  readonly failure: FailureClass;

  constructor(failure: FailureClass, detail: string) {
    super(`${failure}: ${detail}`);
    this.name = "SealedError";
    this.failure = failure;
  }
}

/** Throws the failure unless the condition holds. */
export function must(condition: boolean, failure: FailureClass, detail: string): asserts condition {
  if (!condition) throw new SealedError(failure, detail);
}
