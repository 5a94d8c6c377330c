import { KeyRound, Laptop, Palette, ShieldCheck } from "lucide-react";
import { useLocation } from "wouter";
import { AccountPage } from "../features/security/AccountPage";
import { Security } from "../features/security/Security";
import { Sessions } from "../features/security/Sessions";
import { Appearance } from "../features/settings/Appearance";
import { Settings, type SettingsPage } from "../features/settings/Settings";
import { t } from "../i18n";
import { useChat } from "../stores/context";

interface Props {
  /** The page that is open; null where none was chosen. */
  open: string | null;
  onLeave(): void;
  onSignOut(): void;
}

/** Every page of the settings, each at an address of its own. */
export function SettingsView({ open, onLeave, onSignOut }: Props) {
  const { account, me } = useChat();
  const [, navigate] = useLocation();
  const pages: SettingsPage[] = [
    {
      id: "appearance",
      name: t("settingsPages.appearance"),
      text: t("settingsPages.appearanceText"),
      icon: <Palette />,
      content: <Appearance />,
    },
    {
      id: "security",
      name: t("settingsPages.security"),
      text: t("settingsPages.securityText"),
      icon: <ShieldCheck />,
      intro: t("security.intro"),
      content: <Security account={account} userId={me.userId} />,
    },
    {
      id: "sessions",
      name: t("settingsPages.sessions"),
      text: t("settingsPages.sessionsText"),
      icon: <Laptop />,
      intro: t("sessions.intro"),
      content: <Sessions account={account} onSignOutHere={onSignOut} />,
    },
    {
      id: "account",
      name: t("settingsPages.account"),
      text: t("settingsPages.accountText"),
      icon: <KeyRound />,
      content: <AccountPage account={account} me={me} />,
    },
  ];
  return (
    <Settings pages={pages} open={open} onLeave={onLeave} onList={() => navigate("/settings")} onSignOut={onSignOut} />
  );
}
