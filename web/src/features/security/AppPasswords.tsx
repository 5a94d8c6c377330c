import { Copy, Plus, Trash2, Terminal } from "lucide-react";
import { useState } from "react";
import { t } from "../../i18n";
import type { Account, Named } from "../../stores/account";
import { type Loaded, useLoaded } from "../../stores/useLoaded";
import { Button } from "../../ui/core";
import { copyText } from "../../ui/copy";
import { IconButton } from "../../ui/icon";
import { Dialog } from "../../ui/overlay";
import { Card, Row } from "../../ui/page";
import { Listed, Removal } from "./Listed";
import { NameDialog } from "./NameDialog";
import { usedNote } from "./Passkeys";

interface Made {
  name: string;
  password: string;
}

/** Passwords for clients that know of no second factor. */
export function AppPasswords({ account }: { account: Account }) {
  const list = useLoaded(account.appPasswords);
  const [naming, setNaming] = useState(false);
  const [made, setMade] = useState<Made | null>(null);
  return (
    <Card
      title={t("security.appPasswords")}
      text={t("security.appPasswordsText")}
      action={
        <Button onClick={() => setNaming(true)} data-testid="app-password-add">
          <Plus className="size-4" aria-hidden /> {t("security.appPasswordAdd")}
        </Button>
      }
    >
      <List account={account} list={list} />
      <NameDialog
        open={naming}
        onOpenChange={setNaming}
        title={t("security.appPasswordAdd")}
        description={t("security.appPasswordAddText")}
        label={t("security.appPasswordName")}
        missing={t("security.appPasswordNameMissing")}
        action={t("security.appPasswordMake")}
        words={{ M_FORBIDDEN: t("security.appPasswordMany") }}
        onName={async (name) => {
          setMade({ name, password: await account.addAppPassword(name) });
          list.reload();
          return null;
        }}
      />
      <Dialog
        open={made !== null}
        onOpenChange={() => {}}
        closable={false}
        title={t("security.appPasswordTitle")}
        description={t("security.appPasswordShown", { name: made?.name ?? "" })}
      >
        <div className="flex items-center gap-2 rounded-lg border border-line bg-sunken py-1 pr-1 pl-3">
          <code
            aria-label={t("security.appPassword")}
            data-testid="app-password"
            className="min-w-0 flex-1 font-mono text-[13px] leading-relaxed wrap-anywhere select-all"
          >
            {made?.password}
          </code>
          <Button size="small" variant="quiet" onClick={() => void copyText(made?.password ?? "")}>
            <Copy className="size-4" aria-hidden /> {t("copy")}
          </Button>
        </div>
        <Button variant="primary" size="large" className="mt-4 w-full" onClick={() => setMade(null)}>
          {t("security.appPasswordDone")}
        </Button>
      </Dialog>
    </Card>
  );
}

function List({ account, list }: { account: Account; list: Loaded<Named[]> }) {
  const [removing, setRemoving] = useState<Named | null>(null);
  return (
    <>
      <Listed list={list} label={t("security.appPasswords")} none={t("security.appPasswordsNone")}>
        {(each) => (
          <Row
            key={each.id}
            icon={<Terminal />}
            title={each.name}
            note={usedNote(each)}
            action={
              <IconButton
                label={t("security.appPasswordRemoveTitle", { name: each.name })}
                tooltip={false}
                onClick={() => setRemoving(each)}
              >
                <Trash2 />
              </IconButton>
            }
          />
        )}
      </Listed>
      <Removal
        of={removing}
        onEnd={() => setRemoving(null)}
        title={({ name }) => t("security.appPasswordRemoveTitle", { name })}
        text={t("security.appPasswordRemoveText")}
        remove={({ id }) => account.removeAppPassword(id)}
        done={t("security.appPasswordRemoved")}
        onRemoved={list.reload}
      />
    </>
  );
}
