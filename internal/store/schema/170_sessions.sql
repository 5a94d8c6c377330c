-- Tokens that end and are renewed. A login is a family of tokens, each renewal of it a generation: the one before stays
-- good until the new one is used (client-server API, "Refreshing access tokens").
ALTER TABLE access_tokens ADD COLUMN family BIGINT NOT NULL DEFAULT 0;     -- 0: of before this table had families
ALTER TABLE access_tokens ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;
ALTER TABLE access_tokens ADD COLUMN expires BIGINT NOT NULL DEFAULT 0;    -- ms; 0: it does not end by itself
ALTER TABLE access_tokens ADD COLUMN fresh BOOLEAN NOT NULL DEFAULT FALSE; -- made by a renewal, and not used yet
CREATE TABLE refresh_tokens (
  hash       {bytes} PRIMARY KEY,             -- SHA-256 of the token
  generation BIGINT NOT NULL,
  spent      BIGINT NOT NULL DEFAULT 0,       -- ms since when a later generation is in use: who shows it after that has a copy
  expires    BIGINT NOT NULL,                 -- ms
  family     BIGINT NOT NULL,
  member     BIGINT NOT NULL,
  device     BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_device ON refresh_tokens (device, generation);

-- How a session was opened.
ALTER TABLE devices ADD COLUMN shown {text} NOT NULL DEFAULT '';  -- what was shown of being its owner, separated by spaces
ALTER TABLE devices ADD COLUMN opened BIGINT NOT NULL DEFAULT 0;  -- ms
ALTER TABLE devices ADD COLUMN client {text} NOT NULL DEFAULT ''; -- the OAuth client that it is of, '' for none

-- Second factors: since when there is one (0: there is none), and by when the server's rule wants one (0: nobody has
-- asked yet), both in ms.
ALTER TABLE accounts ADD COLUMN second_factor BIGINT NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN factor_due BIGINT NOT NULL DEFAULT 0;

-- Who is about to sign in, and what they have shown so far. It opens one session.
CREATE TABLE sign_ins (
  hash    {bytes} PRIMARY KEY,                -- SHA-256 of the secret by which it is continued
  member  BIGINT NOT NULL,
  purpose {text} NOT NULL,                    -- what it may open
  target  {text} NOT NULL,                    -- where the client is that it is for, '' if that is whoever has the secret
  shown   {text} NOT NULL,                    -- separated by spaces
  expires BIGINT NOT NULL                     -- ms
);
CREATE INDEX sign_ins_expires ON sign_ins (expires);
CREATE INDEX sign_ins_member ON sign_ins (member);

-- What the stages of a confirmation have found out, as JSON.
ALTER TABLE uia_sessions ADD COLUMN data {text} NOT NULL DEFAULT '';

-- Passwords that their owner had made for clients which know of nothing but a name and a password. Each opens one session.
CREATE TABLE app_passwords (
  id      {text} PRIMARY KEY,                 -- for addresses
  hash    {bytes} NOT NULL UNIQUE,            -- SHA-256 of the password, which has 125 random bits
  member  BIGINT NOT NULL,
  name    {text} NOT NULL,                    -- what for, its owner's words
  created BIGINT NOT NULL,                    -- ms
  used    BIGINT NOT NULL DEFAULT 0,          -- ms, 0: never
  device  BIGINT NOT NULL DEFAULT 0           -- devices.nid of the session that it has opened, 0: none yet
);
CREATE INDEX app_passwords_member ON app_passwords (member, id);
