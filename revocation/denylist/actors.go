package denylist

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// actorKey is what an actor's entries are counted by: client names are unique at
// one issuer only.
func actorKey(actor, issuer string) string {
	if actor == "" {
		return ""
	}
	if issuer != "" {
		sum := sha256.Sum256([]byte(issuer))
		issuer = hex.EncodeToString(sum[:8])
	}
	return actor + "\x00" + issuer
}

// actorOf returns the actor that a key was made of.
func actorOf(key string) string {
	return key[:max(strings.LastIndexByte(key, 0), 0)]
}

const (
	// others is the number of all actors for whom there is none, and what it is
	// called, which is nobody's key. They share one quota: one who is unknown
	// because there are too many must not be without any.
	others     = 1
	othersName = "\x00"
)

// actorTable counts entries per actor, for the quota. It knows a few thousand
// actors at a time; entries without an actor count for nobody (number zero). It
// belongs to the writer.
type actorTable struct {
	byName map[string]int
	slots  [1 << actorBits]actorSlot
	pinned bool // a checkpoint is being written: numbers must keep their meaning
	full   bool // the last search found no free number
}

type actorSlot struct {
	name  string
	count int
}

func newActorTable() *actorTable {
	t := &actorTable{byName: map[string]int{othersName: others}}
	t.slots[others].name = othersName
	return t
}

// use returns the actor's number.
func (t *actorTable) use(name string) int {
	if name == "" {
		return 0
	}
	if n, ok := t.byName[name]; ok {
		return n
	}
	if len(t.byName) == len(t.slots)-1 && !t.dropIdle() {
		return others
	}
	n := len(t.byName) + 1
	if t.slots[n].name != "" { // numbers became free elsewhere
		for n = 1; t.slots[n].name != ""; n++ {
		}
	}
	name = strings.Clone(name)
	t.byName[name] = n
	t.slots[n] = actorSlot{name: name}
	return n
}

// dropIdle forgets the actors without entries.
func (t *actorTable) dropIdle() bool {
	if t.pinned || t.full {
		return false
	}
	before := len(t.byName)
	for n := range t.slots {
		if s := &t.slots[n]; s.name != "" && s.count == 0 && n != others {
			delete(t.byName, s.name)
			*s = actorSlot{}
		}
	}
	t.full = len(t.byName) == before
	return !t.full
}

func (t *actorTable) add(n int) { t.slots[n].count++ }

func (t *actorTable) remove(n int) {
	s := &t.slots[n]
	if s.count--; s.count == 0 {
		t.full = false
	}
}

// countOf returns how many entries an actor has, those included whose issuer is
// not known any more.
func (t *actorTable) countOf(actor, issuer string) int {
	n := t.count(actorKey(actor, issuer))
	if held, ok := t.byName[actorKey(actor, "")]; ok && issuer != "" {
		n += t.slots[held].count
	}
	return n
}

func (t *actorTable) count(name string) int {
	if n, ok := t.byName[name]; ok {
		return t.slots[n].count
	}
	if len(t.byName) == len(t.slots)-1 && t.full {
		return t.slots[others].count
	}
	return 0
}
