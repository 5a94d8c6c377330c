package authrules

import (
	"fmt"

	"conclave/internal/matrix"
)

// rule numbers a rule on membership. Version 8 put one before those of each membership.
func (c *check) rule(membership int, rest string) string {
	if c.v.RestrictedJoins() {
		membership++
	}
	return fmt.Sprintf("%d.%d%s", c.n.member, membership, rest)
}

// member is the rule on m.room.member.
func (c *check) member() error {
	key, ok := c.e.StateKey()
	membership, ok2 := matrix.GetString(c.e.Content(), "membership")
	if !ok || !ok2 {
		return refuse(fmt.Sprintf("%d.1", c.n.member), "a member event has a state key and a membership")
	}
	target := matrix.UserID(key)
	if _, err := matrix.ParseUserID(key); err != nil {
		return refuse(fmt.Sprintf("%d.1", c.n.member), "the state key of a member event is a user ID")
	}
	switch membership {
	case "join":
		return c.join(target)
	case "invite":
		return c.invite(target)
	case "leave":
		return c.leave(target)
	case "ban":
		return c.ban(target)
	case "knock":
		if c.v.Knocking() {
			return c.knock(target)
		}
	}
	unknown := 6
	if c.v.Knocking() {
		unknown = 7
	}
	return refuse(c.rule(unknown, ""), "there is no membership %.64q", membership)
}

func (c *check) joinRule() string {
	if ev := c.state.Get("m.room.join_rules", ""); ev != nil {
		return matrix.ParseJoinRule(ev.Content()).Rule
	}
	return "invite"
}

func (c *check) join(target matrix.UserID) error {
	prev := c.e.PrevEvents()
	if len(prev) == 1 && prev[0] == c.create.ID() && target == matrix.Creators(c.create)[0] {
		return nil
	}
	if c.e.Sender() != target {
		return refuse(c.rule(2, ".2"), "people join by themselves")
	}
	has := c.membership(target)
	if has == "ban" {
		return refuse(c.rule(2, ".3"), "you are banned from this room")
	}
	in := has == "invite" || has == "join"
	switch rule := c.joinRule(); {
	case rule == "public":
		return nil
	case rule == "invite", rule == "knock" && c.v.Knocking():
		if in {
			return nil
		}
		return refuse(c.rule(2, ".4"), "you need an invitation to this room")
	case rule == "restricted" && c.v.RestrictedJoins(), rule == "knock_restricted" && c.v.KnockRestricted():
		if in {
			return nil
		}
		return c.restricted()
	}
	other := ".6"
	if c.v.RestrictedJoins() {
		other = ".7"
	}
	return refuse(c.rule(2, other), "this room cannot be joined")
}

// restricted asks who let somebody in. That the event is signed by that user's server is checked with its signatures.
func (c *check) restricted() error {
	via, ok := matrix.GetString(c.e.Content(), "join_authorised_via_users_server")
	if !ok || c.membership(matrix.UserID(via)) != "join" || c.levels.UserLevel(matrix.UserID(via)) < c.levels.Invite {
		return refuse(c.rule(2, ".5.2"), "nobody who may invite has let you in")
	}
	return nil
}

func (c *check) invite(target matrix.UserID) error {
	if third, ok := matrix.Get(c.e.Content(), "third_party_invite"); ok {
		return c.thirdPartyInvite(target, third)
	}
	if c.membership(c.e.Sender()) != "join" {
		return refuse(c.rule(3, ".2"), "you are not in this room")
	}
	if has := c.membership(target); has == "join" || has == "ban" {
		return refuse(c.rule(3, ".3"), "%s is in this room already, or banned from it", target)
	}
	if c.levels.UserLevel(c.e.Sender()) < c.levels.Invite {
		return refuse(c.rule(3, ".5"), "you need more power to invite")
	}
	return nil
}

// thirdPartyInvite is the exchange of an invitation to an address for one to a user.
func (c *check) thirdPartyInvite(target matrix.UserID, third []byte) error {
	if c.membership(target) == "ban" {
		return refuse(c.rule(3, ".1.1"), "%s is banned from this room", target)
	}
	signed, ok := matrix.Get(third, "signed")
	if !ok {
		return refuse(c.rule(3, ".1.2"), "the invitation is not signed")
	}
	mxid, ok1 := matrix.GetString(signed, "mxid")
	token, ok2 := matrix.GetString(signed, "token")
	if !ok1 || !ok2 {
		return refuse(c.rule(3, ".1.3"), "the invitation has no mxid or token")
	}
	if mxid != string(target) {
		return refuse(c.rule(3, ".1.4"), "the invitation is for somebody else")
	}
	offer := c.state.Get("m.room.third_party_invite", token)
	if offer == nil {
		return refuse(c.rule(3, ".1.5"), "there is no such invitation")
	}
	if offer.Sender() != c.e.Sender() {
		return refuse(c.rule(3, ".1.6"), "the invitation was made by somebody else")
	}
	if len(Signers(signed, offer.Content(), 1)) == 0 {
		return refuse(c.rule(3, ".1.8"), "the invitation's signature does not fit")
	}
	return nil
}

func (c *check) leave(target matrix.UserID) error {
	sender := c.e.Sender()
	if sender == target {
		switch has := c.membership(target); {
		case has == "invite", has == "join", has == "knock" && c.v.Knocking():
			return nil
		}
		return refuse(c.rule(4, ".1"), "you are not in this room")
	}
	if c.membership(sender) != "join" {
		return refuse(c.rule(4, ".2"), "you are not in this room")
	}
	level := c.levels.UserLevel(sender)
	if c.membership(target) == "ban" && level < c.levels.Ban {
		return refuse(c.rule(4, ".3"), "you need more power to lift a ban")
	}
	if level >= c.levels.Kick && c.levels.UserLevel(target) < level {
		return nil
	}
	return refuse(c.rule(4, ".5"), "you need more power to remove %s", target)
}

func (c *check) ban(target matrix.UserID) error {
	sender := c.e.Sender()
	if c.membership(sender) != "join" {
		return refuse(c.rule(5, ".1"), "you are not in this room")
	}
	level := c.levels.UserLevel(sender)
	if level >= c.levels.Ban && c.levels.UserLevel(target) < level {
		return nil
	}
	return refuse(c.rule(5, ".3"), "you need more power to ban %s", target)
}

func (c *check) knock(target matrix.UserID) error {
	rule := c.joinRule()
	if rule != "knock" && !(rule == "knock_restricted" && c.v.KnockRestricted()) {
		return refuse(c.rule(6, ".1"), "nobody can knock at this room")
	}
	if c.e.Sender() != target {
		return refuse(c.rule(6, ".2"), "people knock by themselves")
	}
	switch c.membership(target) {
	case "ban", "invite", "join":
		return refuse(c.rule(6, ".4"), "you are banned from this room, or invited, or in it")
	}
	return nil
}
