-- Connections of sliding sync: which rooms a client knows, and what it was sent of each. A row is written only when that
-- changes, under a number of its own that stands in the client's position; of a connection the last two are kept.
CREATE TABLE sliding_connections (
  device  BIGINT NOT NULL,
  conn    {text} NOT NULL,                  -- conn_id, '' for none
  number  BIGINT NOT NULL,                  -- drawn at random
  written BIGINT NOT NULL,                  -- ms
  state   {text} NOT NULL,                  -- JSON
  PRIMARY KEY (device, conn, number)
){norowid};
