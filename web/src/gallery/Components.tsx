import { CircleAlert, Info, MessageSquare, Plus, ShieldCheck, Trash2 } from "lucide-react";
import type { ReactNode } from "react";
import { Offline } from "../app/Offline";
import { SafetyDetails } from "../features/room/Shield";
import { TypingLine } from "../features/room/Header";
import { Avatar, Button, Callout, Empty, Kbd, Mark, Skeleton } from "../ui/core";
import { IconButton } from "../ui/icon";
import { PasswordField, TextField } from "../ui/form";
import { Segmented } from "../ui/segmented";
import { Ticks, type TickState } from "../ui/ticks";
import * as f from "./fixtures";

function Group({ title, children }: { title: string; children: ReactNode }) {
  return (
    <section>
      <h2 className="mb-3 text-xs font-semibold text-ink-3">{title}</h2>
      <div className="flex flex-wrap items-center gap-3">{children}</div>
    </section>
  );
}

const ticks: TickState[] = ["sending", "sent", "delivered", "read", "failed"];

/** The design system on one page. */
export function Components() {
  const room = f.fakeRoom({ summary: f.rooms()[1] ?? null });
  const nothing = (): void => {};
  return (
    <main className="h-full overflow-y-auto bg-canvas p-6 sm:p-10">
      <h1 className="mb-8 flex items-center gap-3 text-xl font-semibold">
        <Mark size={32} /> Components
      </h1>
      <div className="grid gap-10 lg:grid-cols-2">
        <Group title="Buttons">
          <Button variant="primary">Primary</Button>
          <Button>Secondary</Button>
          <Button variant="quiet">Quiet</Button>
          <Button variant="danger">Danger</Button>
          <Button variant="primary" busy>
            Busy
          </Button>
          <Button disabled>Disabled</Button>
          <Button size="small">Small</Button>
          <IconButton label="Add">
            <Plus />
          </IconButton>
          <IconButton label="Delete" disabled>
            <Trash2 />
          </IconButton>
        </Group>
        <Group title="Ticks">
          {ticks.map((state) => (
            <span
              key={state}
              className="flex items-center gap-2 text-[13px] text-ink-2 [--tick-gap:var(--color-canvas)]"
            >
              <Ticks state={state} /> {state}
            </span>
          ))}
          <span className="flex gap-3 rounded-xl bg-bubble-own px-3 py-2 [--tick-gap:var(--color-bubble-own)]">
            {ticks.slice(0, 4).map((state) => (
              <Ticks key={state} state={state} onAccent />
            ))}
          </span>
        </Group>
        <Group title="Fields">
          <div className="flex w-full flex-col gap-4">
            <TextField label="Plain" hint="A hint says what is wanted." placeholder="Placeholder" />
            <TextField label="Wrong" error="Say what is wrong, and how to mend it." defaultValue="bob" />
            <TextField label="Good" prefix="@" good="@bob is free." defaultValue="bob" />
            <PasswordField label="Password" defaultValue="a secret of mine" />
          </div>
        </Group>
        <Group title="Callouts">
          <div className="flex w-full flex-col gap-3">
            <Callout icon={<Info />}>Something to know.</Callout>
            <Callout tone="good" icon={<ShieldCheck />}>
              Something that went well.
            </Callout>
            <Callout tone="warn" icon={<CircleAlert />}>
              Something to think about first.
            </Callout>
            <Callout tone="bad" icon={<CircleAlert />} action={<Button size="small">Try again</Button>}>
              Something that did not work, and one thing to do.
            </Callout>
          </div>
        </Group>
        <Group title="People">
          {[f.alice, f.bob, f.carla, f.dmitri, f.erin].map((p) => (
            <Avatar key={p.userId} name={p.name} seed={p.userId} />
          ))}
          <Avatar name="Harbour project" seed="!harbour" square size={44} />
          <Avatar name="😀" seed="!emoji" size={28} />
        </Group>
        <Group title="Choice, keys, skeletons">
          <Segmented
            label="Theme"
            value="light"
            onChange={nothing}
            options={[
              { value: "system", label: "System" },
              { value: "light", label: "Light" },
              { value: "dark", label: "Dark" },
            ]}
          />
          <Kbd>Ctrl</Kbd>
          <Skeleton className="h-4 w-40" />
        </Group>
        <Group title="Connection and typing">
          <div className="w-full max-w-80">
            <Offline connection="offline" />
            <Offline connection="connecting" />
            <TypingLine people={[f.bob]} />
            <TypingLine people={[f.bob, f.carla]} />
            <TypingLine people={[f.alice, f.bob, f.carla, f.dmitri]} />
          </div>
        </Group>
        <Group title="Empty">
          <Empty icon={<MessageSquare />} title="Nothing here yet">
            One sentence says how that changes.
          </Empty>
        </Group>
        <Group title="Safety">
          <div className="max-w-80 rounded-xl border border-line bg-raised p-4">
            <SafetyDetails
              room={room}
              members={f.members()}
              safety={{ sealed: true, changed: [f.carla.userId], withoutKeys: [f.erin.userId] }}
            />
          </div>
          <div className="max-w-80 rounded-xl border border-line bg-raised p-4">
            <SafetyDetails room={room} members={f.members()} safety={{ sealed: false, changed: [], withoutKeys: [] }} />
          </div>
        </Group>
      </div>
    </main>
  );
}
