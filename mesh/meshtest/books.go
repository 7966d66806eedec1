package meshtest

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/infrafabric/agentmesh/mesh"
)

// books keeps the traffic and its account.
type books struct {
	line *timeline

	mu           sync.Mutex
	flows        []flow
	runs         map[runKey]chan struct{} // of flows in processes; closed when they end
	streams      map[streamKey]*stream
	newest       map[[2]string]origin // of what the receiver heard last
	ending       map[[2]string]bool   // pairs, in order, whose Peers may end
	incarnations map[string]int
	processes    []*process
	doubts       []doubt       // Peers of which Flush said that not all will arrive
	quiet        chan struct{} // closed when no more messages are to be sent
	stopped      bool
	account      Account
	clocks       map[[2]string]*clock // of each flow
	more         chan struct{}        // closed and replaced at each delivery
}

// runKey is a flow in one process of its sender.
type runKey struct {
	from        string
	incarnation int
	to          string
}

// streamKey is what is sent over one Peer, of traffic or in answer to it.
type streamKey struct {
	from        string
	incarnation int
	peer        int // counts the process's Peers for the receiver
	to          string
	answer      bool
}

// origin is a process of a sender and one of its Peers for the receiver.
type origin struct{ incarnation, peer int }

func (o origin) before(p origin) bool {
	return o.incarnation < p.incarnation || o.incarnation == p.incarnation && o.peer < p.peer
}

// stream is what became of that.
type stream struct {
	sent     uint64
	most     uint64          // the highest number delivered to any process of the receiver
	here     uint64          // the last one delivered to the present process of the receiver
	receiver int             // the incarnation of that process
	told     map[uint64]bool // those that the Peer reported when it ended and that have not arrived
	heavy    map[uint64]int  // the sizes of payloads that have weight
	passed   map[uint64]bool // too large for the receiver's present window, and not told yet
}

// id is that of one message, such as "a.1.2>b#7": the seventh over the second Peer for
// b of the first process of a. An answer has "!" for "#".
func (k streamKey) id(n uint64) string {
	b := make([]byte, 0, 32)
	b = append(append(b, k.from...), '.')
	b = append(strconv.AppendInt(b, int64(k.incarnation), 10), '.')
	b = strconv.AppendInt(b, int64(k.peer), 10)
	b = append(append(b, '>'), k.to...)
	if k.answer {
		b = append(b, '!')
	} else {
		b = append(b, '#')
	}
	return string(strconv.AppendUint(b, n, 10))
}

func (k streamKey) String() string {
	s := fmt.Sprintf("%s.%d.%d → %s", k.from, k.incarnation, k.peer, k.to)
	if k.answer {
		s += " (answers)"
	}
	return s
}

// parseID undoes id.
func parseID(id string) (k streamKey, n uint64, ok bool) {
	at := strings.LastIndexAny(id, "#!")
	author, to, found := strings.Cut(id[:max(at, 0)], ">")
	p := strings.LastIndexByte(author, '.')
	i := strings.LastIndexByte(author[:max(p, 0)], '.')
	if !found || i < 0 {
		return k, 0, false
	}
	k.from, k.to, k.answer = author[:i], to, id[at] == '!'
	n, err := strconv.ParseUint(id[at+1:], 10, 64)
	if err != nil {
		return k, 0, false
	}
	if k.incarnation, err = strconv.Atoi(author[i+1 : p]); err != nil {
		return k, 0, false
	}
	k.peer, err = strconv.Atoi(author[p+1:])
	return k, n, err == nil
}

func (b *books) init(l *timeline) {
	b.line = l
	b.runs, b.streams, b.newest = map[runKey]chan struct{}{}, map[streamKey]*stream{}, map[[2]string]origin{}
	b.ending, b.incarnations = map[[2]string]bool{}, map[string]int{}
	b.clocks, b.more, b.quiet = map[[2]string]*clock{}, make(chan struct{}), make(chan struct{})
}

// started counts an agent's processes.
func (b *books) started(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.incarnations[name]++
	return b.incarnations[name]
}

func (b *books) problem(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problemLocked(format, args...)
}

func (b *books) problemLocked(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.line.add("  PROBLEM: " + text)
	if len(b.account.Problems) < maxProblems {
		b.account.Problems = append(b.account.Problems, text)
	}
}

// pairOf is two agents in either order.
func pairOf(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// allow lets Peers of a pair end from now on.
func (b *books) allow(one, other string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ending[pairOf(one, other)] = true
}

func (b *books) mayEnd(one, other string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ending[pairOf(one, other)]
}

// stream returns what is sent on such a stream; b.mu is held.
func (b *books) stream(k streamKey) *stream {
	s := b.streams[k]
	if s == nil {
		s = new(stream)
		b.streams[k] = s
	}
	return s
}

// next returns the ID of the next message on a stream.
func (b *books) next(k streamKey) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return k.id(b.stream(k).sent + 1)
}

// sent enters that Send has accepted the next message on a stream, with a payload of
// so many bytes.
func (b *books) sent(k streamKey, size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stream(k)
	s.sent++
	if size > len(light) {
		if s.heavy == nil {
			s.heavy = map[uint64]int{}
		}
		s.heavy[s.sent] = size
	}
	b.account.Sent++
}

// refused enters that Send called the next one too large.
func (b *books) refused() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.account.Refused++
}

// reported enters that a Peer told of messages that may not have arrived.
func (b *books) reported(ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		k, n, ok := parseID(id)
		if !ok {
			b.problemLocked("a message was reported that nobody sent: %s", id)
			continue
		}
		s := b.stream(k)
		if n <= s.most && !s.passed[n] || s.told[n] {
			continue // it had arrived, or was reported before
		}
		delete(s.passed, n)
		if s.told == nil {
			s.told = map[uint64]bool{}
		}
		s.told[n] = true
		b.account.Reported++
	}
}

// arrived enters a message that an application has received.
func (b *books) arrived(p *process, m mesh.Message) {
	key, n, ok := parseID(m.ID)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !ok || key.to != p.agent.name || m.Source != key.from {
		b.problemLocked("%s received a message that nobody sent: %s", p.agent.name, m.ID)
		return
	}
	s := b.streams[key]
	if s == nil {
		b.problemLocked("%s received %s of a process that never sent", p.agent.name, m.ID)
		return
	}
	pair := [2]string{key.from, key.to}
	author := origin{key.incarnation, key.peer}
	if author.before(b.newest[pair]) {
		b.account.Reordered++
		b.problemLocked("%s received %s after messages of a newer process or Peer", p.agent.name, m.ID)
		return
	}
	b.newest[pair] = author
	if s.receiver != p.incarnation {
		// A new process may see again what the last one had not finished, and
		// misses nothing.
		s.receiver, s.here = p.incarnation, min(s.most, n-1)
	}
	switch next := s.after(s.here); {
	case s.passed[n]:
		b.account.Reordered++
		b.problemLocked("%s received %s, which had been passed over", p.agent.name, m.ID)
		return
	case n > s.here && n <= next, n > s.here && s.pass(n, p.window): // reported ones may arrive
		s.here = n
	case n <= s.here:
		b.account.Duplicated++
		b.problemLocked("%s received %s again", p.agent.name, m.ID)
		return
	default:
		b.account.Reordered++
		b.problemLocked("%s received %s after number %d", p.agent.name, m.ID, s.here)
		s.here = n
	}
	if n <= s.most {
		b.account.Again++
		return
	}
	if s.told[n] {
		delete(s.told, n)
		b.account.Reported--
	}
	s.most = n
	b.account.Delivered++
	if !key.answer {
		b.tick(pair)
	}
}

// after is the number after n that must arrive.
func (s *stream) after(n uint64) uint64 {
	for n++; s.told[n] || s.passed[n]; n++ {
	}
	return n
}

// pass enters that the messages before number n do not come, because the receiver came
// back with such a window, into which they do not fit. It reports false, and enters
// nothing, when one of them fits: that one is missing.
func (s *stream) pass(n, window uint64) bool {
	var over []uint64
	for k := s.here + 1; k < n; k++ {
		switch {
		case s.told[k] || s.passed[k]:
		case uint64(s.heavy[k]+envelopeSize) <= window: //nolint:gosec // not negative
			return false
		case k > s.most: // the others have arrived once
			over = append(over, k)
		}
	}
	for _, k := range over {
		if s.passed == nil {
			s.passed = map[uint64]bool{}
		}
		s.passed[k] = true
	}
	return true
}

// finish ends the sending.
func (b *books) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		b.stopped = true
		close(b.quiet)
	}
}

func (b *books) stop() { b.finish() }
