import { ToggleGroup } from "radix-ui";
import type { ReactNode } from "react";

/** One of a few. */
export function Segmented<V extends string>({
  label,
  value,
  options,
  onChange,
}: {
  label: string;
  value: V;
  /** `lang`: where a label is in another language than the page. */
  options: { value: V; label: string; icon?: ReactNode; lang?: string }[];
  onChange(value: V): void;
}) {
  return (
    <ToggleGroup.Root
      type="single"
      aria-label={label}
      value={value}
      onValueChange={(next) => {
        if (next !== "") onChange(next as V);
      }}
      className="inline-flex w-full rounded-lg bg-sunken p-1 sm:w-auto"
    >
      {options.map((option) => (
        <ToggleGroup.Item
          key={option.value}
          value={option.value}
          lang={option.lang}
          className="inline-flex h-8 flex-1 pointer-coarse:h-11 items-center justify-center gap-2 rounded-md px-3.5 text-[13px] font-medium text-ink-2 transition-colors hover:text-ink data-[state=on]:bg-raised data-[state=on]:text-ink data-[state=on]:shadow-sm [&_svg]:size-4"
        >
          {option.icon}
          {option.label}
        </ToggleGroup.Item>
      ))}
    </ToggleGroup.Root>
  );
}
