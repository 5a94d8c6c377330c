import { useAction } from "../../stores/useAction";
import { SignOutConfirm } from "../../ui/signout";
import { toast } from "../../ui/toast";

interface Props {
  onSignOut(): Promise<void>;
  onClose(): void;
}

/** Giving up a session that cannot be opened at present deletes its keys as well. */
export function LeaveDialog({ onSignOut, onClose }: Props) {
  const { busy, run } = useAction((failure) => toast("bad", failure));
  return (
    <SignOutConfirm
      open
      busy={busy}
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      onConfirm={() => void run(onSignOut)}
    />
  );
}
