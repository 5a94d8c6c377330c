import { useChat } from "../../stores/context";
import { useAction } from "../../stores/useAction";
import { SignOutConfirm } from "../../ui/signout";
import { toast } from "../../ui/toast";

/** Ends the session that is open. */
export function SignOutDialog({ open, onOpenChange }: { open: boolean; onOpenChange(open: boolean): void }) {
  const chat = useChat();
  const { busy, run } = useAction((failure) => toast("bad", failure));
  return (
    <SignOutConfirm
      open={open}
      busy={busy}
      onOpenChange={onOpenChange}
      onConfirm={() => void run(() => chat.signOut())}
    />
  );
}
