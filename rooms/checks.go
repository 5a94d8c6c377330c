package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// checkState refuses state that the auth rules would let pass and that would yet harm the room: aliases that do not
// lead to it, and access lists that shut our own server out.
func (r *Rooms) checkState(ctx context.Context, req SendRequest) error {
	switch req.Type {
	case "m.room.canonical_alias":
		return r.checkAliases(ctx, req)
	case "m.room.power_levels":
		if *req.StateKey == "" {
			return checkLevels(req.Content)
		}
	case "m.room.server_acl":
		if *req.StateKey == "" && !matrix.ParseServerACL(req.Content).Allowed(r.own.Name) {
			return matrix.Forbidden("This access list would shut your own server out of the room.")
		}
	}
	return nil
}

// checkLevels refuses power levels that are no integers, in versions too whose rules let them pass.
func checkLevels(content []byte) error {
	if _, err := matrix.ParsePowerLevels(content, matrix.LastRoomVersion); err != nil {
		return matrix.BadJSON("Power levels are integers.").With(err)
	}
	return nil
}

// maxForeignAliases bounds how many aliases of other servers are asked for because of one event.
const maxForeignAliases = 10

// checkAliases refuses a canonical alias that is none (M_INVALID_PARAM) or that does not lead to the room (M_BAD_ALIAS), unless it
// stood there already.
func (r *Rooms) checkAliases(ctx context.Context, req SendRequest) error {
	had := map[string]bool{}
	state, err := r.CurrentState(ctx, req.Room.NID)
	if err != nil {
		return err
	}
	row, err := r.StateEvent(ctx, req.Room.NID, state, req.Type, *req.StateKey)
	if err != nil {
		return err
	}
	if row != nil {
		before, _ := aliasesOf(row.Event.Content()) // what cannot be read had none
		for _, alias := range before {
			had[alias] = true
		}
	}
	names, err := aliasesOf(req.Content)
	if err != nil {
		return err
	}
	foreign := 0
	for _, name := range names {
		if had[name] {
			continue
		}
		alias, err := matrix.ParseAlias(name)
		if err != nil {
			return matrix.InvalidParam("%.64q is not an alias.", name).With(err)
		}
		resolve := r.ResolveAlias
		if !r.own.IsOurs(alias.Server()) {
			if foreign++; req.Resolve == nil || foreign > maxForeignAliases {
				return matrix.Errorf(400, "M_BAD_ALIAS", "The server of %s cannot be asked for it.", alias)
			}
			resolve = req.Resolve
		}
		if room, err := resolve(ctx, alias); err != nil || room != req.Room.ID {
			return matrix.Errorf(400, "M_BAD_ALIAS", "%s does not lead to this room.", alias).With(err)
		}
		had[name] = true
	}
	return nil
}

// canonicalAlias is the content of m.room.canonical_alias.
type canonicalAlias struct {
	Alias string   `json:"alias,omitempty"`
	Alt   []string `json:"alt_aliases,omitempty"`
}

// aliasesOf are the aliases that the content of m.room.canonical_alias names; M_BAD_JSON if they are no texts.
func aliasesOf(content []byte) ([]string, error) {
	var body canonicalAlias
	if err := matrix.Decode(content, &body); err != nil {
		return nil, err
	}
	if body.Alias != "" {
		body.Alt = append(body.Alt, body.Alias)
	}
	return body.Alt, nil
}

// ResolveAlias finds the room of an alias of ours (M_NOT_FOUND).
func (r *Rooms) ResolveAlias(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, error) {
	var nid store.RoomNID
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		nid, _, err = tx.Alias(alias)
		return err
	})
	if err == nil && nid == 0 {
		nid, err = r.provideAlias(ctx, alias)
	}
	if err != nil {
		return "", err
	}
	if nid == 0 {
		return "", matrix.NotFound("There is no alias %s.", alias)
	}
	ref, err := r.LookupNID(ctx, nid)
	return ref.ID, err
}

// Servers are the servers with somebody in a room, longest-standing first.
func (r *Rooms) Servers(ctx context.Context, room store.RoomNID) (names []matrix.ServerName, err error) {
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		names, err = tx.ServersIn(room)
		return err
	})
	return names, err
}

// AddAlias gives a room an alias of ours (M_UNKNOWN if it is taken). Who is in the room may.
func (r *Rooms) AddAlias(ctx context.Context, alias matrix.RoomAlias, ref Ref, user Sender) error {
	if err := r.RequireJoined(ctx, ref.NID, user.NID); err != nil {
		return err
	}
	return r.db.Write(ctx, func(tx *store.Tx) error {
		made, err := tx.AddAlias(alias, ref.NID, user.NID)
		if err == nil && !made {
			err = matrix.Errorf(409, "M_UNKNOWN", "The alias %s is taken.", alias)
		}
		return err
	})
}

// RemoveAlias takes an alias of ours away: its maker may, and whoever may change the room's canonical alias.
func (r *Rooms) RemoveAlias(ctx context.Context, alias matrix.RoomAlias, user Sender, admin bool) error {
	var room store.RoomNID
	var creator store.UserNID
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		room, creator, err = tx.Alias(alias)
		return err
	})
	if err != nil {
		return err
	}
	if room == 0 {
		return matrix.NotFound("There is no alias %s.", alias)
	}
	if creator != user.NID && !admin {
		if err := r.requirePower(ctx, room, user, "m.room.canonical_alias"); err != nil {
			return err
		}
	}
	return r.db.Write(ctx, func(tx *store.Tx) error { return tx.RemoveAlias(alias) })
}

// Aliases are the aliases of ours of a room.
func (r *Rooms) Aliases(ctx context.Context, room store.RoomNID) (aliases []matrix.RoomAlias, err error) {
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		aliases, err = tx.AliasesOf(room)
		return err
	})
	return aliases, err
}

// SetPublic lists a room in the directory or takes it out, for whoever may change its canonical alias.
func (r *Rooms) SetPublic(ctx context.Context, ref Ref, user Sender, public bool) error {
	if err := r.requirePower(ctx, ref.NID, user, "m.room.canonical_alias"); err != nil {
		return err
	}
	return r.db.Write(ctx, func(tx *store.Tx) error {
		tx.AfterCommit(r.directory.forget)
		return tx.SetPublic(ref.NID, public)
	})
}

// requirePower refuses (M_FORBIDDEN) who is not in the room or may not send a type of state there.
func (r *Rooms) requirePower(ctx context.Context, room store.RoomNID, user Sender, typ string) error {
	if err := r.RequireJoined(ctx, room, user.NID); err != nil {
		return err
	}
	ref, err := r.LookupNID(ctx, room)
	if err != nil {
		return err
	}
	state, err := r.CurrentState(ctx, room)
	if err != nil {
		return err
	}
	levels, err := r.levelsAt(ctx, ref, state)
	if err == nil && levels.UserLevel(user.ID) < levels.EventLevel(typ, true) {
		err = matrix.Forbidden("You need more power in the room for that.")
	}
	return err
}
