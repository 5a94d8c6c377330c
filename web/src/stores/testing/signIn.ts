/** A sign-in that does nothing, in a state of one's choice: for the gallery and for tests. */
import { createStore } from "zustand/vanilla";
import type { SignIn, SignInState } from "../signIn";

export function fakeSignIn(state: Partial<SignInState> = {}, userId: string | null = null): SignIn {
  const done = async (): Promise<void> => {};
  return {
    state: createStore<SignInState>(() => ({
      ways: { password: true, steps: true, providers: [] },
      needs: null,
      chosen: null,
      busy: false,
      failure: null,
      waitUntil: null,
      ...state,
    })),
    userId,
    look: done,
    password: done,
    passkey: done,
    token: done,
    linked: done,
    choose: () => {},
    factor: async () => true,
    restart: () => {},
    providerPage: () => "about:blank",
  };
}
