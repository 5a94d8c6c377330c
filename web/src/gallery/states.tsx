/** Every screen and component of the client in each of its states, by name. */
import type { ReactNode } from "react";
import { Failed } from "../app/AppView";
import { ChatView } from "../app/ChatView";
import { Opening } from "../app/Opening";
import { RecoveryKey } from "../features/identity/RecoveryKey";
import { Unlock } from "../features/identity/Unlock";
import { t } from "../i18n";
import type { RoomSafety } from "../stores/model";
import * as f from "./fixtures";
import { Components } from "./Components";
import { entryStates } from "./entry";
import { paint } from "./picture";
import { securityStates, type State } from "./security";

const nothing = (): void => {};
const done = async (): Promise<void> => {};
const key = "EsTB kRqP 4mhc VZ9y D2nW uKf7 Gx3L aQtJ pE5s 8wYb NcUv H6dM";

const harbour = (): f.RoomStateInput => ({
  summary: f.rooms()[1] ?? null,
  items: f.conversation(),
  picture: () => paint(),
});
const inRoom = (id: string): string => `/room/${encodeURIComponent(id)}`;
const harbourPath = inRoom("!harbour:northwind.org");

function chat(
  rest: Parameters<typeof f.fakeChat>[0] = {},
  view: { members?: boolean; open?: "jump" | "direct" | "group" | "signOut" } = {},
): ReactNode {
  return <ChatView chat={f.fakeChat(rest)} membersOpen={view.members === true} initiallyOpen={view.open ?? null} />;
}

function room(state: Partial<f.RoomStateInput>, view: { members?: boolean } = {}): ReactNode {
  return chat({ room: f.fakeRoom({ ...harbour(), ...state }) }, view);
}

const changed: RoomSafety = { sealed: true, withoutKeys: [f.erin.userId], changed: [f.carla.userId] };
const plain: RoomSafety = { sealed: false, withoutKeys: [], changed: [] };

const recovery = (props: Partial<Parameters<typeof RecoveryKey>[0]>): ReactNode => (
  <RecoveryKey
    userId={f.alice.userId}
    recoveryKey={key}
    onRetry={nothing}
    onSignOut={nothing}
    onConfirmed={done}
    {...props}
  />
);

export const states: Record<string, State> = {
  components: { path: "/", render: () => <Components /> },
  ...Object.fromEntries(Object.entries(entryStates).map(([name, render]) => [name, { path: "/", render }])),
  recovery: { path: "/", render: () => recovery({}) },
  "recovery-making": { path: "/", render: () => recovery({ recoveryKey: null }) },
  "recovery-confirm": { path: "/", render: () => recovery({ initialStep: "confirm" }) },
  "recovery-failed": { path: "/", render: () => recovery({ recoveryKey: null, failure: t("failed.offline") }) },
  unlock: {
    path: "/",
    render: () => (
      <Unlock userId={f.alice.userId} onUnlock={() => Promise.reject(new Error("wrong_key"))} onSignOut={nothing} />
    ),
  },
  opening: { path: "/", render: () => <Opening /> },
  failed: { path: "/", render: () => <Failed reason={t("failed.offline")} kept onSignOut={done} /> },
  rooms: { path: "/", render: () => chat() },
  "rooms-loading": { path: "/", render: () => chat({ rooms: [], loaded: false, connection: "connecting" }) },
  "rooms-none": { path: "/", render: () => chat({ rooms: [] }) },
  "rooms-offline": { path: "/", render: () => chat({ connection: "offline" }) },
  group: { path: harbourPath, render: () => room({ typing: [f.bob] }) },
  direct: {
    path: inRoom("!bob:northwind.org"),
    render: () =>
      chat({
        room: f.fakeRoom({
          summary: f.rooms()[2] ?? null,
          items: f.direct(),
          picture: () => paint(),
          members: f.members().slice(0, 2),
        }),
      }),
  },
  troubled: { path: harbourPath, render: () => room({ items: f.troubled(), safety: changed }) },
  long: { path: harbourPath, render: () => room({ items: f.long(1000), timeline: { more: true } }) },
  extremes: {
    path: harbourPath,
    render: () =>
      chat(
        {
          rooms: f.extremeRooms(),
          room: f.fakeRoom({
            ...harbour(),
            summary: f.extremeRooms()[1] ?? null,
            items: f.extremes(),
            typing: [f.endless],
            members: [...f.members(), ...[f.endless, f.leila].map((who) => ({ ...f.members()[1]!, ...who }))],
            draft: { text: "x".repeat(300), replyTo: { id: "$q", sender: f.endless, body: "y".repeat(300) } },
            uploads: [{ id: "1", name: `${"report-".repeat(30)}.pdf`, done: 1, total: 2, failure: null }],
          }),
        },
        { members: true },
      ),
  },
  happenings: { path: harbourPath, render: () => room({ items: f.happenings() }) },
  "room-loading": { path: harbourPath, render: () => room({ items: [], timeline: { loading: true, more: true } }) },
  "room-opening": { path: harbourPath, render: () => chat({ rooms: [], loaded: false, connection: "connecting" }) },
  "room-offline": { path: harbourPath, render: () => chat({ room: f.fakeRoom(harbour()), connection: "offline" }) },
  "room-older": { path: harbourPath, render: () => room({ timeline: { failed: true, more: true } }) },
  "room-read-only": { path: harbourPath, render: () => room({ maySend: false, safety: plain }) },
  composing: {
    path: harbourPath,
    render: () =>
      room({
        draft: {
          text: "The crane is confirmed.\nI will be at the gate at quarter to nine, with the drawings and with biscuits.",
          replyTo: { id: "$x", sender: f.dmitri, body: "Done: crane on site Wednesday 7:00, paid until Friday noon." },
        },
        uploads: [
          { id: "1", name: "east-quay-drawings.pdf", done: 6_400_000, total: 9_800_000, failure: null },
          {
            id: "2",
            name: "site-plan.dwg",
            done: 0,
            total: 120_000,
            failure: { reason: t("failed.offline"), again: true },
          },
        ],
      }),
  },
  members: { path: harbourPath, render: () => room({}, { members: true }) },
  invitation: { path: inRoom("!inv:harbour.example"), render: () => chat() },
  "invitation-long": { path: inRoom("!inv2:x.org"), render: () => chat({ rooms: f.extremeRooms() }) },
  "not-found": { path: inRoom("!gone:northwind.org"), render: () => chat() },
  settings: { path: "/settings", render: () => chat() },
  ...securityStates(chat),
  "sign-out": { path: "/settings/appearance", render: () => chat({}, { open: "signOut" }) },
  jump: { path: "/", render: () => chat({}, { open: "jump" }) },
  "new-chat": { path: "/", render: () => chat({}, { open: "direct" }) },
  "new-group": { path: "/", render: () => chat({}, { open: "group" }) },
};
