-- How high a state event stands on what it rests on: one more than the highest of its auth events, 1 on none. 0 is for what
-- is no state event, and where that of an auth event is not known, as in rooms that are older than this column.
ALTER TABLE events ADD COLUMN height BIGINT NOT NULL DEFAULT 0;
