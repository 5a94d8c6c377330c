-- Application services: how far each has been told, one row for each that has an address.
CREATE TABLE app_services (
  id          {text} PRIMARY KEY,           -- of the registration
  pos         BIGINT NOT NULL,              -- what stands after it has not been delivered or passed over
  serial      BIGINT NOT NULL DEFAULT 0,    -- of the last transaction
  txn         {text} NOT NULL DEFAULT '',   -- ID of the transaction under way, '' if there is none
  body        {text} NOT NULL DEFAULT '',   -- its content, which never changes however often it is tried
  txn_to      BIGINT NOT NULL DEFAULT 0,    -- pos, once it is acknowledged
  fails       INTEGER NOT NULL DEFAULT 0,   -- attempts in a row that failed
  retry_at    BIGINT NOT NULL DEFAULT 0,    -- ms; 0 if it does not fail
  lease_until BIGINT NOT NULL DEFAULT 0,    -- ms of the database's clock
  fence       BIGINT NOT NULL DEFAULT 0
);

-- Rooms that application services list in the directories of their networks.
CREATE TABLE app_directory (
  room    BIGINT NOT NULL,
  service {text} NOT NULL,
  network {text} NOT NULL,
  PRIMARY KEY (room, service, network)
){norowid};
