import { Clock, ShieldAlert } from "lucide-react";
import type { ReactNode } from "react";
import { formatFull, t } from "../../i18n";
import { Button, Callout } from "../../ui/core";
import { Frame } from "./Frame";

interface Props {
  server: string;
  /** By when it is to be set up, in ms. */
  due: number | null;
  /** That time is over: nothing else goes before. */
  over: boolean;
  /** It is set up now. */
  done: boolean;
  /** How it is set up. */
  children: ReactNode;
  onGoOn(): void;
  onSignOut(): void;
}

/** The server wants a second factor of somebody who has none. */
export function Enrol({ server, due, over, done, children, onGoOn, onSignOut }: Props) {
  return (
    <Frame title={t("enrol.title")} text={t("enrol.text", { server })} server={server} sudden>
      <div className="flex flex-col gap-5">
        {done ? null : over ? (
          <Callout tone="bad" role="alert" icon={<ShieldAlert />}>
            {t("enrol.over")}
          </Callout>
        ) : due !== null ? (
          <Callout role="status" icon={<Clock />}>
            {t("enrol.due", { when: formatFull(due) })}
          </Callout>
        ) : null}
        {children}
        {done ? (
          <Button variant="primary" size="large" onClick={onGoOn}>
            {t("enrol.goOn")}
          </Button>
        ) : over ? (
          <Button size="large" onClick={onSignOut}>
            {t("barred.signOut")}
          </Button>
        ) : (
          <Button size="large" onClick={onGoOn}>
            {t("enrol.later")}
          </Button>
        )}
      </div>
    </Frame>
  );
}
