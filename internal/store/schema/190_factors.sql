-- Second factors of accounts, and passkeys. That an account has one, accounts.second_factor says.

-- Authenticator apps (TOTP), at most one of an account.
CREATE TABLE totp_seeds (
  member  BIGINT PRIMARY KEY,
  sealed  {bytes} NOT NULL,               -- encrypted with a key that is not in the database
  step    BIGINT NOT NULL,                -- of the last code that was taken: no code of it or before is taken again
  created BIGINT NOT NULL                 -- ms
);

-- Seeds that were shown to somebody who has not shown a code of theirs yet.
CREATE TABLE totp_enrolments (
  member  BIGINT PRIMARY KEY,
  device  BIGINT NOT NULL,                -- devices.nid: only the session that began may end it
  sealed  {bytes} NOT NULL,
  expires BIGINT NOT NULL                 -- ms
);

-- Recovery codes that were not used yet.
CREATE TABLE recovery_codes (
  member  BIGINT NOT NULL,
  hash    {bytes} NOT NULL,               -- SHA-256; the code itself has 100 random bits
  PRIMARY KEY (member, hash)
){norowid};

CREATE TABLE passkeys (
  id         {text} PRIMARY KEY,          -- ours, for addresses
  member     BIGINT NOT NULL,
  credential {bytes} NOT NULL UNIQUE,     -- the authenticator's ID of it
  name       {text} NOT NULL,             -- its owner's
  record     {text} NOT NULL,             -- JSON: public key, flags, transports
  sign_count BIGINT NOT NULL,             -- of the last use; it may only rise, unless the authenticator does not count (0)
  created    BIGINT NOT NULL,             -- ms
  used       BIGINT NOT NULL              -- ms, 0: never
);
CREATE INDEX passkeys_member ON passkeys (member);

-- Challenges that were given out for passkeys. Each is for one purpose of one user and one use.
CREATE TABLE passkey_challenges (
  challenge {text} PRIMARY KEY,
  member    BIGINT NOT NULL,              -- 0 where nobody has said who they are
  device    BIGINT NOT NULL,              -- devices.nid of the session that adds a passkey, else 0
  purpose   {text} NOT NULL,
  ceremony  {text} NOT NULL,              -- JSON: what the answer is held against
  expires   BIGINT NOT NULL               -- ms
);
CREATE INDEX passkey_challenges_expires ON passkey_challenges (expires);
CREATE INDEX passkey_challenges_member ON passkey_challenges (member);

-- Wrong second factors of an account.
CREATE TABLE factor_attempts (
  member  BIGINT PRIMARY KEY,
  wrong   BIGINT NOT NULL,                -- since the last right one, or the last quiet time
  latest  BIGINT NOT NULL,                -- ms
  blocked BIGINT NOT NULL                 -- ms until which none is looked at, 0: not
);
