-- The OAuth 2.0 API: clients that have registered, what somebody's browser is in the middle of, and what comes of it.

-- Clients, by what they say of themselves: the same words are the same client.
CREATE TABLE oauth_clients (
  client   {text} PRIMARY KEY,                 -- drawn from a hash of the metadata
  metadata {text} NOT NULL,                    -- JSON, as far as it was accepted
  created  BIGINT NOT NULL,                    -- ms
  used     BIGINT NOT NULL DEFAULT 0           -- ms when a session of it was last opened, 0: never
);
CREATE INDEX oauth_clients_used ON oauth_clients (used, created);
CREATE INDEX devices_client ON devices (client) WHERE client <> '';

-- Visits: what a browser is in the middle of, from an address of ours that it was sent to until it leaves again.
CREATE TABLE oauth_visits (
  hash     {bytes} PRIMARY KEY,                -- SHA-256 of the secret in the browser's cookie
  purpose  {text} NOT NULL,
  client   {text} NOT NULL DEFAULT '',         -- the client that wants a session, '' for none
  details  {text} NOT NULL,                    -- JSON
  guesses  BIGINT NOT NULL DEFAULT 0,          -- at user codes
  expires  BIGINT NOT NULL                     -- ms
);
CREATE INDEX oauth_visits_expires ON oauth_visits (expires);
CREATE INDEX oauth_visits_client ON oauth_visits (client) WHERE client <> '';

-- Authorization codes. A spent one is remembered, to see that it was copied.
CREATE TABLE oauth_codes (
  hash      {bytes} PRIMARY KEY,               -- SHA-256
  client    {text} NOT NULL,
  redirect  {text} NOT NULL,                   -- the redirect URI of the request, exactly
  challenge {text} NOT NULL,                   -- of PKCE, S256
  wanted    {text} NOT NULL,                   -- the device's ID
  member    BIGINT NOT NULL,
  shown     {text} NOT NULL,                   -- what was shown of being the account's owner, separated by spaces
  expires   BIGINT NOT NULL,                   -- ms
  spent     BIGINT NOT NULL DEFAULT 0,         -- ms, 0: not yet
  family    BIGINT NOT NULL DEFAULT 0,         -- of the tokens that it was exchanged for
  device    BIGINT NOT NULL DEFAULT 0          -- devices.nid of the session that it has opened, 0: none
);
CREATE INDEX oauth_codes_expires ON oauth_codes (expires);
CREATE INDEX oauth_codes_member ON oauth_codes (member);

-- Device authorization grants: a device waits for somebody to type its user code elsewhere.
CREATE TABLE oauth_device_grants (
  hash      {bytes} PRIMARY KEY,               -- SHA-256 of the device code
  user_code {text} NOT NULL UNIQUE,
  client    {text} NOT NULL,
  wanted    {text} NOT NULL,                   -- the device's ID
  state     {text} NOT NULL,                   -- pending, approved or denied
  member    BIGINT NOT NULL DEFAULT 0,         -- who approved
  shown     {text} NOT NULL DEFAULT '',        -- separated by spaces
  pause     BIGINT NOT NULL,                   -- ms that the device has to wait between two questions
  polled    BIGINT NOT NULL DEFAULT 0,         -- ms of the last question
  expires   BIGINT NOT NULL                    -- ms
);
CREATE INDEX oauth_device_grants_expires ON oauth_device_grants (expires);
CREATE INDEX oauth_device_grants_member ON oauth_device_grants (member);

-- What somebody has just approved on our page after signing in again, for a session that cannot ask for a password itself.
CREATE TABLE oauth_approvals (
  member  BIGINT NOT NULL,
  session {text} NOT NULL,                     -- uia_sessions.id, '': whichever comes next
  expires BIGINT NOT NULL,                     -- ms
  PRIMARY KEY (member, session)
){norowid};
