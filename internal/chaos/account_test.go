package chaos

import (
	"fmt"
	"strings"
)

// process is one process of an agent.
type process struct {
	name        string
	incarnation int
}

func (p process) String() string { return fmt.Sprintf("%s.%d", p.name, p.incarnation) }

// messageID is what the ID of a message says.
type messageID struct {
	author process
	to     string
	n      uint64
}

func (m messageID) String() string { return fmt.Sprintf("%v>%s#%d", m.author, m.to, m.n) }

func parseMessageID(text string) (m messageID, err error) {
	author, rest, _ := strings.Cut(text, ">")
	name, incarnation, _ := strings.Cut(author, ".")
	to, n, _ := strings.Cut(rest, "#")
	m.author.name, m.to = name, to
	if _, err = fmt.Sscanf(incarnation+" "+n, "%d %d", &m.author.incarnation, &m.n); err != nil || m.String() != text {
		return messageID{}, fmt.Errorf("no message has the ID %q", text)
	}
	return m, nil
}

// route is from one process of an author to all processes of a receiver.
type route struct {
	author process
	to     string
}

// stream is what became of the messages of a route.
type stream struct {
	sent     uint64 // the last one that the author's journal has
	most     uint64 // the highest number that any process of the receiver saw
	here     uint64 // the last one that the receiver's present process saw
	receiver int    // the incarnation of that process, 0 before the first
}

// account adds up the journals. It is fed with their lines, those of one
// process in order and those of a receiver's next process after those of the one
// before; lines of different agents may come in any order.
type account struct {
	sent       int // messages for which Send has returned
	delivered  int // each counted once
	again      int // seen again by a new process of their receiver, which is no fault
	lost       int
	duplicated int
	reordered  int      // of a former process after one of a later
	problems   []string // the first of the faults in words
	streams    map[route]*stream
	newest     map[[2]string]int // incarnation of the author that the receiver heard last
}

// maxProblems is how many faults an account words; the others are only counted.
const maxProblems = 20

func newAccount() *account {
	return &account{streams: map[route]*stream{}, newest: map[[2]string]int{}}
}

func (a *account) String() string {
	return fmt.Sprintf("%d sent, %d delivered, %d seen again after a restart, %d lost, %d duplicated, %d out of order",
		a.sent, a.delivered, a.again, a.lost, a.duplicated, a.reordered)
}

func (a *account) problem(format string, args ...any) {
	if len(a.problems) < maxProblems {
		a.problems = append(a.problems, fmt.Sprintf(format, args...))
	}
}

// stream returns that of a route.
func (a *account) stream(r route) *stream {
	s := a.streams[r]
	if s == nil {
		s = new(stream)
		a.streams[r] = s
	}
	return s
}

// enterSent enters that a process has sent its n-th message to another agent.
func (a *account) enterSent(author process, to string, n uint64) {
	s := a.stream(route{author, to})
	if n != s.sent+1 {
		a.problem("%v says that it sent %d to %s after %d", author, n, to, s.sent)
	}
	s.sent = n
	a.sent++
}

// enterGot enters that a process got a message. It reports whether the message
// is one that no process of the receiver had got before.
func (a *account) enterGot(receiver process, id string) bool {
	m, err := parseMessageID(id)
	if err != nil || m.to != receiver.name {
		a.problem("%v got %q, which is not for it", receiver, id)
		return false
	}
	pair := [2]string{m.author.name, m.to}
	if m.author.incarnation < a.newest[pair] {
		a.reordered++
		a.problem("%v got %s after messages of %s.%d", receiver, id, m.author.name, a.newest[pair])
		return false
	}
	a.newest[pair] = m.author.incarnation
	s := a.stream(route{m.author, m.to})
	if s.receiver != receiver.incarnation {
		// A new process may see again what the one before had not finished, and
		// misses nothing.
		s.receiver, s.here = receiver.incarnation, min(m.n-1, s.most)
	}
	if m.n <= s.here {
		a.duplicated++
		a.problem("%v got %s again or late, after number %d", receiver, id, s.here)
		return false
	}
	if missed := m.n - s.here - 1; missed > 0 {
		a.lost += int(missed)
		a.problem("%v got %s after number %d", receiver, id, s.here)
	}
	s.here = m.n
	if m.n <= s.most {
		a.again++
		return false
	}
	s.most = m.n
	a.delivered++
	return true
}

// settle compares what was sent with what arrived when all journals are read to
// their ends. Messages of processes that were killed may be lost with them.
func (a *account) settle(lives func(process) bool) {
	for r, s := range a.streams {
		killed := !lives(r.author)
		switch {
		case s.most > s.sent+1 || s.most > s.sent && !killed: // a killed process may not have come to say it
			a.problem("%v sent %d to %s, which got number %d", r.author, s.sent, r.to, s.most)
		case s.most < s.sent && !killed:
			a.lost += int(s.sent - s.most)
			a.problem("%v sent %d to %s, which got %d", r.author, s.sent, r.to, s.most)
		}
	}
}
