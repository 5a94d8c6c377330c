-- End-to-end encryption: public keys, device lists, messages to devices. The server stores what it is given and opens none of it.

-- Public keys of our users' devices, as they were uploaded. They never change under one device.
CREATE TABLE device_keys (
  device BIGINT PRIMARY KEY,                -- devices.nid
  member BIGINT NOT NULL,
  json   {text} NOT NULL
){norowid};
CREATE INDEX device_keys_member ON device_keys (member);

-- Keys to be given out once each, in the order of pos.
CREATE TABLE one_time_keys (
  device    BIGINT NOT NULL,
  algorithm {text} NOT NULL,
  key_id    {text} NOT NULL,
  pos       BIGINT NOT NULL,                -- of the upload
  json      {text} NOT NULL,
  PRIMARY KEY (device, algorithm, key_id)
){norowid};
CREATE INDEX one_time_keys_pos ON one_time_keys (device, algorithm, pos);

-- One-time keys that were given out: an upload that is repeated must not bring them back.
CREATE TABLE claimed_keys (
  device    BIGINT NOT NULL,
  algorithm {text} NOT NULL,
  key_id    {text} NOT NULL,
  ts        BIGINT NOT NULL,                -- ms
  PRIMARY KEY (device, algorithm, key_id)
){norowid};

-- What is given out where no one-time key is left, again and again.
CREATE TABLE fallback_keys (
  device    BIGINT NOT NULL,
  algorithm {text} NOT NULL,
  key_id    {text} NOT NULL,
  used      BOOLEAN NOT NULL DEFAULT FALSE,
  json      {text} NOT NULL,
  PRIMARY KEY (device, algorithm)
){norowid};

-- Cross-signing keys of our users, and of others as far as their lists are known (remote_lists).
CREATE TABLE cross_signing_keys (
  member BIGINT NOT NULL,
  usage  SMALLINT NOT NULL,                 -- 1 master, 2 self-signing, 3 user-signing
  public {text} NOT NULL,                   -- unpadded base64
  json   {text} NOT NULL,
  PRIMARY KEY (member, usage)
){norowid};

-- Signatures that our users uploaded: of a user's device (by its ID) or master key (by its public key). One by somebody
-- else than that user is for its maker's eyes only.
CREATE TABLE key_signatures (
  member    BIGINT NOT NULL,                -- whose key is signed
  target    {text} NOT NULL,
  signer    BIGINT NOT NULL,
  key_id    {text} NOT NULL,                -- ed25519:… of the signer
  signature {text} NOT NULL,
  pos       BIGINT NOT NULL,
  PRIMARY KEY (member, target, signer, key_id)
){norowid};
CREATE INDEX key_signatures_signer ON key_signatures (signer, pos);

-- Every change of somebody's devices or keys: each has a position of its own, which other servers know as stream_id.
CREATE TABLE device_list_changes (
  pos       {bigid} PRIMARY KEY,
  member    BIGINT NOT NULL,
  what      SMALLINT NOT NULL,              -- 0 nothing that other servers learn, 1 a device, 2 cross-signing keys
  device_id {text} NOT NULL DEFAULT ''
);
CREATE INDEX device_list_changes_member ON device_list_changes (member, pos);

-- Device lists of other servers' users. A list holds for as long as a user of ours has shared a room with its user
-- without a break since the position "since".
CREATE TABLE remote_lists (
  member    BIGINT PRIMARY KEY,
  stream_id BIGINT NOT NULL,                -- of the last update; 0 if it is not known
  wanted    BIGINT NOT NULL DEFAULT 0,      -- the newest stream_id that was heard of while the list was stale
  stale     BOOLEAN NOT NULL,               -- an update was missed: to be fetched again
  since     BIGINT NOT NULL,
  retry_at  BIGINT NOT NULL DEFAULT 0,      -- ms: not to be fetched again before
  fails     BIGINT NOT NULL DEFAULT 0
){norowid};
CREATE INDEX remote_lists_retry ON remote_lists (retry_at) WHERE stale;

CREATE TABLE remote_devices (
  member    BIGINT NOT NULL,
  device_id {text} NOT NULL,
  name      {text} NOT NULL DEFAULT '',
  json      {text} NOT NULL,
  PRIMARY KEY (member, device_id)
){norowid};

-- Messages that wait for a device of ours: until a sync token shows that it has them.
CREATE TABLE to_device (
  device BIGINT NOT NULL,
  pos    BIGINT NOT NULL,
  event  {text} NOT NULL,
  PRIMARY KEY (device, pos)
){norowid};

-- Messages for devices of other servers, as content of m.direct_to_device.
CREATE TABLE to_device_out (
  pos     {bigid} PRIMARY KEY,
  server  BIGINT NOT NULL,
  content {text} NOT NULL
);
CREATE INDEX to_device_out_server ON to_device_out (server, pos);

-- Messages that came from other servers, so that none is delivered twice.
CREATE TABLE to_device_seen (
  origin     BIGINT NOT NULL,
  message_id {text} NOT NULL,
  ts         BIGINT NOT NULL,               -- ms
  PRIMARY KEY (origin, message_id)
){norowid};
CREATE INDEX to_device_seen_ts ON to_device_seen (ts);
