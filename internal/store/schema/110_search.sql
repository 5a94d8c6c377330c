-- Relations of events: by kind of child and in both directions. A child's row stays when the child is redacted; readers look at
-- the child's own row, which says so.
ALTER TABLE relations ADD COLUMN event_type {text} NOT NULL DEFAULT '';
UPDATE relations SET event_type = coalesce((SELECT {sqlite: json_extract(e.json, '$.type')}{postgres: e.json::json ->> 'type'}
  FROM events e WHERE e.nid = relations.event), '');
CREATE INDEX relations_type ON relations (room, rel_type, target);
CREATE INDEX relations_event ON relations (event);
