import { clsx } from "clsx";
import { X } from "lucide-react";
import { AlertDialog, Dialog as DialogPrimitive, DropdownMenu, Popover as PopoverPrimitive } from "radix-ui";
import type { ReactElement, ReactNode } from "react";
import { t } from "../i18n";
import { Button } from "./core";
import { useGiveBack } from "./giveBack";
import { IconButton } from "./icon";

const veil = "animate-appear fixed inset-0 z-40 bg-black/35";
const card =
  "animate-rise fixed z-50 flex max-h-[min(90dvh,44rem)] flex-col bg-raised shadow-pop outline-none border border-line inset-x-0 bottom-0 rounded-t-2xl sm:inset-x-auto sm:bottom-auto sm:left-1/2 sm:top-1/2 sm:w-full sm:-translate-x-1/2 sm:-translate-y-1/2 sm:rounded-2xl";

interface DialogProps {
  open: boolean;
  onOpenChange(open: boolean): void;
  title: string;
  description?: string;
  wide?: boolean;
  /** False where it holds something that is shown once: only what stands in it closes it. */
  closable?: boolean;
  className?: string;
  children: ReactNode;
}

function stay(event: Event): void {
  event.preventDefault();
}

/** A sheet from below on a phone, a card in the middle elsewhere; the focus stays inside and returns afterwards. */
export function Dialog({
  open,
  onOpenChange,
  title,
  description,
  wide,
  closable = true,
  className,
  children,
}: DialogProps) {
  const giveBack = useGiveBack(open);
  return (
    <DialogPrimitive.Root open={open} onOpenChange={onOpenChange}>
      <DialogPrimitive.Portal>
        <DialogPrimitive.Overlay className={veil} />
        <DialogPrimitive.Content
          className={clsx(card, wide === true ? "sm:max-w-xl" : "sm:max-w-md", className)}
          onCloseAutoFocus={giveBack}
          {...(closable ? {} : { onEscapeKeyDown: stay, onInteractOutside: stay })}
          {...(description === undefined ? { "aria-describedby": undefined } : {})}
        >
          <header className="flex items-start gap-3 px-5 pt-5 pb-3">
            <div className="min-w-0 flex-1">
              <DialogPrimitive.Title className="text-base font-semibold">{title}</DialogPrimitive.Title>
              {description !== undefined ? (
                <DialogPrimitive.Description className="mt-1 text-sm leading-relaxed text-ink-2">
                  {description}
                </DialogPrimitive.Description>
              ) : null}
            </div>
            {closable ? (
              <DialogPrimitive.Close asChild>
                <IconButton label={t("close")} tooltip={false} className="-mt-1.5 -mr-2">
                  <X />
                </IconButton>
              </DialogPrimitive.Close>
            ) : null}
          </header>
          <div className="min-h-0 overflow-y-auto px-5 pb-5">{children}</div>
        </DialogPrimitive.Content>
      </DialogPrimitive.Portal>
    </DialogPrimitive.Root>
  );
}

interface ConfirmProps {
  open: boolean;
  onOpenChange(open: boolean): void;
  title: string;
  text: ReactNode;
  action: string;
  danger?: boolean;
  busy?: boolean;
  onConfirm(): void;
}

/** Asks before what cannot be undone. */
export function Confirm({ open, onOpenChange, title, text, action, danger, busy, onConfirm }: ConfirmProps) {
  const giveBack = useGiveBack(open);
  return (
    <AlertDialog.Root open={open} onOpenChange={onOpenChange}>
      <AlertDialog.Portal>
        <AlertDialog.Overlay className={veil} />
        <AlertDialog.Content
          onCloseAutoFocus={giveBack}
          className={clsx(card, "gap-2 overflow-y-auto p-5 sm:max-w-sm")}
        >
          <AlertDialog.Title className="text-base font-semibold">{title}</AlertDialog.Title>
          <AlertDialog.Description asChild>
            <div className="text-sm leading-relaxed text-ink-2">{text}</div>
          </AlertDialog.Description>
          <div className="mt-4 flex flex-col-reverse gap-2 sm:flex-row sm:justify-end">
            <AlertDialog.Cancel asChild>
              <Button>{t("cancel")}</Button>
            </AlertDialog.Cancel>
            <Button variant={danger === true ? "danger" : "primary"} busy={busy === true} onClick={onConfirm}>
              {action}
            </Button>
          </div>
        </AlertDialog.Content>
      </AlertDialog.Portal>
    </AlertDialog.Root>
  );
}

export function Popover({
  trigger,
  children,
  label,
  align = "end",
}: {
  trigger: ReactElement;
  children: ReactNode;
  label: string;
  align?: "start" | "center" | "end";
}) {
  return (
    <PopoverPrimitive.Root>
      <PopoverPrimitive.Trigger asChild>{trigger}</PopoverPrimitive.Trigger>
      <PopoverPrimitive.Portal>
        <PopoverPrimitive.Content
          align={align}
          sideOffset={8}
          collisionPadding={12}
          aria-label={label}
          className="animate-rise z-40 w-80 max-w-[calc(100vw-24px)] rounded-xl border border-line bg-raised p-4 shadow-pop outline-none"
        >
          {children}
        </PopoverPrimitive.Content>
      </PopoverPrimitive.Portal>
    </PopoverPrimitive.Root>
  );
}

export interface MenuEntry {
  label: string;
  icon: ReactNode;
  danger?: boolean;
  onSelect(): void;
}

export function Menu({
  trigger,
  entries,
  align = "end",
}: {
  trigger: ReactElement;
  entries: MenuEntry[];
  align?: "start" | "end";
}) {
  return (
    <DropdownMenu.Root modal={false}>
      <DropdownMenu.Trigger asChild>{trigger}</DropdownMenu.Trigger>
      <DropdownMenu.Portal>
        <DropdownMenu.Content
          align={align}
          sideOffset={6}
          collisionPadding={8}
          className="animate-rise z-40 min-w-48 rounded-xl border border-line bg-raised p-1 shadow-pop"
        >
          {entries.map((entry) => (
            <DropdownMenu.Item
              key={entry.label}
              onSelect={entry.onSelect}
              className={clsx(
                "flex cursor-default items-center gap-2.5 rounded-lg px-2.5 py-2 text-sm outline-none select-none pointer-coarse:py-3 data-[highlighted]:bg-hover [&_svg]:size-4",
                entry.danger === true ? "text-bad" : "text-ink [&_svg]:text-ink-2",
              )}
            >
              {entry.icon}
              {entry.label}
            </DropdownMenu.Item>
          ))}
        </DropdownMenu.Content>
      </DropdownMenu.Portal>
    </DropdownMenu.Root>
  );
}
