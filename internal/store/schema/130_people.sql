-- Accounts that an administrator has taken out of use for a time: a locked one can do nothing but log out, a suspended one
-- can read and leave.
ALTER TABLE accounts ADD COLUMN locked BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE accounts ADD COLUMN suspended BOOLEAN NOT NULL DEFAULT FALSE;
