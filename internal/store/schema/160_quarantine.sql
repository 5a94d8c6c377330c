-- Contents that were withdrawn together, because a room shows them, so that they can be given back together.
ALTER TABLE quarantined_media ADD COLUMN room BIGINT NOT NULL DEFAULT 0; -- 0: withdrawn by itself, or with all of its user
CREATE INDEX quarantined_media_room ON quarantined_media (room, at, origin, media_id) WHERE room <> 0;
