import { type ReactNode, useId } from "react";

/** A box to tick, with its sentence and what it means. All of it can be pressed. */
export function Checkbox({
  label,
  hint,
  checked,
  onChange,
}: {
  label: string;
  hint?: ReactNode;
  checked: boolean;
  onChange(checked: boolean): void;
}) {
  const id = useId();
  return (
    <div className="flex items-start gap-1">
      <span className="-my-2.5 -ml-3 flex size-11 shrink-0 items-center justify-center">
        <input
          id={id}
          type="checkbox"
          checked={checked}
          onChange={(event) => onChange(event.target.checked)}
          aria-describedby={hint !== undefined ? `${id}-hint` : undefined}
          className="size-[18px] accent-accent"
        />
      </span>
      <div className="min-w-0">
        <label htmlFor={id} className="text-sm leading-6 font-medium select-none">
          {label}
        </label>
        {hint !== undefined ? (
          <p id={`${id}-hint`} className="text-[13px] leading-snug text-ink-2">
            {hint}
          </p>
        ) : null}
      </div>
    </div>
  );
}
