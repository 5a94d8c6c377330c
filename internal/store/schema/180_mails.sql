-- E-mail: what is to be sent, addresses that are being confirmed, and addresses (third-party identifiers) of accounts.

-- Mails on their way: each leaves with the mail. A link's token is made when the mail is written, and stands nowhere here.
CREATE TABLE mails (
  id          {text} PRIMARY KEY,
  address     {text} NOT NULL,              -- in canonical form
  kind        {text} NOT NULL,
  lang        {text} NOT NULL,
  facts       {text} NOT NULL,              -- a JSON object: what the mail tells
  validation  {text} NOT NULL DEFAULT '',   -- which it is a link for, '' if it has none
  created     BIGINT NOT NULL,              -- ms
  due         BIGINT NOT NULL,              -- ms
  fails       INTEGER NOT NULL DEFAULT 0,
  lease_until BIGINT NOT NULL DEFAULT 0,    -- ms of the database's clock
  fence       BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX mails_due ON mails (due);

-- Addresses that somebody says are theirs, until that is confirmed and used, or too late.
CREATE TABLE validations (
  id        {text} PRIMARY KEY,             -- the sid of clients
  purpose   {text} NOT NULL,
  address   {text} NOT NULL,                -- in canonical form
  secret    {bytes} NOT NULL,               -- SHA-256 of the client_secret
  member    BIGINT NOT NULL,                -- for whose account, 0 for nobody's yet
  owner     BIGINT NOT NULL DEFAULT 0,      -- whose the address was when the mail was written, 0 if that says nothing
  attempt   BIGINT NOT NULL,                -- the highest send_attempt
  next_link {text} NOT NULL,
  confirmed BIGINT NOT NULL DEFAULT 0,      -- ms, 0 if it is not
  expires   BIGINT NOT NULL,                -- ms
  UNIQUE (address, purpose, secret, member)
);
CREATE INDEX validations_expires ON validations (expires);

-- What confirms them: one for each mail, until the first is used.
CREATE TABLE validation_tokens (
  hash       {bytes} PRIMARY KEY,           -- SHA-256 of the token
  validation {text} NOT NULL,
  expires    BIGINT NOT NULL                -- ms
);
CREATE INDEX validation_tokens_validation ON validation_tokens (validation);
CREATE INDEX validation_tokens_expires ON validation_tokens (expires);

CREATE TABLE threepids (
  medium    {text} NOT NULL,
  address   {text} NOT NULL,                -- in canonical form
  member    BIGINT NOT NULL,
  lang      {text} NOT NULL,                -- of mails to it
  validated BIGINT NOT NULL,                -- ms
  added     BIGINT NOT NULL,                -- ms
  PRIMARY KEY (medium, address)
){norowid};
CREATE INDEX threepids_member ON threepids (member);

-- Which identity servers tell everybody that an address is a user's.
CREATE TABLE threepid_bindings (
  member  BIGINT NOT NULL,
  medium  {text} NOT NULL,
  address {text} NOT NULL,
  server  {text} NOT NULL,
  PRIMARY KEY (member, medium, address, server)
){norowid};

-- How much of what costs others something (mails to an address, say) has been spent: a row holds when all of it will be
-- forgotten.
CREATE TABLE budgets (
  key   {bytes} PRIMARY KEY,                -- SHA-256 of what is counted
  until BIGINT NOT NULL                     -- ms
);
CREATE INDEX budgets_until ON budgets (until);
