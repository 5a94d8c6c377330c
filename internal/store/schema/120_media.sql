-- Withdrawn contents, what each user has stored, small images that move, and uploads that come in pieces.

-- Contents, of ours or of other servers, that administrators have withdrawn: nobody is given one. The row stays when the
-- content's own goes, so that a copy that was given up is not fetched again.
CREATE TABLE quarantined_media (
  origin   {text} NOT NULL,
  media_id {text} NOT NULL,
  member   BIGINT NOT NULL,              -- the administrator (users.nid)
  at       BIGINT NOT NULL,              -- ms
  PRIMARY KEY (origin, media_id)
);

-- How much each user has stored, without small images. Counted in the transaction that adds or removes a content.
CREATE TABLE media_use (
  member {bigid} PRIMARY KEY,            -- users.nid
  files  BIGINT NOT NULL,
  bytes  BIGINT NOT NULL
);
INSERT INTO media_use (member, files, bytes)
  SELECT member, count(*), CAST(sum(size) AS BIGINT) FROM media WHERE member > 0 AND file <> '' GROUP BY member;
CREATE INDEX media_member ON media (member, created, media_id) WHERE member > 0;

-- The small images once more, with what tells those that move from those that stand.
ALTER TABLE thumbnails RENAME TO still_thumbnails;
CREATE TABLE thumbnails (
  origin   {text} NOT NULL,
  media_id {text} NOT NULL,
  width    INTEGER NOT NULL,             -- of the box that was asked for
  height   INTEGER NOT NULL,
  crop     BOOLEAN NOT NULL,
  moving   BOOLEAN NOT NULL,             -- asked for with animated=true
  file     {text} NOT NULL,              -- '' = the content itself serves as it is
  hash     {bytes} NOT NULL,
  size     BIGINT NOT NULL,
  type     {text} NOT NULL,
  PRIMARY KEY (origin, media_id, width, height, crop, moving)
);
INSERT INTO thumbnails SELECT origin, media_id, width, height, crop, FALSE, file, hash, size, type FROM still_thumbnails;
DROP TABLE still_thumbnails;

-- Uploads that come in pieces and can be resumed. A row goes when its content's row comes, or when its time ends.
CREATE TABLE media_uploads (
  media_id {text} PRIMARY KEY,           -- of the content that it will be
  member   BIGINT NOT NULL,              -- users.nid
  file     {text} NOT NULL,              -- the name that the file will have
  length   BIGINT NOT NULL,              -- bytes of the whole
  received BIGINT NOT NULL DEFAULT 0,    -- bytes that are durable
  sum      {bytes} NOT NULL,             -- state of the SHA-256 over these
  wanted   {bytes},                      -- SHA-256 of the whole, as the client announced it
  type     {text} NOT NULL,
  name     {text} NOT NULL,
  place    {text} NOT NULL DEFAULT '',   -- S3: the multipart upload
  tail     {text} NOT NULL DEFAULT '',   -- S3: the object with the bytes behind the last whole piece
  fence    BIGINT NOT NULL DEFAULT 0,    -- of the request that may write
  created  BIGINT NOT NULL,              -- ms
  expires  BIGINT NOT NULL               -- ms
);
CREATE INDEX media_uploads_member ON media_uploads (member);

-- The pieces of an upload that S3 holds.
CREATE TABLE media_pieces (
  media_id {text} NOT NULL,
  number   INTEGER NOT NULL,             -- from 1
  etag     {text} NOT NULL,              -- S3's name of the bytes, without which it would not put them together
  PRIMARY KEY (media_id, number)
);
