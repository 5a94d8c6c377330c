-- All that the server has of somebody, as its owner wants to have it: at most one for each account. It is made room by
-- room (export_parts, each a file with a compressed entry), then put together into one file, and kept for some days.
CREATE TABLE exports (
  member   BIGINT PRIMARY KEY,              -- users.nid
  asked    BIGINT NOT NULL,                 -- ms
  rooms    BIGINT NOT NULL DEFAULT 0,       -- that there are to read
  done     BIGINT NOT NULL DEFAULT 0,       -- those that were read
  failure  {text} NOT NULL DEFAULT '',      -- the last one, for people
  file     {text} NOT NULL DEFAULT '',      -- '' until it is ready
  hash     {bytes},                         -- SHA-256
  size     BIGINT NOT NULL DEFAULT 0,
  finished BIGINT NOT NULL DEFAULT 0,       -- ms
  expires  BIGINT NOT NULL DEFAULT 0        -- ms
);
CREATE TABLE export_parts (
  member BIGINT NOT NULL,
  place  BIGINT NOT NULL,                   -- in the archive
  name   {text} NOT NULL,                   -- of the entry
  file   {text} NOT NULL,
  hash   {bytes} NOT NULL,                  -- SHA-256 of the file
  packed BIGINT NOT NULL,                   -- bytes of the file
  size   BIGINT NOT NULL,                   -- bytes of the entry
  sum    BIGINT NOT NULL,                   -- CRC-32 of the entry
  PRIMARY KEY (member, place)
){norowid};
