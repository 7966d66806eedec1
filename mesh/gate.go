package mesh

import (
	"sync"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// author is who an envelope says it is from.
type author struct {
	id  string
	key keys.PublicKey
}

// gate has envelopes judged: those of one author in the order in which they came, one
// at a time, those of several side by side, and by turns when there are more than can
// be judged at a time. Who is known goes in by one door and strangers by another, so
// that however long the questions about strangers take, and however many there are,
// friends do not wait for them.
type gate struct {
	judge func(arrival)

	mu        sync.Mutex
	authors   map[author]*authorLine
	names     map[string]int // of authors, by agent ID
	friends   gateSide
	strangers gateSide
}

// gateSide is one door.
type gateSide struct {
	most, running int           // goroutines
	waiting       []*authorLine // for one of them
	bytes         int           // of envelopes that wait
}

// authorLine is what waits of one author. It is in a side's waiting, or in the hands of
// a goroutine, until it is empty.
type authorLine struct {
	who   author
	side  *gateSide
	items []arrival
}

func newGate(judge func(arrival)) *gate {
	return &gate{judge: judge, authors: map[author]*authorLine{}, names: map[string]int{},
		friends: gateSide{most: maxJudging}, strangers: gateSide{most: maxStrangers}}
}

// enter takes an envelope in; run starts a goroutine when one is needed. It reports
// false when there is no room: too much waits of that author, or at that door.
func (g *gate) enter(a arrival, familiar bool, run func(func())) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	who := author{a.From, a.Key}
	l := g.authors[who]
	if l == nil {
		l = &authorLine{who: who, side: &g.strangers}
		if familiar {
			l.side = &g.friends
		}
	}
	size := len(a.Bytes())
	if len(l.items) >= maxAuthorItems || l.side.bytes+size > maxJudgingBytes {
		return false
	}
	l.items = append(l.items, a)
	l.side.bytes += size
	if g.authors[who] != nil {
		return true // it is in somebody's hands
	}
	g.authors[who] = l
	g.names[who.id]++
	if s := l.side; s.running < s.most {
		s.running++
		run(func() { g.work(l) })
	} else {
		s.waiting = append(s.waiting, l)
	}
	return true
}

// holds reports whether something waits that says it is from that agent.
func (g *gate) holds(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.names[id] > 0
}

// work judges one author's next, then the next author's, while there is any.
func (g *gate) work(l *authorLine) {
	for s := l.side; l != nil; {
		g.mu.Lock()
		a := l.items[0]
		g.mu.Unlock()
		g.judge(a)
		g.mu.Lock()
		l.items = l.items[1:]
		s.bytes -= len(a.Bytes())
		if len(l.items) > 0 {
			s.waiting = append(s.waiting, l)
		} else {
			delete(g.authors, l.who)
			if g.names[l.who.id]--; g.names[l.who.id] == 0 {
				delete(g.names, l.who.id)
			}
		}
		if l = nil; len(s.waiting) > 0 {
			l = s.waiting[0]
			s.waiting = append(s.waiting[:0], s.waiting[1:]...)
		} else {
			s.running--
		}
		g.mu.Unlock()
	}
}

// pastVerdicts remembers what trust said about keys, for as long as it is not asked about
// connected Peers either. No is believed meanwhile; yes only says who is known, and is
// asked for again. It is safe for concurrent use.
type pastVerdicts struct {
	mu   sync.Mutex
	all  map[author]pastVerdict
	told map[author]time.Time        // that their clocks are off
	away map[signaling.Hash]struct{} // turned away lately
}

type pastVerdict struct {
	keys.Verdict
	asked time.Time
}

func newPastVerdicts() *pastVerdicts {
	return &pastVerdicts{all: map[author]pastVerdict{}, told: map[author]time.Time{}, away: map[signaling.Hash]struct{}{}}
}

// get returns what trust said, if that is recent; now is the time of the world.
func (v *pastVerdicts) get(who author, now time.Time) (keys.Verdict, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p, ok := v.all[who]
	if !ok || time.Since(p.asked) >= trustInterval || !p.Until.IsZero() && !now.Before(p.Until) {
		return keys.Verdict{}, false
	}
	return p.Verdict, true
}

func (v *pastVerdicts) put(who author, verdict keys.Verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.all) >= maxVerdicts {
		clear(v.all) // they are asked for again
	}
	v.all[who] = pastVerdict{verdict, time.Now()}
}

// tellsOf reports, once a minute for each, whether to tell that an author's clock is
// off.
func (v *pastVerdicts) tellsOf(who author) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if at, ok := v.told[who]; ok && time.Since(at) < clockTold {
		return false
	}
	if len(v.told) >= maxVerdicts {
		clear(v.told)
	}
	v.told[who] = time.Now()
	return true
}

// turnedAway notes a verified envelope whose author is not trusted, and reports whether it
// is new: until it is answered it comes again and again.
func (v *pastVerdicts) turnedAway(h signaling.Hash) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.away[h]; ok {
		return false
	}
	if len(v.away) >= maxVerdicts {
		clear(v.away) // some are told of twice
	}
	v.away[h] = struct{}{}
	return true
}

// forget lets go of everything: trust has changed.
func (v *pastVerdicts) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.all)
}
