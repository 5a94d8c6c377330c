-- Transactions of devices are forgotten after a while. Those that made an event are found by it, oldest first; the others by
-- their time, with an index that costs sending events nothing.
CREATE INDEX txns_ts ON txns (ts) WHERE event = 0;
