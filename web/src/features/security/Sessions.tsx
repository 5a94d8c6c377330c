import { BadgeCheck, Laptop, LogOut, MoreHorizontal, Pencil, Smartphone, TriangleAlert } from "lucide-react";
import { useState } from "react";
import { formatShort, t } from "../../i18n";
import type { Account, SignedIn } from "../../stores/account";
import { useLoaded } from "../../stores/useLoaded";
import { useTask } from "../../stores/useTask";
import { Button } from "../../ui/core";
import { IconButton } from "../../ui/icon";
import { Confirm, Menu } from "../../ui/overlay";
import { Badge, Card, CardBody, Row, Rows, RowsLoading, Unavailable } from "../../ui/page";
import { toast } from "../../ui/toast";
import { LetIn } from "./LetIn";
import { NameDialog } from "./NameDialog";
import { useKeptFocus } from "./useKeptFocus";

/** How many of a long list are drawn at once. */
const page = 50;

interface Props {
  account: Account;
  /** Of this device: it deletes keys, so it asks in its own way. */
  onSignOutHere(): void;
}

/** Where the account is signed in, and the way to end that. */
export function Sessions({ account, onSignOutHere }: Props) {
  const { value, failure, reload } = useLoaded(account.sessions);
  const [leaving, setLeaving] = useState<SignedIn[]>([]);
  const [renaming, setRenaming] = useState<SignedIn | null>(null);
  const { busy, run } = useTask({}, (sentence) => toast("bad", sentence));
  const [shown, setShown] = useState(page);
  useKeptFocus(value?.length);
  if (value === null && failure !== null) return <Unavailable failure={failure} onRetry={reload} />;
  const here = (value ?? []).filter((session) => session.current);
  const others = (value ?? []).filter((session) => !session.current);

  function signOut(): void {
    const ids = leaving.map(({ id }) => id);
    setLeaving([]);
    void run(() => account.signOutDevices(ids)).then((done) => {
      if (done) toast("good", t("sessions.signedOut", { count: ids.length }));
      reload();
    });
  }

  return (
    <div className="flex flex-col gap-5">
      {failure !== null ? <Unavailable failure={failure} onRetry={reload} /> : null}
      <Card title={t("sessions.current")}>
        {value === null ? <RowsLoading count={1} /> : null}
        {here.length > 0 ? (
          <List label={t("sessions.current")} sessions={here} onRename={setRenaming} onSignOut={onSignOutHere} />
        ) : null}
      </Card>
      <Card
        title={t("sessions.others")}
        action={
          others.length > 0 ? (
            <Button busy={busy} onClick={() => setLeaving(others)} className="text-bad!">
              <LogOut className="size-4" aria-hidden /> {t("sessions.signOutOthers")}
            </Button>
          ) : undefined
        }
      >
        {value === null ? <RowsLoading /> : null}
        {value !== null && others.length === 0 ? (
          <CardBody>
            <p className="text-sm text-ink-2">{t("sessions.none")}</p>
          </CardBody>
        ) : null}
        {others.length > 0 ? (
          <List
            label={t("sessions.others")}
            sessions={others.slice(0, shown)}
            onRename={setRenaming}
            onSignOut={(session) => setLeaving([session])}
          />
        ) : null}
        {others.length > shown ? (
          <CardBody>
            <Button className="w-full" onClick={() => setShown(shown + page)}>
              {t("sessions.more", { count: Math.min(page, others.length - shown) })}
            </Button>
          </CardBody>
        ) : null}
      </Card>
      <LetIn account={account} onAllowed={reload} />
      <SignOutQuestion leaving={leaving} all={others.length} onCancel={() => setLeaving([])} onConfirm={signOut} />
      <NameDialog
        open={renaming !== null}
        onOpenChange={() => setRenaming(null)}
        title={t("sessions.rename")}
        label={t("sessions.name")}
        hint={t("sessions.nameHint")}
        missing={t("sessions.nameMissing")}
        initial={renaming?.name ?? ""}
        action={t("security.save")}
        onName={async (name) => {
          if (renaming !== null && name !== renaming.name) {
            await account.renameDevice(renaming.id, name);
            toast("good", t("security.renamed"));
            reload();
          }
          return null;
        }}
      />
    </div>
  );
}

function SignOutQuestion({
  leaving,
  all,
  onCancel,
  onConfirm,
}: {
  leaving: SignedIn[];
  all: number;
  onCancel(): void;
  onConfirm(): void;
}) {
  const [only] = leaving;
  const one = leaving.length === 1 && all > 1 && only !== undefined;
  return (
    <Confirm
      open={leaving.length > 0}
      onOpenChange={onCancel}
      title={
        one
          ? t("sessions.signOutOne", { name: nameOf(only) })
          : t("sessions.signOutOthersTitle", { count: leaving.length })
      }
      text={one ? t("sessions.signOutText") : t("sessions.signOutOthersText")}
      action={t("sessions.signOut")}
      danger
      onConfirm={onConfirm}
    />
  );
}

function nameOf({ name }: SignedIn): string {
  return name === "" ? t("settings.unnamed") : name;
}

function noteOf({ seen, address }: SignedIn): string {
  const when = seen === null ? t("sessions.neverSeen") : t("sessions.lastSeen", { when: formatShort(seen) });
  return address === "" ? when : `${when} · ${t("sessions.address", { address })}`;
}

function List({
  label,
  sessions,
  onRename,
  onSignOut,
}: {
  label: string;
  sessions: SignedIn[];
  onRename(session: SignedIn): void;
  onSignOut(session: SignedIn): void;
}) {
  return (
    <Rows label={label}>
      {sessions.map((session) => (
        <Row
          key={session.id}
          icon={/Android|iOS/.test(session.name) ? <Smartphone /> : <Laptop />}
          title={nameOf(session)}
          badge={<Standing session={session} />}
          note={
            <>
              {noteOf(session)}
              <span className="block text-xs text-ink-3">{session.id}</span>
              {session.standing === "unconfirmed" ? (
                <span className="mt-0.5 block">{t("sessions.unconfirmedText")}</span>
              ) : null}
            </>
          }
          action={
            <Menu
              trigger={
                <IconButton label={t("security.actions", { name: nameOf(session) })} tooltip={false}>
                  <MoreHorizontal />
                </IconButton>
              }
              entries={[
                { label: t("security.rename"), icon: <Pencil />, onSelect: () => onRename(session) },
                { label: t("sessions.signOut"), icon: <LogOut />, danger: true, onSelect: () => onSignOut(session) },
              ]}
            />
          }
        />
      ))}
    </Rows>
  );
}

function Standing({ session: { standing } }: { session: SignedIn }) {
  switch (standing) {
    case "confirmed":
      return (
        <Badge tone="good">
          <BadgeCheck className="mr-1 -ml-0.5 inline size-3.5 align-[-2px]" aria-hidden />
          {t("sessions.confirmed")}
        </Badge>
      );
    case "unconfirmed":
      return (
        <Badge tone="warn">
          <TriangleAlert className="mr-1 -ml-0.5 inline size-3.5 align-[-2px]" aria-hidden />
          {t("sessions.unconfirmed")}
        </Badge>
      );
    case "withoutKeys":
      return <Badge>{t("sessions.withoutKeys")}</Badge>;
    case "unknown":
      return null;
  }
}
