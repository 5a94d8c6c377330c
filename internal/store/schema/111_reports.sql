-- What users found so inappropriate that they told the administrators. Rooms and users stand here by name: they need not be known
-- to this server.
CREATE TABLE reports (
  nid      {bigid} PRIMARY KEY,
  kind     SMALLINT NOT NULL,               -- 1 an event, 2 a room, 3 a user
  reporter BIGINT NOT NULL,                 -- users.nid
  room_id  {text} NOT NULL DEFAULT '',
  event_id {text} NOT NULL DEFAULT '',
  user_id  {text} NOT NULL DEFAULT '',      -- who is reported: the sender of the event, or the user
  reason   {text} NOT NULL,
  ts       BIGINT NOT NULL                  -- ms
);
CREATE UNIQUE INDEX reports_what ON reports (reporter, kind, room_id, event_id, user_id);
CREATE INDEX reports_kind ON reports (kind, nid);
