-- What is known of the power of whoever redacts: 0 nothing, 1 sufficient when the redaction came, 2 sufficient where it
-- stands in history that was fetched.
ALTER TABLE redactions ADD COLUMN power SMALLINT NOT NULL DEFAULT 0;
