-- The audit log is only ever added to. What retention removes has to be older than a time that is noted first, and that
-- never goes back: so neither a mistake of the program's nor somebody at a console changes what happened lately without
-- taking these rules away first.
CREATE TABLE audit_floor (
  id     {bigid} PRIMARY KEY CHECK (id = 1),
  before BIGINT NOT NULL                  -- ms; what is older may be removed
);
INSERT INTO audit_floor (id, before) VALUES (1, 0);
CREATE INDEX audit_log_ts ON audit_log (ts);

{sqlite:
CREATE TRIGGER audit_log_update BEFORE UPDATE ON audit_log BEGIN
  SELECT RAISE(ABORT, 'the audit log is only added to');
END;
CREATE TRIGGER audit_log_delete BEFORE DELETE ON audit_log WHEN OLD.ts >= (SELECT before FROM audit_floor) BEGIN
  SELECT RAISE(ABORT, 'the audit log is only added to');
END;
CREATE TRIGGER audit_floor_update BEFORE UPDATE ON audit_floor WHEN NEW.before < OLD.before BEGIN
  SELECT RAISE(ABORT, 'the floor of the audit log only rises');
END;
CREATE TRIGGER audit_floor_delete BEFORE DELETE ON audit_floor BEGIN
  SELECT RAISE(ABORT, 'the floor of the audit log stays');
END;
}
{postgres:
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS '
BEGIN
  IF TG_TABLE_NAME = ''audit_floor'' THEN
    IF TG_OP = ''UPDATE'' AND NEW.before >= OLD.before THEN RETURN NEW; END IF;
  ELSIF TG_OP = ''DELETE'' AND OLD.ts < (SELECT before FROM audit_floor) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION ''the audit log is only added to'';
END';
CREATE TRIGGER audit_log_kept BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_log_whole BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_floor_kept BEFORE UPDATE OR DELETE ON audit_floor FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_floor_whole BEFORE TRUNCATE ON audit_floor FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
}
