-- Accounts that were closed, for those who have to see what became of it. A row is made when the account is closed and
-- stays: from its position on, what the user has said is served redacted to whoever comes into a room later.
CREATE TABLE closings (
  member  BIGINT PRIMARY KEY,               -- users.nid
  asked   BIGINT NOT NULL,                  -- ms
  erased  BIGINT NOT NULL DEFAULT 0,        -- position of the stream since which the user's content is erased, 0: it is not
  rooms   BIGINT NOT NULL DEFAULT 0,        -- that were to be left
  places  BIGINT NOT NULL DEFAULT 0,        -- rooms in which there is something to erase
  cleared BIGINT NOT NULL DEFAULT 0,        -- those where it is done
  files   BIGINT NOT NULL DEFAULT 0,        -- that were deleted
  failure {text} NOT NULL DEFAULT ''        -- the last one, for people; '' if what failed was done since
);
CREATE INDEX closings_erased ON closings (erased) WHERE erased <> 0;
CREATE INDEX search_sender ON search (sender);
