-- The organization's directory (LDAP) means people by IDs of its own, as a provider does: its issuer is 'ldap'. When it
-- was found to have somebody no more (ms), 0 if it has them.
ALTER TABLE external_ids ADD COLUMN gone BIGINT NOT NULL DEFAULT 0;

-- From where a user was seen lately: a block of network addresses. Whoever signs in from elsewhere on a new device is news.
CREATE TABLE places (
  member BIGINT NOT NULL,
  place  {text} NOT NULL,
  seen   BIGINT NOT NULL,                     -- ms, about a day old at most
  PRIMARY KEY (member, place)
){norowid};
