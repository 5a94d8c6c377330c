-- What our users uploaded, and what was fetched of it from other servers. The bytes are files of the media package; a
-- row never changes once it has a file.

CREATE TABLE media (
  origin   {text} NOT NULL,              -- the server in the mxc URI
  media_id {text} NOT NULL,
  member   BIGINT NOT NULL,              -- who uploaded it (users.nid); 0 = a copy of another server's
  file     {text} NOT NULL DEFAULT '',   -- the name of the file; '' = reserved, not uploaded yet
  hash     {bytes},                      -- SHA-256 of the bytes
  size     BIGINT NOT NULL DEFAULT 0,
  type     {text} NOT NULL DEFAULT '',   -- as the uploader or the other server says
  name     {text} NOT NULL DEFAULT '',   -- of the file, likewise; '' = none
  created  BIGINT NOT NULL,              -- ms
  used     BIGINT NOT NULL,              -- ms, of a copy: as of the last time it was written, an hour old at most
  expires  BIGINT NOT NULL DEFAULT 0,    -- ms, when a reserved ID ends; 0 = never
  PRIMARY KEY (origin, media_id)
);
CREATE INDEX media_used ON media (used) WHERE member = 0;
CREATE INDEX media_expires ON media (expires) WHERE expires > 0;
-- file has no index on purpose: the clean-up that removes files without a row asks by reading the whole table, so that a
-- damaged index cannot make it remove one that is needed.

-- Small images, made when first asked for.
CREATE TABLE thumbnails (
  origin   {text} NOT NULL,
  media_id {text} NOT NULL,
  width    INTEGER NOT NULL,             -- of the box that was asked for
  height   INTEGER NOT NULL,
  crop     BOOLEAN NOT NULL,
  file     {text} NOT NULL,              -- '' = the content itself serves as it is
  hash     {bytes} NOT NULL,
  size     BIGINT NOT NULL,
  type     {text} NOT NULL,
  PRIMARY KEY (origin, media_id, width, height, crop)
);
