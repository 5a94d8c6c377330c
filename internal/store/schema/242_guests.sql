-- Guests: accounts that anybody may make, which may do little and end when they are not used.
ALTER TABLE accounts ADD COLUMN guest BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX accounts_guest ON accounts (member) WHERE guest;
