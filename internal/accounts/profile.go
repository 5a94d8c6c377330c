package accounts

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The profile fields that member events repeat.
const (
	DisplayName = "displayname"
	AvatarURL   = "avatar_url"
)

// Bounds of a profile (client-server API, "Profiles").
const (
	maxProfile      = 64 << 10 // bytes of the whole
	maxProfileField = 255      // bytes of a field's name
)

// Profile is a user's profile: values by field.
type Profile map[string]json.RawMessage

// Text is a field's value if it is text, else "".
func (p Profile) Text(field string) string {
	var text string
	if json.Unmarshal(p[field], &text) != nil {
		return ""
	}
	return text
}

// Find finds the account of a user of ours (M_NOT_FOUND), which an application service may make now.
func (a *Accounts) Find(ctx context.Context, id matrix.UserID) (*store.Account, error) {
	account, err := a.find(ctx, string(id))
	if err == nil && account == nil {
		var made bool
		if made, err = a.provide(ctx, id); made {
			account, err = a.find(ctx, string(id))
		}
	}
	if err == nil && (account == nil || account.Deactivated) {
		err = matrix.NotFound("There is no user %s.", id)
	}
	return account, err
}

// Profile reads a user's profile.
func (a *Accounts) Profile(ctx context.Context, user store.UserNID) (Profile, error) {
	var raw string
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		raw, err = tx.Profile(user)
		return err
	})
	if err != nil {
		return nil, err
	}
	return parseProfile(raw)
}

func parseProfile(raw string) (Profile, error) {
	p := Profile{}
	if raw == "" {
		return p, nil
	}
	return p, json.Unmarshal([]byte(raw), &p)
}

// SetProfile sets a field of a user's profile, or removes it if value is nil. It reports whether that changed anything.
func (a *Accounts) SetProfile(ctx context.Context, user store.UserNID, field string, value json.RawMessage) (changed bool, err error) {
	if field == "" || len(field) > maxProfileField {
		return false, matrix.Errorf(400, "M_KEY_TOO_LARGE", "A profile field's name has 1 to %d bytes.", maxProfileField)
	}
	if value != nil && !matrix.IsNamespaced(field) {
		return false, matrix.Errorf(400, "M_INVALID_PARAM", "A profile field's name is of a-z, 0-9, -, _ and dots, and begins with a letter.")
	}
	if value != nil {
		if value, err = matrix.CanonicalJSON(value); err != nil {
			return false, matrix.BadJSON("The value is not usable.").With(err)
		}
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		changed = false
		if err := tx.StillOpen(user); err != nil { // and of two fields that are set at the same time none is lost
			return err
		}
		raw, err := tx.Profile(user)
		if err != nil {
			return err
		}
		p, err := parseProfile(raw)
		if err != nil {
			return err
		}
		if string(p[field]) == string(value) {
			return nil
		}
		changed = true
		if value == nil {
			delete(p, field)
		} else {
			p[field] = value
		}
		text, err := matrix.Encode(p)
		if err != nil {
			return err
		}
		if len(text) > maxProfile {
			return matrix.Errorf(400, "M_PROFILE_TOO_LARGE", "A profile has at most %d bytes.", maxProfile)
		}
		if err := tx.SetProfile(user, string(text)); err != nil {
			return err
		}
		_, err = tx.AddChange(store.ChangeProfile, 0, user)
		return err
	})
	return changed, err
}
