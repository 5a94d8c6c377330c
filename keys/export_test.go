package keys

import "context"

// Tidy is one round of dropping what nobody fetches.
func (k *Keys) Tidy(ctx context.Context) error { return k.tidy(ctx) }

// ClearBackups is one round of clearing deleted backups away.
func (k *Keys) ClearBackups(ctx context.Context) error { return k.clearBackups(ctx) }
