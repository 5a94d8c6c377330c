import { MessageCircleOff } from "lucide-react";
import { useCallback, useMemo, useRef, useState } from "react";
import { Composer } from "../features/composer/Composer";
import { DropZone } from "../features/composer/DropZone";
import { Invitation } from "../features/invite/Invitation";
import { Members } from "../features/members/Members";
import { Header, TypingLine } from "../features/room/Header";
import { Timeline } from "../features/timeline/Timeline";
import { t } from "../i18n";
import { useChat, useValue } from "../stores/context";
import { plainOf } from "../stores/events";
import type { Message, RoomModel, RoomSummary } from "../stores/model";
import { Button, Empty } from "../ui/core";
import { Offline } from "./Offline";
import { OpeningRoom } from "./Opening";
import { useOneColumn } from "./useOneColumn";

interface Props {
  roomId: string;
  membersOpen: boolean;
  onBack(): void;
}

/** One conversation, whatever state it is in for the person: unknown, offered, open, or over. */
export function RoomView({ roomId, membersOpen, onBack }: Props) {
  const chat = useChat();
  const loaded = useValue(chat.loaded);
  const room = useMemo(() => chat.room(roomId), [chat, roomId]);
  const summary = useValue(room.summary);
  if (summary === null) return loaded ? <Gone onBack={onBack} text={t("shell.notFound")} /> : <OpeningRoom />;
  if (summary.membership === "invited") return <Invitation room={summary} onBack={onBack} onDeclined={onBack} />;
  if (summary.membership === "left") return <Gone onBack={onBack} text={t("composer.left")} />;
  return <Conversation room={room} summary={summary} membersOpen={membersOpen} onBack={onBack} />;
}

function Gone({ text, onBack }: { text: string; onBack(): void }) {
  return (
    <main className="flex h-full flex-col items-center justify-center pb-10">
      <Empty page icon={<MessageCircleOff />} title={text}>
        <Button onClick={onBack} className="mt-2">
          {t("back")}
        </Button>
      </Empty>
    </main>
  );
}

function Conversation({
  room,
  summary,
  membersOpen,
  onBack,
}: {
  room: RoomModel;
  summary: RoomSummary;
  membersOpen: boolean;
  onBack(): void;
}) {
  const typing = useValue(room.typing);
  const connection = useValue(useChat().connection);
  const phone = useOneColumn(); // beside the list it is the list that says so
  const [members, setMembers] = useState(membersOpen);
  const input = useRef<HTMLTextAreaElement>(null);
  const page = useRef<HTMLElement>(null);
  const write = useCallback(() => input.current?.focus(), []);

  const reply = useCallback(
    (message: Message) => {
      room.setDraft({
        ...room.draft.get(),
        replyTo: { id: message.id, sender: message.sender, body: plainOf(message.body) },
      });
      write();
    },
    [room, write],
  );

  function toNewest(): void {
    const all = page.current?.querySelectorAll<HTMLElement>("[data-message]");
    all?.[all.length - 1]?.focus({ preventScroll: true });
  }

  return (
    <div className="flex h-full">
      <main
        ref={page}
        className={members ? "flex h-full min-w-0 flex-1 max-md:hidden" : "flex h-full min-w-0 flex-1"}
        onKeyDown={(event) => {
          if (event.key === "Escape" && !event.defaultPrevented) onBack();
        }}
      >
        <DropZone name={summary.name} onFiles={(files) => files.forEach((file) => room.sendFile(file))}>
          <Header
            room={room}
            summary={summary}
            membersOpen={members}
            onMembers={() => setMembers(!members)}
            onBack={onBack}
            onLeft={onBack}
          />
          {phone ? <Offline connection={connection} /> : null}
          <Timeline room={room} direct={summary.direct} onReply={reply} onLeave={write} />
          <TypingLine people={typing} />
          <Composer room={room} name={summary.name} input={input} onUp={toNewest} />
        </DropZone>
      </main>
      {members ? <Members room={room} name={summary.name} onClose={() => setMembers(false)} /> : null}
    </div>
  );
}
