package store

// verifyKeyRules are the invariants of second factors, keys, device lists, messages to devices and media. A message or a
// claimed key of a device that is gone is no finding: it can come while the device goes, and is cleared away later.
var verifyKeyRules = []verifyRule{
	{"positions", `SELECT 'a one-time key of device ' || CAST(k.device AS TEXT) || ' is ahead of the stream' FROM one_time_keys k WHERE k.pos > $1`, true},
	{"positions", `SELECT 'a signature by user ' || CAST(s.signer AS TEXT) || ' is ahead of the stream' FROM key_signatures s WHERE s.pos > $1`, true},
	{"positions", `SELECT 'a message for server ' || CAST(o.server AS TEXT) || ' is ahead of the stream' FROM to_device_out o WHERE o.pos > $1`, true},
	{"positions", `SELECT 'the devices of user ' || CAST(l.member AS TEXT) || ' are known since a time ahead of the stream' FROM remote_lists l WHERE l.since > $1`, true},
	{"numbers", `SELECT 'device ' || d.device_id || ' has a number that will be given out again' FROM devices d
		WHERE d.nid >= (SELECT coalesce(max(b.next), 0) FROM nid_blocks b WHERE b.kind = 5)`, false},
	{"keys", `SELECT 'the keys of device ' || CAST(k.device AS TEXT) || ' are those of no device of user ' || CAST(k.member AS TEXT) FROM device_keys k
		LEFT JOIN devices d ON d.nid = k.device AND d.member = k.member WHERE d.nid IS NULL`, false},
	{"keys", `SELECT 'the keys of device ' || CAST(k.device AS TEXT) || ' are no object' FROM device_keys k WHERE k.json NOT LIKE '{%}'`, false},
	{"keys", `SELECT 'a one-time key is of device ' || CAST(k.device AS TEXT) || ', which is not there' FROM one_time_keys k
		LEFT JOIN devices d ON d.nid = k.device WHERE d.nid IS NULL`, false},
	{"keys", `SELECT 'a fallback key is of device ' || CAST(k.device AS TEXT) || ', which is not there' FROM fallback_keys k
		LEFT JOIN devices d ON d.nid = k.device WHERE d.nid IS NULL`, false},
	{"keys", `SELECT 'device ' || d.device_id || ' is called like a key of its user' FROM devices d
		JOIN cross_signing_keys k ON k.member = d.member AND k.public = d.device_id`, false},
	{"cross-signing", `SELECT 'user ' || CAST(k.member AS TEXT) || ' has a key for ' || CAST(k.usage AS TEXT) || ' without a master key' FROM cross_signing_keys k
		LEFT JOIN cross_signing_keys m ON m.member = k.member AND m.usage = 1 WHERE m.member IS NULL OR k.usage NOT BETWEEN 1 AND 3`, false},
	{"cross-signing", `SELECT 'the cross-signing keys of user ' || CAST(k.member AS TEXT) || ' are nobody''s' FROM cross_signing_keys k
		LEFT JOIN users u ON u.nid = k.member WHERE u.nid IS NULL`, false},
	{"cross-signing", `SELECT 'a cross-signing key of user ' || CAST(k.member AS TEXT) || ' is not the one of its object' FROM cross_signing_keys k
		WHERE length(k.public) <> 43 OR k.json NOT LIKE '%"ed25519:' || k.public || '"%'`, false},
	{"cross-signing", `SELECT 'two cross-signing keys of user ' || CAST(k.member AS TEXT) || ' are one' FROM cross_signing_keys k
		JOIN cross_signing_keys o ON o.member = k.member AND o.public = k.public AND o.usage > k.usage`, false},
	{"signatures", `SELECT 'a signature of user ' || CAST(s.signer AS TEXT) || ' is on a key of user ' || CAST(s.member AS TEXT) || ' that is not there' FROM key_signatures s
		JOIN accounts a ON a.member = s.member WHERE NOT EXISTS (SELECT 1 FROM devices d JOIN device_keys k ON k.device = d.nid WHERE d.member = s.member AND d.device_id = s.target)
		AND NOT EXISTS (SELECT 1 FROM cross_signing_keys c WHERE c.member = s.member AND c.usage = 1 AND c.public = s.target)`, false},
	{"signatures", `SELECT 'a signature on a key of user ' || CAST(s.member AS TEXT) || ' is by nobody of ours' FROM key_signatures s
		LEFT JOIN accounts a ON a.member = s.signer LEFT JOIN users u ON u.nid = s.member
		WHERE a.member IS NULL OR u.nid IS NULL OR s.key_id NOT LIKE 'ed25519:%' OR s.signature = ''`, false},
	{"second factors", `SELECT 'the account of user ' || CAST(a.member AS TEXT) || ' is wrong about whether it has a second factor' FROM accounts a
		WHERE (a.second_factor <> 0) <> (EXISTS (SELECT 1 FROM totp_seeds t WHERE t.member = a.member) OR EXISTS (SELECT 1 FROM passkeys p WHERE p.member = a.member))`, false},
	{"second factors", `SELECT 'a recovery code is of user ' || CAST(c.member AS TEXT) || ', who has no second factor' FROM recovery_codes c
		LEFT JOIN accounts a ON a.member = c.member WHERE a.member IS NULL OR a.second_factor = 0`, false},
	{"device lists", `SELECT 'a change of devices at ' || CAST(c.pos AS TEXT) || ' is of nobody, or of nothing' FROM device_list_changes c
		LEFT JOIN users u ON u.nid = c.member WHERE u.nid IS NULL OR c.what NOT BETWEEN 0 AND 2 OR (c.what = 1) <> (c.device_id <> '')`, false},
	{"device lists", `SELECT 'the devices of user ' || CAST(l.member AS TEXT) || ' are followed, who is ours or nobody' FROM remote_lists l
		LEFT JOIN users u ON u.nid = l.member LEFT JOIN accounts a ON a.member = l.member WHERE u.nid IS NULL OR a.member IS NOT NULL`, false},
	{"device lists", `SELECT 'the list of user ' || CAST(l.member AS TEXT) || ' counts as whole although newer was heard of' FROM remote_lists l
		WHERE NOT l.stale AND l.wanted > l.stream_id OR l.stream_id < 0`, false},
	{"device lists", `SELECT 'device ' || d.device_id || ' of user ' || CAST(d.member AS TEXT) || ' is in no list that is followed' FROM remote_devices d
		LEFT JOIN remote_lists l ON l.member = d.member WHERE l.member IS NULL`, false},
	{"device lists", `SELECT 'device ' || d.device_id || ' of user ' || CAST(d.member AS TEXT) || ' has no object for its keys' FROM remote_devices d WHERE d.json NOT LIKE '{%}'`, false},
	{"messages", `SELECT 'a message to device ' || CAST(d.device AS TEXT) || ' is no event' FROM to_device d WHERE d.event NOT LIKE '{%}' OR d.pos < 1`, false},
	{"messages", `SELECT 'a message is for server ' || CAST(o.server AS TEXT) || ', which is not known' FROM to_device_out o
		LEFT JOIN servers s ON s.nid = o.server WHERE s.nid IS NULL`, false},
	{"messages", `SELECT 'a message for server ' || CAST(o.server AS TEXT) || ' has no content' FROM to_device_out o WHERE o.content NOT LIKE '{%}'`, false},
	{"messages", `SELECT 'a message came from server ' || CAST(m.origin AS TEXT) || ', which is not known' FROM to_device_seen m
		LEFT JOIN servers s ON s.nid = m.origin WHERE s.nid IS NULL`, false},
	{"positions", `SELECT 'key backup ' || CAST(b.version AS TEXT) || ' of user ' || CAST(b.member AS TEXT) || ' is ahead of the stream'
		FROM key_backups b WHERE {greatest}(b.version, b.etag) > $1`, true},
	{"backups", `SELECT 'key backup ' || CAST(b.version AS TEXT) || ' of user ' || CAST(b.member AS TEXT) || ' does not count its sessions rightly'
		FROM key_backups b WHERE NOT b.deleted AND b.count <> (SELECT count(*) FROM backup_sessions s WHERE s.member = b.member AND s.version = b.version)`, false},
	{"backups", `SELECT DISTINCT 'sessions of user ' || CAST(s.member AS TEXT) || ' are in key backup ' || CAST(s.version AS TEXT) || ', which is not there'
		FROM backup_sessions s LEFT JOIN key_backups b ON b.member = s.member AND b.version = s.version AND (NOT b.deleted OR b.count > 0) WHERE b.member IS NULL`, false},
	{"backups", `SELECT 'key backup ' || CAST(b.version AS TEXT) || ' of user ' || CAST(b.member AS TEXT) || ' is nobody''s, or has no auth_data, or keeps it after its end'
		FROM key_backups b LEFT JOIN accounts a ON a.member = b.member AND (NOT a.deactivated OR b.deleted)
		WHERE a.member IS NULL OR (NOT b.deleted AND b.auth_data NOT LIKE '{%}') OR (b.deleted AND b.auth_data <> '')`, false},
	{"backups", `SELECT 'session ' || s.session_id || ' in key backup ' || CAST(s.version AS TEXT) || ' of user ' || CAST(s.member AS TEXT) || ' has no data'
		FROM backup_sessions s WHERE s.data NOT LIKE '{%}' OR s.first_index < 0 OR s.forwarded < 0`, false},
	{"keys", `SELECT 'the dehydrated device of user ' || CAST(h.member AS TEXT) || ' is not there, or has no keys, or somebody is logged in on it' FROM dehydrated_devices h
		LEFT JOIN devices d ON d.nid = h.device AND d.member = h.member LEFT JOIN device_keys k ON k.device = d.nid
		WHERE k.device IS NULL OR EXISTS (SELECT 1 FROM access_tokens t WHERE t.device = h.device)`, false},
	{"media", `SELECT 'media ' || m.media_id || ' of ' || m.origin || ' is neither there nor waited for' FROM media m
		WHERE (m.file = '') <> (m.expires > 0) OR m.size < 0 OR length(m.hash) <> 32`, false},
	{"media", `SELECT 'a small image is of media ' || t.media_id || ' of ' || t.origin || ', which is not there' FROM thumbnails t
		LEFT JOIN media m ON m.origin = t.origin AND m.media_id = t.media_id AND m.file <> '' WHERE m.media_id IS NULL`, false},
	{"media", `SELECT 'a small image of media ' || t.media_id || ' of ' || t.origin || ' has no hash or size' FROM thumbnails t WHERE length(t.hash) <> 32 OR t.size < 0`, false},
	{"media", `SELECT 'file ' || f.file || ' belongs to several' FROM (SELECT file FROM media UNION ALL SELECT file FROM thumbnails UNION ALL SELECT file FROM media_uploads
			UNION ALL SELECT file FROM exports UNION ALL SELECT file FROM export_parts) f
		WHERE f.file <> '' GROUP BY f.file HAVING count(*) > 1`, false},
	{"media", `SELECT 'the files of user ' || CAST(x.member AS TEXT) || ' are not counted as they are' FROM (
		SELECT coalesce(u.member, m.member) AS member, coalesce(u.files, 0) AS uf, coalesce(u.bytes, 0) AS ub, coalesce(m.files, 0) AS mf, coalesce(m.bytes, 0) AS mb
		FROM media_use u FULL JOIN (SELECT member, count(*) AS files, sum(size) AS bytes FROM media WHERE member > 0 AND file <> '' GROUP BY member) m
		ON m.member = u.member) x WHERE x.uf <> x.mf OR x.ub <> x.mb`, false},
	{"media", `SELECT 'upload ' || u.media_id || ' has more than is expected of it, or no place for it' FROM media_uploads u
		WHERE u.received NOT BETWEEN 0 AND u.length OR u.file = '' OR length(u.sum) = 0`, false},
	{"media", `SELECT 'upload ' || u.media_id || ' is there as a content already' FROM media_uploads u JOIN media m ON m.media_id = u.media_id AND m.member = u.member`, false},
	{"media", `SELECT 'a piece is of upload ' || p.media_id || ', which is not there' FROM media_pieces p
		LEFT JOIN media_uploads u ON u.media_id = p.media_id WHERE u.media_id IS NULL`, false},
}
