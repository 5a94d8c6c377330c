import { type ReactNode } from "react";
import { t } from "../../i18n";
import type { Loaded } from "../../stores/useLoaded";
import { useTask, type Words } from "../../stores/useTask";
import { Confirm } from "../../ui/overlay";
import { CardBody, Rows, RowsLoading, Unavailable } from "../../ui/page";
import { toast } from "../../ui/toast";
import { useKeptFocus } from "./useKeptFocus";

interface ListedProps<T> {
  list: Loaded<T[]>;
  label: string;
  /** What stands there when there is nothing in the list; null for nothing. */
  none: string | null;
  /** The row of each. */
  children(each: T): ReactNode;
}

/** The rows of a list of a card: while it is loaded, when it could not be, or not again, and when it is empty. */
export function Listed<T>({ list, label, none, children }: ListedProps<T>) {
  useKeptFocus(list.value?.length);
  if (list.value === null)
    return list.failure !== null ? (
      <CardBody>
        <Unavailable failure={list.failure} onRetry={list.reload} />
      </CardBody>
    ) : (
      <RowsLoading count={1} />
    );
  if (list.failure !== null)
    return (
      <>
        <CardBody>
          <Unavailable failure={list.failure} onRetry={list.reload} />
        </CardBody>
        <Rows label={label}>{list.value.map(children)}</Rows>
      </>
    );
  if (list.value.length > 0) return <Rows label={label}>{list.value.map(children)}</Rows>;
  return none === null ? null : (
    <CardBody>
      <p className="text-sm text-ink-2">{none}</p>
    </CardBody>
  );
}

interface RemovalProps<T> {
  /** What is to be removed, null for nothing. */
  of: T | null;
  onEnd(): void;
  title(of: T): string;
  text: ReactNode;
  remove(of: T): Promise<void>;
  /** What is said when it is gone. */
  done: string;
  onRemoved(): void;
  words?: Words;
}

/** Asks before something is removed, removes it, and says what came of it. */
export function Removal<T>({ of, onEnd, title, text, remove, done, onRemoved, words }: RemovalProps<T>) {
  const { run } = useTask(words, (failure) => toast("bad", failure));
  return (
    <Confirm
      open={of !== null}
      onOpenChange={onEnd}
      title={of === null ? "" : title(of)}
      text={text}
      action={t("security.remove")}
      danger
      onConfirm={() => {
        onEnd();
        if (of === null) return;
        void run(() => remove(of)).then((gone) => {
          if (gone) toast("good", done);
          onRemoved();
        });
      }}
    />
  );
}
