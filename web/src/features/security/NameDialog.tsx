import { type ReactNode, useState } from "react";
import { t } from "../../i18n";
import type { Words } from "../../stores/useTask";
import { useTask } from "../../stores/useTask";
import { Form, TextField } from "../../ui/form";
import { Dialog } from "../../ui/overlay";

/** In bytes, as the server counts. */
const maxName = 100;

interface Props {
  open: boolean;
  onOpenChange(open: boolean): void;
  title: string;
  description?: string;
  label: string;
  hint?: ReactNode;
  /** The sentence for an empty name. */
  missing: string;
  /** The name of before. */
  initial?: string;
  action: string;
  words?: Words;
  /** Gives one sentence on what stands in the way, or null: then the dialog closes. */
  onName(name: string): Promise<string | null>;
}

/** Asks for a name and does something with it. */
export function NameDialog({ open, onOpenChange, title, description, ...rest }: Props) {
  return (
    <Dialog
      open={open}
      onOpenChange={onOpenChange}
      title={title}
      {...(description === undefined ? {} : { description })}
    >
      {open ? <NameForm {...rest} onDone={() => onOpenChange(false)} /> : null}
    </Dialog>
  );
}

function NameForm({
  label,
  hint,
  missing,
  initial = "",
  action,
  words = {},
  onName,
  onDone,
}: Omit<Props, "open" | "onOpenChange" | "title" | "description"> & { onDone(): void }) {
  const [typed, setTyped] = useState(initial);
  const [error, setError] = useState<string | undefined>();
  const [problem, setProblem] = useState<string | null>(null);
  const { busy, failure, run } = useTask(words);
  return (
    <Form
      action={action}
      busy={busy}
      failure={problem ?? failure}
      onSubmit={() => {
        const name = typed.trim();
        const wrong =
          name === "" ? missing : new TextEncoder().encode(name).length > maxName ? t("security.nameLong") : undefined;
        setError(wrong);
        if (wrong !== undefined) return;
        setProblem(null);
        void run(async () => {
          const stands = await onName(name);
          if (stands === null) onDone();
          else setProblem(stands);
        });
      }}
    >
      <TextField
        label={label}
        hint={hint}
        error={error}
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        autoComplete="off"
        maxLength={maxName}
      />
    </Form>
  );
}
