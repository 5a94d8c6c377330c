package keys

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of messages to devices.
const (
	maxRecipients = 1000     // devices that one request names
	maxMessage    = 64 << 10 // bytes of one message's content
	maxEDU        = 60 << 10 // bytes of messages that share an EDU, unless one alone is larger
	maxPrevIDs    = 100
	everyDevice   = "*"
)

// Messages are contents of messages by user and device; the device "*" is every device of the user.
type Messages map[matrix.UserID]map[matrix.DeviceID]json.RawMessage

// check bounds messages and refuses what could not be passed on.
func (m Messages) check() error {
	n := 0
	for user, devices := range m {
		if _, err := matrix.ParseUserID(string(user)); err != nil {
			return matrix.InvalidParam("%.255q is not a user ID.", user).With(err)
		}
		for device, content := range devices {
			if n++; n > maxRecipients {
				return matrix.TooLarge("A request has messages for at most %d devices.", maxRecipients)
			}
			if len(device) > maxName || len(content) > maxMessage {
				return matrix.TooLarge("A message has at most %d bytes.", maxMessage)
			}
			if err := matrix.CheckJSON(content, matrix.Limits{CanonicalNumbers: true}); err != nil || content[0] != '{' {
				return matrix.BadJSON("The content of a message is an object without floats.").With(err)
			}
		}
	}
	return nil
}

// event is a message as /sync shows it.
func event(sender matrix.UserID, typ string, content []byte) string {
	out := append([]byte(`{"content":`), content...)
	out = matrix.AppendString(append(out, `,"sender":`...), string(sender))
	out = matrix.AppendString(append(out, `,"type":`...), typ)
	return string(append(out, '}'))
}

// SendToDevice queues messages of a type for devices here and elsewhere. A transaction that is repeated changes nothing.
func (k *Keys) SendToDevice(ctx context.Context, sender matrix.UserID, txn store.TxnKey, typ string, messages Messages) error {
	if err := messages.check(); err != nil {
		return err
	}
	local, remote := Messages{}, map[matrix.ServerName]Messages{}
	for user, devices := range messages {
		server := user.Server()
		switch {
		case k.o.IsOurs(server):
			local[user] = devices
		case k.o.Remote != nil:
			if remote[server] == nil {
				remote[server] = Messages{}
			}
			remote[server][user] = devices
		}
	}
	outgoing, err := k.outgoing(ctx, sender, typ, remote)
	if err != nil {
		return err
	}
	return k.o.DB.Write(ctx, func(tx *store.Tx) error {
		fresh, err := tx.StartTxn(store.Txn{Key: txn, Answer: `{}`}, k.now())
		if err != nil || !fresh {
			return err
		}
		return k.queue(tx, sender, typ, local, outgoing)
	})
}

// queue writes messages: rows for devices here, one per EDU for other servers, and one change per recipient. However
// many there are, it is a handful of statements.
func (k *Keys) queue(tx *store.Tx, sender matrix.UserID, typ string, local Messages, outgoing []store.OutgoingMessage) error {
	rows, users, err := resolve(tx, sender, typ, local)
	if err != nil || len(rows)+len(outgoing) == 0 {
		return err
	}
	pos, err := tx.NextPos(max(1, len(outgoing)))
	if err != nil {
		return err
	}
	for i := range outgoing {
		outgoing[i].Pos = pos + store.Pos(i)
	}
	changes := make([]store.Change, len(users))
	for i, user := range users {
		changes[i] = store.Change{Pos: pos, Kind: store.ChangeToDevice, User: user}
	}
	tx.AfterCommit(k.wake)
	if err := tx.AddDeviceMessages(pos, rows); err != nil {
		return err
	}
	if err := tx.AddOutgoingMessages(outgoing); err != nil {
		return err
	}
	return tx.AddChanges(changes)
}

// resolve finds the devices that messages are for. Unknown ones, and those of closed accounts, get nothing.
func resolve(tx *store.Tx, sender matrix.UserID, typ string, local Messages) (rows []store.DeviceMessage, users []store.UserNID, err error) {
	if len(local) == 0 {
		return nil, nil, nil
	}
	seen := map[store.UserNID]bool{}
	err = tx.LocalDevices(slices.Collect(maps.Keys(local)), func(d store.LocalDevice) {
		content, named := local[d.UserID][d.ID]
		if !named {
			content, named = local[d.UserID][everyDevice]
		}
		if !named {
			return
		}
		rows = append(rows, store.DeviceMessage{Device: d.NID, Event: event(sender, typ, content)})
		if !seen[d.User] {
			seen[d.User] = true
			users = append(users, d.User)
		}
	})
	return rows, users, err
}

// outgoing packs messages for other servers into EDUs of bounded size.
func (k *Keys) outgoing(ctx context.Context, sender matrix.UserID, typ string, remote map[matrix.ServerName]Messages) ([]store.OutgoingMessage, error) {
	var list []store.OutgoingMessage
	for name, messages := range remote {
		server, err := k.o.DB.Server(ctx, name)
		if err != nil {
			return nil, err
		}
		for part := range split(messages) {
			content, err := json.Marshal(directToDevice{Sender: sender, Type: typ, ID: newMessageID(), Messages: part})
			if err != nil {
				return nil, err
			}
			list = append(list, store.OutgoingMessage{Server: server, Content: string(content)})
		}
	}
	return list, nil
}

// split yields messages in parts of a bounded size.
func split(messages Messages) func(yield func(Messages) bool) {
	return func(yield func(Messages) bool) {
		part, size := Messages{}, 0
		for user, devices := range messages {
			for device, content := range devices {
				if size > 0 && size+len(content) > maxEDU {
					if !yield(part) {
						return
					}
					part, size = Messages{}, 0
				}
				if part[user] == nil {
					part[user] = map[matrix.DeviceID]json.RawMessage{}
				}
				part[user][device] = content
				size += len(content) + len(user) + len(device)
			}
		}
		if size > 0 {
			yield(part)
		}
	}
}

// directToDevice is the content of m.direct_to_device (server-server API, "Send-to-device messaging").
type directToDevice struct {
	Sender   matrix.UserID `json:"sender"`
	Type     string        `json:"type"`
	ID       string        `json:"message_id"`
	Messages Messages      `json:"messages"`
}

// newMessageID is unique, and within the 32 characters that the spec allows.
func newMessageID() string {
	var random [18]byte
	rand.Read(random[:])
	return base64.RawURLEncoding.EncodeToString(random[:])
}

// ReceiveToDevice takes an m.direct_to_device of another server: once, by a user of that server, for devices of ours.
func (k *Keys) ReceiveToDevice(ctx context.Context, origin matrix.ServerName, content []byte) error {
	var in directToDevice
	if err := matrix.Decode(content, &in); err != nil {
		return err
	}
	if _, err := matrix.ParseUserID(string(in.Sender)); err != nil || !in.Sender.Compliant() || in.Sender.Server() != origin {
		return matrix.Forbidden("The sender %.255q is not a user of %s.", in.Sender, origin)
	}
	if in.Type == "" || len(in.Type) > maxName || in.ID == "" || len(in.ID) > maxName || !matrix.IsText(in.ID) {
		return matrix.InvalidParam("type and message_id are text of 1 to %d bytes.", maxName)
	}
	if err := in.Messages.check(); err != nil {
		return err
	}
	maps.DeleteFunc(in.Messages, func(user matrix.UserID, _ map[matrix.DeviceID]json.RawMessage) bool {
		return !k.o.IsOurs(user.Server())
	})
	server, err := k.o.DB.Server(ctx, origin)
	if err != nil {
		return err
	}
	return k.o.DB.Write(ctx, func(tx *store.Tx) error {
		fresh, err := tx.SeeMessage(server, in.ID, k.now())
		if err != nil || !fresh {
			return err
		}
		return k.queue(tx, in.Sender, in.Type, in.Messages, nil)
	})
}

// ToDevice reads waiting messages of a device after one position and up to another, oldest first, at most limit; last is
// the position of the last one read, upTo if there were no more.
func (k *Keys) ToDevice(ctx context.Context, device int64, after, upTo store.Pos, limit int) (events []json.RawMessage, last store.Pos, err error) {
	err = k.o.DB.Read(ctx, func(tx *store.Tx) error {
		events, last = nil, upTo
		n := 0
		var newest store.Pos
		return tx.DeviceMessages(device, after, upTo, limit+1, func(pos store.Pos, event []byte) {
			if n++; n > limit {
				last = newest
				return
			}
			events, newest = append(events, event), pos
		})
	})
	return events, last, err
}

// Delivered removes the messages of a device up to a position: its client has shown that it has them.
func (k *Keys) Delivered(ctx context.Context, device int64, upTo store.Pos) error {
	var some bool
	err := k.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
		some, err = tx.HasDeviceMessages(device, upTo)
		return err
	})
	if err != nil || !some {
		return err
	}
	return k.o.DB.Write(ctx, func(tx *store.Tx) error { return tx.DeleteDeviceMessages(device, upTo) })
}

// OutgoingToDevice reads messages for a server after one position and up to another, in order, at most limit; last is
// the position of the last one read, upTo if there were no more.
func (k *Keys) OutgoingToDevice(ctx context.Context, server store.ServerNID, after, upTo store.Pos, limit int) (edus []EDU, last store.Pos, err error) {
	err = k.o.DB.Read(ctx, func(tx *store.Tx) error {
		edus, last = nil, upTo
		var newest store.Pos
		n := 0
		return tx.OutgoingMessages(server, after, upTo, limit+1, func(pos store.Pos, content []byte) {
			if n++; n > limit {
				last = newest
				return
			}
			edus, newest = append(edus, EDU{"m.direct_to_device", content}), pos
		})
	})
	return edus, last, err
}

// SentToDevice removes what a server has got.
func (k *Keys) SentToDevice(ctx context.Context, server store.ServerNID, upTo store.Pos) error {
	return k.o.DB.Write(ctx, func(tx *store.Tx) error { return tx.DeleteOutgoingMessages(server, upTo) })
}
