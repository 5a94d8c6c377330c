-- Accounts of our own users, their devices and access tokens.

CREATE TABLE accounts (
  member      BIGINT PRIMARY KEY,         -- users.nid
  localpart   {text} NOT NULL UNIQUE,
  password    {text} NOT NULL DEFAULT '', -- argon2id in PHC form; '' = none, no login by password
  admin       BOOLEAN NOT NULL DEFAULT FALSE,
  deactivated BOOLEAN NOT NULL DEFAULT FALSE,
  created     BIGINT NOT NULL             -- ms
);

CREATE TABLE devices (
  nid       {bigid} PRIMARY KEY,
  member    BIGINT NOT NULL,
  device_id {text} NOT NULL,
  name      {text} NOT NULL DEFAULT '',
  seen      BIGINT NOT NULL DEFAULT 0,    -- ms, as of the last time it was written: at most minutes old
  address   {text} NOT NULL DEFAULT '',
  UNIQUE (member, device_id)
);

CREATE TABLE access_tokens (
  hash    {bytes} PRIMARY KEY,            -- SHA-256 of the token
  device  BIGINT NOT NULL,
  member  BIGINT NOT NULL,
  created BIGINT NOT NULL
);
CREATE INDEX access_tokens_device ON access_tokens (device);
CREATE INDEX access_tokens_member ON access_tokens (member);

-- Sessions of user-interactive authentication: bound to who asked for what with which body.
CREATE TABLE uia_sessions (
  id        {text} PRIMARY KEY,
  member    BIGINT NOT NULL,              -- 0 where nobody is logged in yet
  operation {text} NOT NULL,
  body      {bytes} NOT NULL,             -- SHA-256 of the request's body without "auth"
  completed {text} NOT NULL,              -- stages, separated by spaces
  expires   BIGINT NOT NULL               -- ms
);
CREATE INDEX uia_sessions_expires ON uia_sessions (expires);

CREATE TABLE profiles (
  member BIGINT PRIMARY KEY,
  fields {text} NOT NULL                  -- a JSON object
);

-- Tokens by which somebody proves to a third party who they are here, and nothing else (OpenID).
CREATE TABLE openid_tokens (
  hash    {bytes} PRIMARY KEY,            -- SHA-256 of the token
  member  BIGINT NOT NULL,
  expires BIGINT NOT NULL                 -- ms
);
CREATE INDEX openid_tokens_expires ON openid_tokens (expires);
