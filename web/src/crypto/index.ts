/**
 * Sealed Rooms v1 (docs/architecture.md names the design): RSA carries keys, AES-256 carries messages, Ed25519 proves who sent them. Pure
 * functions over WebCrypto and jose, without storage, network or clock; the Go implementation is keys/sealed, and vectors hold the two
 * together. What comes in as text is believed in nothing until these functions have checked it.
 */
export * from "./attachment";
export * from "./bounds";
export * from "./device";
export * from "./encoding";
export * from "./errors";
export * from "./form";
export * from "./identity";
export * from "./json";
export * from "./message";
export * from "./padding";
export * from "./primitives";
export * from "./ratchet";
export * from "./roomkey";
export * from "./rotation";
export * from "./sealed";
export * from "./signing";
