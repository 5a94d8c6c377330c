-- Single sign-on: who is on the way to the organization's provider and back.
CREATE TABLE sso_requests (
  state   {bytes} PRIMARY KEY,                -- SHA-256 of the state that the provider hands back
  browser {bytes} NOT NULL,                   -- SHA-256 of what the browser's cookie holds
  target  {text} NOT NULL,                    -- where the client wants the login token
  expires BIGINT NOT NULL                     -- ms
);
CREATE INDEX sso_requests_expires ON sso_requests (expires);

-- Whom the provider means by a subject.
CREATE TABLE external_ids (
  issuer  {text} NOT NULL,
  subject {text} NOT NULL,
  member  BIGINT NOT NULL,
  PRIMARY KEY (issuer, subject)
){norowid};
CREATE INDEX external_ids_member ON external_ids (member);
