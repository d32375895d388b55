package denylist

import "strings"

// actorTable counts entries per actor, for the quota. It knows a few thousand
// actors at a time; entries of others count for nobody (number zero). It belongs
// to the writer.
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

func newActorTable() *actorTable { return &actorTable{byName: make(map[string]int)} }

// use returns the actor's number.
func (t *actorTable) use(name string) int {
	if name == "" {
		return 0
	}
	if n, ok := t.byName[name]; ok {
		return n
	}
	if len(t.byName) == len(t.slots)-1 && !t.dropIdle() {
		return 0
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
		if s := &t.slots[n]; s.name != "" && s.count == 0 {
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

func (t *actorTable) count(name string) int {
	if n, ok := t.byName[name]; ok {
		return t.slots[n].count
	}
	return 0
}
