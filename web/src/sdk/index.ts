/**
 * The protocol side of the client: Matrix, and Sealed Rooms on top of it. `stores` and what lies above import this file and nothing
 * else below `sdk` and `crypto`. matrix-js-sdk itself comes with a dynamic import in `openSession`, not with the first load.
 */
export { ApiError } from "./http";
export { isNameFree, logIn, register, registrationInfo } from "./accounts";
export type {
  Connection,
  Credentials,
  Delivery,
  Failure,
  IdentityState,
  LoginOptions,
  NewIdentity,
  Observable,
  ReadAttachmentOptions,
  RegisterOptions,
  RegistrationInfo,
  RoomSafety,
  SendFileOptions,
  Session,
} from "./types";
