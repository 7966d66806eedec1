package mesh

import "container/list"

// ledgers holds a Node's ledgers by remote agent ID and forgets, beyond a
// limit, those that no Peer uses, the longest unused first. Numbers never
// start again even so: what is forgotten leaves a floor behind, and every
// ledger made later numbers above it.
//
// The Node's mutex guards it.
type ledgers struct {
	obs    *observer
	window uint64
	most   int // idle ledgers kept
	all    map[string]*ledgerEntry
	idle   *list.List // of *ledgerEntry, the most recently used in front

	floor, floorBytes uint64
}

type ledgerEntry struct {
	led  *ledger
	idle *list.Element // nil while a Peer uses it
}

func newLedgers(obs *observer, window uint64, most int) *ledgers {
	return &ledgers{obs: obs, window: window, most: most, all: map[string]*ledgerEntry{}, idle: list.New()}
}

// acquire returns the ledger of a remote agent for a new Peer, and the Peer's
// tenancy.
func (ls *ledgers) acquire(remote string) (l *ledger, tenancy int) {
	e := ls.all[remote]
	if e == nil {
		e = &ledgerEntry{led: newLedger(remote, ls.obs, ls.window, ls.floor, ls.floorBytes)}
		ls.all[remote] = e
	}
	if e.idle != nil {
		ls.idle.Remove(e.idle)
		e.idle = nil
	}
	return e.led, e.led.begin()
}

// lookup returns the ledger of a remote agent, nil when there is none.
func (ls *ledgers) lookup(remote string) *ledger {
	if e := ls.all[remote]; e != nil {
		return e.led
	}
	return nil
}

// release gives a ledger back when its Peer has ended.
func (ls *ledgers) release(l *ledger) {
	e := ls.all[l.remote]
	if e == nil || e.led != l || e.idle != nil {
		return
	}
	if l.unused() {
		delete(ls.all, l.remote)
		return
	}
	e.idle = ls.idle.PushFront(e)
	if ls.idle.Len() <= ls.most {
		return
	}
	old := ls.idle.Remove(ls.idle.Back()).(*ledgerEntry).led
	delete(ls.all, old.remote)
	next, end := old.reached()
	ls.floor = max(ls.floor, next-1)
	ls.floorBytes = max(ls.floorBytes, end)
}

// unused reports whether the ledger holds nothing worth remembering: no
// session ever began, not even at the other side only, which would take another
// state for one that has forgotten, and nothing was numbered.
func (l *ledger) unused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inst == [16]byte{} && l.out.high == 0 && !l.replaced && !l.named
}

// reached returns the sender's next number and byte count.
func (l *ledger) reached() (next, end uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.next, l.out.end
}
