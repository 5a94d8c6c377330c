package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How invitations to an address are taken up that a user of ours has bound. A server that cannot be reached is tried
// again, and given up after claimTries rounds: some 17 hours.
const (
	claimLook   = 10 * time.Second
	claimLease  = 2 * time.Minute // longer than claimTime; after a crash nobody goes on before its end
	claimTime   = 90 * time.Second
	claimAgain  = time.Minute // before the second try, doubling
	claimTries  = 10
	claimsAtime = 4
	maxClaims   = 5000 // that wait: whoever asks for them proves nothing
)

// claimPlan is what a claim's job has to know.
type claimPlan struct {
	Claim Claim
	Tries int
}

func (c *Claim) key() string { return string(c.Room) + " " + string(c.User) + " " + c.Token }

// Bound notes that a user of ours has bound an address, and the invitations that were made to it. They are taken up in
// the background.
func (r *Rooms) Bound(ctx context.Context, user matrix.UserID, claims []Claim) error {
	if !r.own.IsOurs(user.Server()) {
		return matrix.NotFound("%s is not a user of this server.", user)
	}
	if err := r.requireAccount(ctx, user); err != nil {
		return err
	}
	now := r.now().UnixMilli()
	err := r.db.Write(ctx, func(tx *store.Tx) error {
		waiting, err := tx.CountJobs(store.JobClaim, maxClaims)
		if err != nil {
			return err
		}
		if waiting+len(claims) > maxClaims {
			return matrix.LimitExceeded(time.Minute.Milliseconds())
		}
		for _, c := range claims {
			cursor, err := json.Marshal(claimPlan{Claim: c})
			if err != nil {
				return fmt.Errorf("noting a claim: %w", err)
			}
			if err := tx.NoteJob(store.Job{Kind: store.JobClaim, Key: c.key(), Cursor: string(cursor)}, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		select {
		case r.claimed <- struct{}{}:
		default: // somebody is about to look
		}
	}
	return err
}

// RunClaims takes up the invitations to addresses that users of ours have bound. It ends with ctx.
func (r *Rooms) RunClaims(ctx context.Context) error {
	look := time.NewTicker(claimLook)
	defer look.Stop()
	places := make(chan struct{}, claimsAtime)
	for {
		if err := r.claimsDue(ctx, places); err != nil && ctx.Err() == nil {
			r.log.Error("taking up invitations to addresses failed", "err", err)
		}
		select {
		case <-r.claimed:
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// claimsDue takes up the claims that are due, waiting for a place where all are taken.
func (r *Rooms) claimsDue(ctx context.Context, places chan struct{}) error {
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		job, err := r.nextClaim(ctx)
		if err != nil || job == nil {
			<-places
			return err
		}
		r.abroad.Go("claim", func(ctx context.Context) error {
			defer func() { <-places }()
			if err := r.takeUpClaim(ctx, *job); err != nil && ctx.Err() == nil {
				r.log.Error("taking up an invitation to an address failed", "err", err)
			}
			return nil
		})
	}
}

// nextClaim leases a claim that is due, nil if there is none.
func (r *Rooms) nextClaim(ctx context.Context) (job *store.Job, err error) {
	now := r.now().UnixMilli()
	due := false
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		due, err = tx.JobDue(store.JobClaim, now)
		return err
	})
	if err != nil || !due {
		return nil, err
	}
	err = r.db.Write(ctx, func(tx *store.Tx) (err error) {
		job, err = tx.LeaseJob(store.JobClaim, now, claimLease.Milliseconds())
		return err
	})
	return job, err
}

// takeUpClaim tries a claim once, and ends its job unless a later try may have success.
func (r *Rooms) takeUpClaim(ctx context.Context, job store.Job) error {
	plan := claimPlan{}
	if err := json.Unmarshal([]byte(job.Cursor), &plan); err != nil {
		return fmt.Errorf("reading the job of a claim: %w", err)
	}
	err := r.claim(ctx, plan.Claim)
	if ctx.Err() != nil {
		return ctx.Err() // the lease ends, and somebody takes it up again
	}
	if err != nil {
		r.log.Info("an invitation to an address could not be taken up", "room", plan.Claim.Room, "server", plan.Claim.Sender.Server(), "err", err)
	}
	if plan.Tries++; err != nil && mayPass(err) && plan.Tries < claimTries {
		cursor, err := json.Marshal(plan)
		if err != nil {
			return fmt.Errorf("noting a claim: %w", err)
		}
		job.Cursor = string(cursor)
		_, err = r.saveJob(ctx, job, r.now().Add(claimAgain<<(plan.Tries-1)), 0)
		return err
	}
	return r.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.EndJob(job)
		return err
	})
}

// claim turns an invitation to an address of a user of ours into one of the user: here if we are in the room, or through
// the server of who made it.
func (r *Rooms) claim(ctx context.Context, c Claim) error {
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	ref, here, err := r.whereabouts(ctx, c.Room)
	if err != nil {
		return err
	}
	if here {
		err := r.redeem(ctx, *ref, c)
		if !errors.Is(err, errNoOffer) || r.own.IsOurs(c.Sender.Server()) {
			return err
		} // it may be on its way here, and is known to who made it
	}
	if r.own.IsOurs(c.Sender.Server()) {
		return matrix.NotFound("This server is not in the room.")
	}
	if r.source == nil {
		return errNoFederation()
	}
	template, err := matrix.Encode(map[string]any{
		"type": "m.room.member", "room_id": c.Room, "sender": c.Sender, "state_key": c.User,
		"content": map[string]any{"membership": "invite", "third_party_invite": map[string]any{
			// The service does not tell us how it calls the address, and the address is nobody's business. The other
			// server knows, and we name the user instead.
			"display_name": c.User.Localpart(), "signed": c.Signed,
		}},
	})
	if err != nil {
		return err
	}
	return r.source.ExchangeThirdPartyInvite(ctx, c.Sender.Server(), c.Room, template)
}

// present takes up an invitation to an address that a user shows together with the wish to join, unless the user may
// join already.
func (r *Rooms) present(ctx context.Context, q *JoinRequest) error {
	sender, _ := matrix.GetString(q.Signed, "sender")
	c, err := NewClaim(string(q.Room), sender, string(q.User.ID), q.Signed)
	if err != nil {
		return err
	}
	ref, here, err := r.whereabouts(ctx, q.Room)
	if err != nil {
		return err
	}
	if here {
		stands, err := r.membershipOf(ctx, ref.NID, q.User.ID)
		if err != nil || stands == store.Join || stands == store.Invite {
			return err
		}
	} else {
		q.Via = append([]matrix.ServerName{c.Sender.Server()}, q.Via...)
	}
	err = r.claim(ctx, c)
	if err == nil || here || ctx.Err() != nil {
		return err
	}
	return toClient(err, c.Sender.Server())
}

// mayPass says whether what went wrong may be otherwise later: no answer, trouble inside a server, too many requests.
func mayPass(err error) bool {
	var remote interface{ Retryable() bool }
	if errors.As(err, &remote) {
		return remote.Retryable()
	}
	var refused *matrix.Error
	if errors.As(err, &refused) {
		return refused.Status >= http.StatusInternalServerError || refused.Status == http.StatusTooManyRequests
	}
	return true
}
