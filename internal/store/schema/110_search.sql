-- Relations of events: by kind of child and in both directions. A child's row stays when the child is redacted; readers look at
-- the child's own row, which says so.
ALTER TABLE relations ADD COLUMN event_type {text} NOT NULL DEFAULT '';
UPDATE relations SET event_type = coalesce((SELECT {sqlite: json_extract(e.json, '$.type')}{postgres: e.json::json ->> 'type'}
  FROM events e WHERE e.nid = relations.event), '');
CREATE INDEX relations_type ON relations (room, rel_type, target);
CREATE INDEX relations_event ON relations (event);

-- What can be found by words: messages, names and topics that were sent in clear. An event that was edited is found by the words
-- of its newest edit. Cursors lead here: the job "search" has the position in the stream up to which all is indexed.
CREATE TABLE search (
  event  {bigid} PRIMARY KEY,
  room   BIGINT NOT NULL,
  sender BIGINT NOT NULL,
  kind   SMALLINT NOT NULL,                 -- 1 a message's body, 2 a room's name, 3 a room's topic
  source BIGINT NOT NULL,                   -- the event that the words are of: it itself, or its newest edit
  body   {text} NOT NULL,                   -- the words in lower case, each with a space before and one after it
  {postgres: words TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple', body) || array_to_tsvector(ARRAY['room:' || room::text])) STORED}
  {sqlite: place TEXT GENERATED ALWAYS AS ('r' || room) VIRTUAL}
);
CREATE INDEX search_source ON search (source);
{postgres: CREATE INDEX search_words ON search USING gin (words);}
{sqlite: CREATE VIRTUAL TABLE search_words USING fts5(body, place, content='search', content_rowid='event', tokenize='unicode61 remove_diacritics 0');
INSERT INTO search_words (search_words, rank) VALUES ('secure-delete', 1);
CREATE TRIGGER search_added AFTER INSERT ON search BEGIN
  INSERT INTO search_words (rowid, body, place) VALUES (new.event, new.body, new.place);
END;
CREATE TRIGGER search_dropped AFTER DELETE ON search BEGIN
  INSERT INTO search_words (search_words, rowid, body, place) VALUES ('delete', old.event, old.body, old.place);
END;
CREATE TRIGGER search_changed AFTER UPDATE ON search BEGIN
  INSERT INTO search_words (search_words, rowid, body, place) VALUES ('delete', old.event, old.body, old.place);
  INSERT INTO search_words (rowid, body, place) VALUES (new.event, new.body, new.place);
END;}

-- Events that are to be indexed, or indexed again, although no position of the stream says so: fetched history, and what a
-- redaction took the text of that was waiting for it.
CREATE TABLE search_queue (
  event {bigid} PRIMARY KEY,
  asked BIGINT NOT NULL                     -- how often, so that what is asked while it is being done is done again
);
INSERT INTO search_queue (event, asked) SELECT nid, 1 FROM events WHERE sub < 0 AND pos IS NOT NULL;
