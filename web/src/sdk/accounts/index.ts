/**
 * Getting in: what stands before a session. Signing in (signin.ts) belongs to the first page; making an account (registration.ts, work.ts) and
 * getting back in (address.ts), and a device that waits to be let in (link.ts), come when somebody asks for them.
 */
export * from "./address";
export * from "./credentials";
export * from "./flows";
export * from "./link";
export * from "./registration";
export * from "./signin";
