import { clsx } from "clsx";
import { Tooltip as TooltipPrimitive } from "radix-ui";
import type { ButtonHTMLAttributes, ReactElement, Ref } from "react";

interface IconButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  label: string;
  small?: boolean;
  tooltip?: boolean;
  ref?: Ref<HTMLButtonElement>;
}

/** A button that is only a picture; its label is read out, and shown when one hovers. */
export function IconButton({ label, small, tooltip = true, className, children, ...rest }: IconButtonProps) {
  const button = (
    <button
      type="button"
      {...rest}
      aria-label={label}
      className={clsx(
        "touch inline-flex shrink-0 items-center justify-center rounded-lg text-ink-2 transition-colors hover:bg-hover hover:text-ink disabled:opacity-40 data-[state=open]:bg-hover data-[state=open]:text-ink [&_svg]:size-[18px]",
        small === true ? "size-8" : "size-9",
        className,
      )}
    >
      {children}
    </button>
  );
  return tooltip ? <Tooltip text={label}>{button}</Tooltip> : button;
}

export function Tooltip({ text, children }: { text: string; children: ReactElement }) {
  return (
    <TooltipPrimitive.Root>
      <TooltipPrimitive.Trigger asChild>{children}</TooltipPrimitive.Trigger>
      <TooltipPrimitive.Portal>
        <TooltipPrimitive.Content
          sideOffset={6}
          collisionPadding={8}
          className="animate-appear z-50 max-w-64 rounded-md bg-ink px-2 py-1 text-xs text-canvas shadow-pop"
        >
          {text}
        </TooltipPrimitive.Content>
      </TooltipPrimitive.Portal>
    </TooltipPrimitive.Root>
  );
}

export const TooltipProvider = TooltipPrimitive.Provider;
