-- Accounts that an administrator has taken out of use for a time: a locked one can do nothing but log out, a suspended one
-- can read and leave.
ALTER TABLE accounts ADD COLUMN locked BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE accounts ADD COLUMN suspended BOOLEAN NOT NULL DEFAULT FALSE;

-- The directory of people: what each known user is called, by words, so that a search begins in an index. It follows the
-- stream and can be made anew from it.
CREATE TABLE people (
  member BIGINT PRIMARY KEY,
  name   {text} NOT NULL,
  avatar {text} NOT NULL
){norowid};
CREATE TABLE people_words (
  word   {text} NOT NULL,                   -- in lower case
  member BIGINT NOT NULL,
  PRIMARY KEY (word, member)
){norowid};
CREATE INDEX people_words_member ON people_words (member);

-- Rooms whose members everybody may find: who likes can join or read them.
CREATE TABLE open_rooms (
  room BIGINT PRIMARY KEY
){norowid};

-- How far the directory has come: in the changes of memberships, and in the rest of the stream.
CREATE TABLE people_cursor (
  one    SMALLINT PRIMARY KEY,              -- 1
  pos    BIGINT NOT NULL,
  room   BIGINT NOT NULL,
  member BIGINT NOT NULL,
  stream BIGINT NOT NULL
);
CREATE INDEX memberships_changed ON memberships (pos, room, member);

-- The one room in which a user gets what the server has to tell.
CREATE TABLE notice_rooms (
  member BIGINT PRIMARY KEY,
  room   BIGINT NOT NULL
);
