package clientapi

import (
	"context"
	"math"
	"strconv"
	"time"

	"conclave/internal/limits"
	"conclave/internal/matrix"
)

// budgets are how often one account (or one block of addresses, before login) may call the routes of a class.
var budgets = map[Limit]limits.Budget{
	LimitRead:     {Every: 20 * time.Millisecond, Burst: 200},
	LimitSend:     {Every: 100 * time.Millisecond, Burst: 50},
	LimitChange:   {Every: 200 * time.Millisecond, Burst: 50},
	LimitLogin:    {Every: 6 * time.Second, Burst: 10},
	LimitRefresh:  {Every: time.Second, Burst: 30}, // by address: a whole office may be behind one
	LimitRegister: {Every: 6 * time.Second, Burst: 5},
	LimitMedia:    {Every: 100 * time.Millisecond, Burst: 60},
	LimitPreview:  {Every: time.Second, Burst: 40}, // each may be a request to somebody else's server
	LimitSearch:   {Every: time.Second, Burst: 20},
	LimitReport:   {Every: 10 * time.Second, Burst: 20},
}

// mayCall refuses (M_LIMIT_EXCEEDED) a caller that is too fast, and says when to come again.
func (s *Server) mayCall(r *Request) error {
	if r.unlimited() {
		return nil
	}
	who := limits.Block(s.address(r.Request()))
	if r.Session != nil {
		who = string(r.Session.UserID) // no address begins so
	}
	return s.spend(r.Ctx(), r.route.Limit, who)
}

// spend takes one request out of somebody's budget of a class.
func (s *Server) spend(ctx context.Context, class Limit, who string) error {
	budget, limited := budgets[class]
	if !limited {
		return nil
	}
	if wait := s.Limits.Spend(ctx, budget, strconv.Itoa(int(class))+" "+who); wait > 0 {
		return matrix.LimitExceeded(int64(math.Ceil(float64(wait) / float64(time.Millisecond))))
	}
	return nil
}
