-- A way to the organization's provider and back may be a stage of user-interactive authentication: its session, '' if
-- somebody signs in.
ALTER TABLE sso_requests ADD COLUMN stage {text} NOT NULL DEFAULT '';
