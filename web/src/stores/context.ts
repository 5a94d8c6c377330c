import { createContext, useContext, useSyncExternalStore } from "react";
import type { Observable } from "../sdk";
import type { Chat } from "./model";

/** The signed-in person's chat: a real one below `app`, one of fixtures in the gallery. */
export const ChatContext = createContext<Chat | null>(null);

export function useChat(): Chat {
  const chat = useContext(ChatContext);
  if (chat === null) throw new Error("no chat above this component");
  return chat;
}

export function useValue<T>(observable: Observable<T>): T {
  return useSyncExternalStore(observable.subscribe, observable.get);
}
