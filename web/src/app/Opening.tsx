import { t } from "../i18n";
import { Skeleton } from "../ui/core";

/** The outline of the chat while its session opens: the page does not jump when it is there. */
export function Opening() {
  return (
    <main aria-busy className="flex h-full">
      <div role="status" className="sr-only">
        <h1>{t("boot.opening")}</h1>
      </div>
      <div className="flex w-full shrink-0 flex-col gap-1 bg-side p-3 md:w-80 md:border-r md:border-line">
        <div className="flex h-10 items-center gap-3 px-1.5">
          <Skeleton className="size-8 rounded-full!" />
          <Skeleton className="h-4 w-28" />
        </div>
        <Skeleton className="my-2 h-9 w-full rounded-lg!" />
        {Array.from({ length: 7 }, (_, i) => (
          <div key={i} className="flex items-center gap-3 px-1.5 py-2">
            <Skeleton className="size-11 rounded-full!" />
            <div className="flex flex-1 flex-col gap-2">
              <Skeleton className={i % 2 === 0 ? "h-3.5 w-1/2" : "h-3.5 w-2/3"} />
              <Skeleton className="h-3 w-4/5" />
            </div>
          </div>
        ))}
      </div>
      <div className="flex-1 max-md:hidden" />
    </main>
  );
}

/** The outline of one conversation, while it is not known yet whether there is one. */
export function OpeningRoom() {
  return (
    <main aria-busy className="flex h-full flex-col">
      <div role="status" className="sr-only">
        <h1>{t("boot.opening")}</h1>
      </div>
      <div className="flex h-15 shrink-0 items-center gap-3 border-b border-line px-4">
        <Skeleton className="size-9 rounded-[28%]!" />
        <Skeleton className="h-4 w-40" />
      </div>
    </main>
  );
}
