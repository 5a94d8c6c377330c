package authrules

import (
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
)

// set is a new m.room.power_levels.
func set(sender, content string) event {
	return event{typ: "m.room.power_levels", sender: sender, key: at(""), content: content}
}

// changed are the usual levels with one thing changed.
func changed(old, fresh string) string {
	out := strings.Replace(usualLevels, old, fresh, 1)
	if out == usualLevels {
		panic("the usual levels have no " + old)
	}
	return out
}

func TestPowerLevelForm(t *testing.T) {
	proof.Of(t, "AU-16", "AU-18", "F07")
	integers := matrix.RoomVersion.IntegerPowerLevels
	floats := not(matrix.RoomVersion.StrictCanonicalJSON)
	notifications := matrix.RoomVersion.NotificationLevelsChecked
	for _, c := range []trial{
		{name: "the same", e: set(bobID, usualLevels)},
		{name: "a level that is no number", e: set(bobID, changed(`"ban":50`, `"ban":[]`)), want: "W.e"},
		{name: "a level that is null", e: set(bobID, changed(`"kick":50`, `"kick":null`)), want: "W.e"},
		{name: "a level that is a word", e: set(bobID, changed(`"kick":50`, `"kick":"fifty"`)), want: "W.e"},
		{name: "events that is no object", e: set(bobID, changed(`"events":{"m.room.topic":60}`, `"events":[]`)), want: "W.f"},
		{name: "events with a word", e: set(bobID, changed(`"m.room.topic":60`, `"m.room.topic":"x"`)), want: "W.f"},
		{name: "notifications that is null", where: notifications, e: set(bobID, changed(`"notifications":{"room":60}`, `"notifications":null`)), want: "W.f"},
		{name: "notifications that is null in old versions", where: not(notifications), e: set(bobID, changed(`"notifications":{"room":60}`, `"notifications":null`))},
		{name: "notifications with a word in old versions", where: not(notifications), e: set(bobID, changed(`"room":60`, `"room":"sixty"`))},
		{name: "users that is no object", e: set(bobID, `{"users":["@bob:one.example"]}`), want: "W.u"},
		{name: "users that is null", e: set(bobID, `{"users":null}`), want: "W.u"},
		{name: "users with a name", e: set(bobID, changed(`"@carol:two.example":50`, `"@carol:two.example":50,"carol":1`)), want: "W.u"},
		{name: "users with a truth value", e: set(bobID, changed(`"@carol:two.example":50`, `"@carol:two.example":true`)), want: "W.u"},
		{name: "text in old versions", where: not(integers), e: set(bobID, changed(`"ban":50`, `"ban":" 50 "`))},
		{name: "text of a user in old versions", where: not(integers), e: set(bobID, changed(`"@carol:two.example":50`, `"@carol:two.example":"50"`))},
		{name: "text", where: integers, e: set(bobID, changed(`"ban":50`, `"ban":"50"`)), want: "W.e"},
		{name: "text of a type", where: integers, e: set(bobID, changed(`"m.room.topic":60`, `"m.room.topic":"60"`)), want: "W.f"},
		{name: "text of a user", where: integers, e: set(bobID, changed(`"@carol:two.example":50`, `"@carol:two.example":"50"`)), want: "W.u"},
		{name: "fractions in old versions", where: floats, e: set(bobID, changed(`"ban":50`, `"ban":50.9`))},
		{name: "a fraction counts cut off", where: floats, e: set(bobID, changed(`"ban":50`, `"ban":100.9`))},
		{name: "a fraction too high", where: floats, e: set(bobID, changed(`"ban":50`, `"ban":101.1`)), want: "W.n.2"},
		{name: "the creator", where: matrix.RoomVersion.CreatorsPrivileged, e: set(bobID, `{"users":{"@alice:one.example":100}}`), want: "W.c"},
		{
			name: "an additional creator", where: matrix.RoomVersion.CreatorsPrivileged, more: `,"additional_creators":["@dave:two.example"]`,
			e: set(aliceID, `{"users":{"@dave:two.example":1}}`), want: "W.c",
		},
		{
			name: "the first", bare: true, where: not(matrix.RoomVersion.CreatorsPrivileged), e: set(aliceID, `{"users":{"@alice:one.example":9000},"ban":8000}`),
			room: func(s *sketch) { s.member(aliceID, "join") },
		},
		{
			name: "the first", bare: true, where: matrix.RoomVersion.CreatorsPrivileged, e: set(aliceID, `{"users":{"@bob:one.example":9000},"ban":8000}`),
			room: func(s *sketch) { s.member(aliceID, "join") },
		},
	} {
		c.run(t)
	}
}

func TestPowerLevelChanges(t *testing.T) {
	proof.Of(t, "AU-16", "AU-17", "F07")
	carolMay := func(s *sketch) { s.levels(changed(`"events":{`, `"events":{"m.room.power_levels":50,`)) }
	by := func(name, content, want string) trial {
		return trial{name: name, room: carolMay, e: set(carolID, strings.Replace(content, `"events":{`, `"events":{"m.room.power_levels":50,`, 1)), want: want}
	}
	cases := []trial{
		by("nothing", usualLevels, ""),
		by("to the own level", changed(`"events_default":0`, `"events_default":50`), ""),
		by("beyond it", changed(`"events_default":0`, `"events_default":51`), "W.n.2"),
		by("removed at the own level", changed(`"invite":50,`, ``), ""),
		by("a type above", changed(`"m.room.topic":60`, `"m.room.topic":50`), "W.r.1"),
		by("a type above, removed", changed(`"m.room.topic":60`, `"m.room.name":50`), "W.r.1"),
		by("a type added", changed(`"m.room.topic":60`, `"m.room.topic":60,"m.room.name":50`), ""),
		by("a type added above", changed(`"m.room.topic":60`, `"m.room.topic":60,"m.room.name":51`), "W.a.1"),
		by("own level lowered", changed(`"@carol:two.example":50`, `"@carol:two.example":40`), ""),
		by("own level removed", changed(`,"@carol:two.example":50`, ``), ""),
		by("own level raised", changed(`"@carol:two.example":50`, `"@carol:two.example":51`), "W.y.1"),
		by("somebody above", changed(`"@bob:one.example":100`, `"@bob:one.example":50`), "W.x.1"),
		by("somebody above removed", changed(`"@bob:one.example":100,`, ``), "W.x.1"),
		by("somebody added", changed(`"@carol:two.example":50`, `"@carol:two.example":50,"@dave:two.example":50`), ""),
		by("somebody added above", changed(`"@carol:two.example":50`, `"@carol:two.example":50,"@dave:two.example":51`), "W.y.1"),
		{name: "without the power", e: set(daveID, usualLevels), want: "P"},
		{name: "an equal", e: set(bobID, usualLevels),
			room: func(s *sketch) {
				s.levels(changed(`"@bob:one.example":100`, `"@bob:one.example":100,"@dave:two.example":100`))
			}, want: "W.x.1"},
	}
	high := func(s *sketch) {
		s.levels(strings.Replace(changed(`"ban":50`, `"ban":60`), `"events":{`, `"events":{"m.room.power_levels":50,`, 1))
	}
	cases = append(cases,
		trial{name: "a level above", room: high, e: set(carolID, strings.Replace(usualLevels, `"events":{`, `"events":{"m.room.power_levels":50,`, 1)), want: "W.n.1"},
		trial{name: "a level above removed", room: high, e: set(carolID, strings.Replace(changed(`"ban":50,`, ``), `"events":{`, `"events":{"m.room.power_levels":50,`, 1)), want: "W.n.1"},
	)
	checked := matrix.RoomVersion.NotificationLevelsChecked
	for _, c := range []trial{
		by("a notification above", changed(`"room":60`, `"room":50`), "W.r.1"),
		by("a notification added above", changed(`"room":60`, `"room":60,"x":51`), "W.a.1"),
	} {
		c.where = checked
		cases = append(cases, c)
		c.name, c.where, c.want = c.name+" in old versions", not(checked), ""
		cases = append(cases, c)
	}
	for _, c := range cases {
		c.run(t)
	}
}

func TestLevelsOf(t *testing.T) {
	proof.Of(t, "AU-18", "AU-19")
	for _, v := range matrix.RoomVersions() {
		s := newSketch(t, v, `,"additional_creators":["@bob:one.example"]`)
		l := LevelsOf(v, s.state)
		creator, second := int64(100), int64(0)
		if v.CreatorsPrivileged() {
			creator, second = Infinite, Infinite
		}
		if l.UserLevel(aliceID) != creator || l.UserLevel(bobID) != second || l.UserLevel(eveID) != 0 {
			t.Errorf("version %s: without levels %d, %d, %d", v, l.UserLevel(aliceID), l.UserLevel(bobID), l.UserLevel(eveID))
		}
		if l.StateDefault != 50 || l.EventsDefault != 0 || l.Ban != 50 || l.Invite != 0 {
			t.Errorf("version %s: the defaults are %+v", v, l.PowerLevels)
		}
		s.levels(`{"users":{"@carol:two.example":7},"users_default":3}`)
		l = LevelsOf(v, s.state)
		if v.CreatorsPrivileged() != (l.UserLevel(aliceID) == Infinite) || l.UserLevel(carolID) != 7 || l.UserLevel(eveID) != 3 {
			t.Errorf("version %s: with levels %d, %d, %d", v, l.UserLevel(aliceID), l.UserLevel(carolID), l.UserLevel(eveID))
		}
		if l.StateDefault != 50 || l.Redact != 50 {
			t.Errorf("version %s: levels that are not given are %+v", v, l.PowerLevels)
		}
		if none := LevelsOf(v, Map{}); none.UserLevel(aliceID) != 0 {
			t.Errorf("version %s: without a creation somebody has power", v)
		}
	}
}
