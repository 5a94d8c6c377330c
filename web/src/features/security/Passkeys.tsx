import { Info, KeyRound, MoreHorizontal, Pencil, Plus, Trash2 } from "lucide-react";
import { useState } from "react";
import { formatShort, t } from "../../i18n";
import type { Account, Factors, Named, NewPasskey } from "../../stores/account";
import type { Loaded } from "../../stores/useLoaded";
import { useTask } from "../../stores/useTask";
import { Button, Callout } from "../../ui/core";
import { IconButton } from "../../ui/icon";
import { Menu } from "../../ui/overlay";
import { Card, CardBody, Row } from "../../ui/page";
import { toast } from "../../ui/toast";
import { Listed, Removal } from "./Listed";
import { NameDialog } from "./NameDialog";

interface Props {
  account: Account;
  factors: Factors;
  list: Loaded<Named[]>;
  onChanged(codes?: string[]): void;
}

export function usedNote({ created, used }: Named): string {
  const since = t("security.created", { when: formatShort(created) });
  return `${since} · ${used === null ? t("security.usedNever") : t("security.usedAt", { when: formatShort(used) })}`;
}

/** Passkeys: add, rename, remove. */
export function Passkeys({ account, factors, list, onChanged }: Props) {
  const [begun, setBegun] = useState<NewPasskey | null>(null);
  const words = { M_FORBIDDEN: t("security.passkeyMany"), M_NOT_FOUND: t("security.passkeyOver") };
  const { busy, run } = useTask(words, (failure) => toast("bad", failure));
  const possible = factors.passkeysAvailable && account.canMakePasskeys;
  return (
    <Card
      title={t("security.passkeys")}
      text={t("security.passkeysText")}
      action={
        possible ? (
          <Button
            busy={busy}
            onClick={() => void run(async () => setBegun(await account.addPasskey()))}
            data-testid="passkey-add"
          >
            <Plus className="size-4" aria-hidden /> {t("security.passkeyAdd")}
          </Button>
        ) : undefined
      }
    >
      {possible ? null : (
        <CardBody>
          <Callout icon={<Info />}>
            {factors.passkeysAvailable ? t("security.passkeysBrowser") : t("security.passkeysServer")}
          </Callout>
        </CardBody>
      )}
      <List account={account} factors={factors} list={list} empty={possible} onChanged={onChanged} />
      <Make begun={begun} onEnd={() => setBegun(null)} onChanged={onChanged} />
    </Card>
  );
}

/** Names the passkey, then lets the browser make it: by the press of the button, which browsers want. */
function Make({
  begun,
  onEnd,
  onChanged,
}: {
  begun: NewPasskey | null;
  onEnd(): void;
  onChanged(codes?: string[]): void;
}) {
  return (
    <NameDialog
      open={begun !== null}
      onOpenChange={onEnd}
      title={t("security.passkeyAdd")}
      description={t("security.passkeyAddText")}
      label={t("security.passkeyName")}
      missing={t("security.passkeyNameMissing")}
      action={t("security.passkeyCreate")}
      words={{ M_FORBIDDEN: t("security.passkeyOver") }}
      onName={async (name) => {
        const made = await begun?.make(name);
        if (made === undefined) return null;
        if ("problem" in made) return t(`passkey.${made.problem}`);
        toast("good", t("security.passkeyAdded"));
        onChanged(made.codes);
        return null;
      }}
    />
  );
}

function List({ account, factors, list, empty, onChanged }: Props & { empty: boolean }) {
  const [renaming, setRenaming] = useState<Named | null>(null);
  const [removing, setRemoving] = useState<Named | null>(null);
  const last = !factors.totp && list.value?.length === 1;
  return (
    <>
      <Listed list={list} label={t("security.passkeys")} none={empty ? t("security.passkeysNone") : null}>
        {(passkey) => (
          <Row
            key={passkey.id}
            icon={<KeyRound />}
            title={passkey.name}
            note={usedNote(passkey)}
            action={
              <Menu
                trigger={
                  <IconButton label={t("security.actions", { name: passkey.name })} tooltip={false}>
                    <MoreHorizontal />
                  </IconButton>
                }
                entries={[
                  { label: t("security.rename"), icon: <Pencil />, onSelect: () => setRenaming(passkey) },
                  { label: t("security.remove"), icon: <Trash2 />, danger: true, onSelect: () => setRemoving(passkey) },
                ]}
              />
            }
          />
        )}
      </Listed>
      <NameDialog
        open={renaming !== null}
        onOpenChange={() => setRenaming(null)}
        title={t("security.passkeyRename")}
        label={t("security.passkeyName")}
        missing={t("security.passkeyNameMissing")}
        initial={renaming?.name ?? ""}
        action={t("security.save")}
        onName={async (name) => {
          if (renaming !== null && name !== renaming.name) {
            await account.renamePasskey(renaming.id, name);
            toast("good", t("security.renamed"));
            list.reload();
          }
          return null;
        }}
      />
      <Removal
        of={removing}
        onEnd={() => setRemoving(null)}
        title={({ name }) => t("security.passkeyRemoveTitle", { name })}
        text={
          <>
            <p>{t("security.passkeyRemoveText")}</p>
            {last ? <p className="mt-2">{t("security.passkeyRemoveLast")}</p> : null}
          </>
        }
        words={{ M_FORBIDDEN: t("security.demanded") }}
        remove={({ id }) => account.removePasskey(id)}
        done={t("security.passkeyRemoved")}
        onRemoved={onChanged}
      />
    </>
  );
}
