-- Devices of this server's own client wait for somebody's yes like those of OAuth clients: their client is ''. Whoever
-- decides is told how the device calls itself, and from where it asks.
ALTER TABLE oauth_device_grants ADD COLUMN name {text} NOT NULL DEFAULT '';
ALTER TABLE oauth_device_grants ADD COLUMN address {text} NOT NULL DEFAULT '';
