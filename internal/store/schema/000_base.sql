-- What the store itself needs.

-- Facts about this database: its generation and its secrets.
CREATE TABLE meta (
  name  {text} PRIMARY KEY,
  value {bytes} NOT NULL
){norowid};

-- Which files of this folder have been applied, with the SHA-256 of their text.
CREATE TABLE migrations (
  name    {text} PRIMARY KEY,
  hash    {bytes} NOT NULL,
  applied BIGINT NOT NULL                   -- ms
){norowid};

-- The numbers of rows are given out in blocks; next is the first that no block has taken.
CREATE TABLE nid_blocks (
  kind SMALLINT PRIMARY KEY,
  next BIGINT NOT NULL
);

-- The position of the last persisted change. On PostgreSQL a sequence, whose value 1 is never used: a sequence that has
-- not begun cannot be told from one that has given out its first value.
{sqlite: CREATE TABLE stream (last BIGINT NOT NULL);
INSERT INTO stream (last) VALUES (1);}
{postgres: CREATE SEQUENCE stream AS BIGINT;
SELECT nextval('stream');

-- Takes n consecutive positions. The key is locked before the first of them exists, and is not higher than any: who
-- reads the sequence and then the lowest key held knows that no position up to the lower of both is still to come.
CREATE FUNCTION next_positions(n BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
  first BIGINT;
  drawn BIGINT;
  count BIGINT := 1;
BEGIN
  PERFORM pg_advisory_xact_lock_shared((1::BIGINT << 62) | s.last_value) FROM stream s;
  first := nextval('stream');
  WHILE count < n LOOP
    drawn := nextval('stream');
    IF drawn = first + count THEN
      count := count + 1;
    ELSE  -- another transaction took one in between: what came before it is left unused
      first := drawn;
      count := 1;
    END IF;
  END LOOP;
  RETURN first;
END $$;

-- The position up to which everything is committed: see next_positions. The order of the two questions matters.
CREATE FUNCTION stream_bound() RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
  reached BIGINT;
  held    BIGINT;
BEGIN
  SELECT s.last_value INTO reached FROM stream s;
  SELECT min(((l.classid::BIGINT & 1073741823) << 32) | l.objid::BIGINT) INTO held FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.classid::BIGINT >> 30 = 1
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
  RETURN least(reached, held);
END $$;}

-- Every persisted change that is not an event: what kind it is and whom it concerns (0: nobody in particular). What it
-- says stands elsewhere.
CREATE TABLE changes (
  pos    BIGINT NOT NULL,
  kind   SMALLINT NOT NULL,
  room   BIGINT NOT NULL,
  member BIGINT NOT NULL,
  PRIMARY KEY (pos, kind, room, member)
){norowid};
CREATE INDEX changes_member ON changes (member, kind, pos);

-- Work that outlives its request. A node takes a job by its lease; the fence tells an old holder from the present one.
CREATE TABLE jobs (
  kind        {text} NOT NULL,
  key         {text} NOT NULL,
  due         BIGINT NOT NULL,              -- ms
  cursor      {text} NOT NULL DEFAULT '',   -- how far it has come
  lease_until BIGINT NOT NULL DEFAULT 0,    -- ms of the database's clock; 0 if nobody works at it
  fence       BIGINT NOT NULL DEFAULT 0,    -- raised with every lease
  PRIMARY KEY (kind, key)
){norowid};
CREATE INDEX jobs_due ON jobs (due);
