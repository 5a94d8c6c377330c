-- Pushers of kind email: one mail tells of what has waited unread for a while. They are the account's, not a device's
-- (device is 0), and their retry_at is when to look whether a mail is due; 0 if nothing waits.
ALTER TABLE pushers ADD COLUMN waiting BIGINT NOT NULL DEFAULT 0;   -- ms: since when something has waited, 0 if nothing does
ALTER TABLE pushers ADD COLUMN mailed BIGINT NOT NULL DEFAULT 0;    -- ms: when the last mail was written, 0 if none was
ALTER TABLE pushers ADD COLUMN stage SMALLINT NOT NULL DEFAULT 0;   -- how many mails since the user was seen
