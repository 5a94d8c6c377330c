-- Server-side key backups, and dehydrated devices: what a user keeps here for a device that it does not have yet. All of
-- it is sealed by the clients.

-- A version of a user's key backup. Its number, and its etag, are positions of the stream, so that none is ever given out
-- a second time, not even after the database was put back from a copy. Of a version that was deleted the row stays as a
-- sign, without its data; count is what is left of its sessions to clear away.
CREATE TABLE key_backups (
  member    BIGINT NOT NULL,
  version   BIGINT NOT NULL,
  algorithm {text} NOT NULL,
  auth_data {text} NOT NULL,                -- a JSON object as it came
  etag      BIGINT NOT NULL,                -- changes with the sessions, and with nothing else
  count     BIGINT NOT NULL DEFAULT 0,      -- of the sessions
  deleted   BOOLEAN NOT NULL DEFAULT FALSE,
  PRIMARY KEY (member, version)
){norowid};
CREATE INDEX key_backups_doomed ON key_backups (member, version) WHERE deleted AND count > 0;

-- The sessions in the backups.
CREATE TABLE backup_sessions (
  member      BIGINT NOT NULL,
  version     BIGINT NOT NULL,
  room_id     {text} NOT NULL,              -- as the client says: the room need not be known here
  session_id  {text} NOT NULL,
  first_index BIGINT NOT NULL,              -- first_message_index
  forwarded   BIGINT NOT NULL,              -- forwarded_count
  verified    BOOLEAN NOT NULL,             -- is_verified
  data        {text} NOT NULL,              -- session_data, a JSON object as it came
  PRIMARY KEY (member, version, room_id, session_id)
){norowid};

-- Which of a user's devices is its dehydrated one (MSC3814): it has keys and messages, and no session.
CREATE TABLE dehydrated_devices (
  member BIGINT PRIMARY KEY,
  device BIGINT NOT NULL UNIQUE,            -- devices.nid
  data   {text} NOT NULL                    -- device_data, a JSON object as it came
);
