package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/infrafabric/agentmesh/signaling"
)

// The model: two real ledgers, one sending to the other over up to three
// sessions at a time, and an adversary who decides what happens next. A session
// is an ordered queue of frames that may end at any point; positions may be
// lost, repeated and reordered besides. Either side may crash (a new instance
// without memory), close its Peer, or forget an idle ledger.
//
// What must hold, whatever the schedule:
//
//   - one receiver instance delivers a record once and in order, and passes over
//     only what its sender reported or a former instance delivered;
//   - across receiver instances only records repeat that were not acknowledged
//     as delivered;
//   - neither side holds more than its window;
//   - at the end, over one healthy session, everything that was not reported
//     arrives: no schedule leaves both sides waiting.

// modelSchedules is how many schedules the test runs; MODEL_SCHEDULES changes
// it, MODEL_SEED runs one.
const (
	modelSchedules = 100_000
	modelEvents    = 200
	modelWindow    = 700 // five or six records
)

type model struct {
	obs  *observer
	s, r modelSide

	gen   uint64
	links []*modelLink

	pushed    []uint64          // numbers of the live sender instance, in order
	reported  map[string]bool   // by ID
	delivered map[string]bool   // by ID, by any receiver instance
	here      map[string]uint64 // by sender, the last number this receiver instance delivered
	acked     uint64            // numbers below were acknowledged when a receiver crashed
	log       []string
	trace     bool
}

type modelSide struct {
	led     *ledger
	tenancy int
	inst    signaling.Instance
	n       byte // counts instances
}

// modelLink is one session.
type modelLink struct {
	gen      uint64
	s, r     *session
	toR      []work
	toS      []position
	helloS   helloBody // what the sender stated
	helloR   helloBody // what the receiver stated
	atS, atR bool      // attached there
}

func newModel(obs *observer) *model {
	m := &model{obs: obs, reported: map[string]bool{}, delivered: map[string]bool{}}
	m.restart(&m.s)
	m.restart(&m.r)
	return m
}

// ledger makes one that arms no timer: acknowledging is the adversary's choice.
func (m *model) ledger(floor, floorBytes uint64) *ledger {
	l := newLedger("other", m.obs, modelWindow, floor, floorBytes)
	l.ackArmed = true
	return l
}

// restart gives a side a new instance without memory.
func (m *model) restart(x *modelSide) {
	x.n++
	x.inst = signaling.Instance{x.n}
	if x == &m.s {
		x.inst[1] = 1
		m.pushed, m.acked = nil, 0
	} else {
		m.here = map[string]uint64{}
		if m.s.led != nil {
			m.acked = m.s.led.out.base()
		}
	}
	x.led = m.ledger(0, 0)
	x.tenancy = x.led.begin()
}

func (m *model) note(format string, a ...any) {
	if m.trace {
		m.log = append(m.log, fmt.Sprintf(format, a...))
	}
}

func (m *model) id(n uint64) string { return fmt.Sprintf("%d.%d", m.s.n, n) }

// step does what the draw says. The low bits choose the event, the others what
// it concerns.
func (m *model) step(draw uint32) error {
	which := int(draw >> 10)
	link := func(ok func(*modelLink) bool) *modelLink {
		var fit []*modelLink
		for _, l := range m.links {
			if ok(l) {
				fit = append(fit, l)
			}
		}
		if len(fit) == 0 {
			return nil
		}
		return fit[which%len(fit)]
	}
	switch e := draw % 1024; {
	case e < 260:
		return m.push()
	case e < 420:
		if l := link(func(l *modelLink) bool { return l.atS }); l != nil {
			m.collect(l)
		}
	case e < 600:
		if l := link(func(l *modelLink) bool { return l.atR && len(l.toR) > 0 }); l != nil {
			return m.receive(l)
		}
	case e < 720:
		return m.pop()
	case e < 790:
		if l := link(func(l *modelLink) bool { return l.atR }); l != nil {
			m.acknowledge(l)
		}
	case e < 860:
		if l := link(func(l *modelLink) bool { return l.atS && len(l.toS) > 0 }); l != nil {
			return m.stated(l, which)
		}
	case e < 900:
		m.open()
	case e < 950:
		if l := link(func(l *modelLink) bool { return !l.atS }); l != nil {
			return m.attachS(l)
		}
	case e < 990:
		if l := link(func(l *modelLink) bool { return !l.atR }); l != nil {
			return m.attachR(l)
		}
	case e < 1002:
		if l := link(func(*modelLink) bool { return true }); l != nil {
			m.kill(l)
		}
	case e < 1006:
		m.killAll("the receiver crashes")
		m.restart(&m.r)
	case e < 1009:
		m.killAll("the sender crashes")
		m.restart(&m.s)
	case e < 1014:
		m.closeSender()
	case e < 1018:
		m.killAll("the receiver closes")
		m.r.led.end(nil)
		m.r.tenancy = m.r.led.begin()
	case e < 1021:
		if len(m.links) == 0 { // only idle ledgers are forgotten
			m.note("the receiver forgets")
			m.r.led = m.ledger(0, 0)
			m.r.tenancy = m.r.led.begin()
		}
	default:
		if len(m.links) == 0 {
			m.closeSender()
			next, end := m.s.led.reached()
			m.note("the sender forgets")
			m.s.led = m.ledger(next-1, end)
			m.s.tenancy = m.s.led.begin()
		}
	}
	return m.bounded()
}

func (m *model) push() error {
	if m.s.led.out.bytes+400 > modelWindow {
		return nil // push would block
	}
	n := m.s.led.out.next
	msg := Message{ID: m.id(n), Destination: "other", Payload: []byte("null")}
	if err := m.s.led.push(context.Background(), m.s.tenancy, &msg, false); err != nil {
		return err
	}
	m.pushed = append(m.pushed, n)
	m.note("push %d", n)
	return nil
}

func (m *model) collect(l *modelLink) {
	w := m.s.led.collect(l.s)
	if w.skip != nil || w.records != nil {
		w.positions = nil
		l.toR = append(l.toR, w)
		m.note("session %d carries %d records, skip %v", l.gen, len(w.records), w.skip)
	}
}

func (m *model) receive(l *modelLink) error {
	w := l.toR[0]
	l.toR = l.toR[1:]
	if w.skip != nil {
		m.note("session %d: skip to %d", l.gen, w.skip.Number)
		if err := m.r.led.skipTo(l.r, w.skip); err != nil {
			return err
		}
	}
	msgs := make([]Message, len(w.records))
	leaves := make([]tlog.Hash, len(w.records)) // that they hash to is none of the ledger's business
	for i, rec := range w.records {
		msg, err := decodeRecord(rec, "s", "other")
		if err != nil {
			return err
		}
		msg.Signature = &Signature{TreeSize: len(leaves), Index: i, leaves: leaves}
		msgs[i] = msg
	}
	if len(msgs) == 0 {
		return nil
	}
	m.note("session %d: records from %d", l.gen, msgs[0].SequenceNum)
	return m.r.led.accept(l.r, msgs, w.records)
}

func (m *model) pop() error {
	if len(m.r.led.inbox) == 0 {
		return nil
	}
	in, err := m.r.led.pop(context.Background(), m.r.tenancy, true)
	if err != nil {
		return err
	}
	id, n := in.msg.ID, in.msg.SequenceNum
	m.note("deliver %s", id)
	from, _, _ := strings.Cut(id, ".")
	last := m.here[from]
	if n <= last {
		return fmt.Errorf("record %s delivered after %d", id, last)
	}
	for gap := last + 1; gap < n; gap++ {
		if x := fmt.Sprintf("%s.%d", from, gap); !m.reported[x] && !m.delivered[x] {
			return fmt.Errorf("record %s was passed over by %s", x, id)
		}
	}
	if m.delivered[id] && from == strconv.Itoa(int(m.s.n)) && n < m.acked {
		return fmt.Errorf("record %s repeats, though its delivery was acknowledged", id)
	}
	m.here[from] = n
	m.delivered[id] = true
	return nil
}

func (m *model) acknowledge(l *modelLink) {
	m.r.led.ackNow = m.r.led.ackDue
	if w := m.r.led.collect(l.r); w.positions != nil {
		l.toS = append(l.toS, w.positions...)
	}
}

// stated delivers, repeats or loses one of the positions on their way.
func (m *model) stated(l *modelLink, which int) error {
	i := which % len(l.toS)
	p := l.toS[i]
	switch which / 16 % 4 {
	case 0:
		l.toS = slices.Delete(l.toS, i, i+1)
		m.note("a position is lost")
		return nil
	case 1: // stays, to be delivered again
	default:
		l.toS = slices.Delete(l.toS, i, i+1)
	}
	m.note("session %d: position %+v", l.gen, p)
	_, err := m.s.led.stated(l.s, []position{p})
	return err
}

// open begins a session; both hellos are written now and read later.
func (m *model) open() {
	if len(m.links) == 3 {
		return
	}
	m.gen++
	o := order{generation: m.gen}
	mk := func(led *ledger, remote signaling.Instance) *session {
		return &session{led: led, order: o, bind: binding{remoteInst: remote}, told: led.remembers(remote), wake: make(chan struct{}, 1)}
	}
	s, r := mk(m.s.led, m.r.inst), mk(m.r.led, m.s.inst)
	hello := func(from signaling.Instance, x memory) helloBody {
		return helloBody{FromInstance: from, Window: x.window, Credit: x.credit, State: x.state, Positions: x.positions}
	}
	m.links = append(m.links, &modelLink{gen: m.gen,
		s:      s,
		r:      r,
		helloS: hello(m.s.inst, s.told),
		helloR: hello(m.r.inst, r.told),
	})
	m.note("session %d begins", m.gen)
}

func (m *model) attachS(l *modelLink) error {
	l.atS = true
	got, err := m.s.led.attach(l.s, &l.helloR)
	m.note("the sender moves to session %d, unknown %v", l.gen, got.unknown)
	for _, id := range got.unknown {
		m.reported[id] = true
	}
	return err
}

func (m *model) attachR(l *modelLink) error {
	l.atR = true
	m.note("the receiver takes session %d", l.gen)
	_, err := m.r.led.attach(l.r, &l.helloS)
	if errors.Is(err, errRoomTaken) {
		m.kill(l)
		return nil
	}
	return err
}

func (m *model) kill(l *modelLink) {
	m.note("session %d dies", l.gen)
	m.s.led.detach(l.s)
	m.r.led.detach(l.r)
	m.links = slices.DeleteFunc(m.links, func(x *modelLink) bool { return x == l })
}

func (m *model) killAll(why string) {
	m.note("%s", why)
	for len(m.links) > 0 {
		m.kill(m.links[0])
	}
}

func (m *model) closeSender() {
	m.killAll("the sender closes")
	for _, id := range m.s.led.end(nil) {
		m.reported[id] = true
	}
	m.s.tenancy = m.s.led.begin()
}

func (m *model) bounded() error {
	if m.s.led.out.bytes > modelWindow {
		return fmt.Errorf("the sender holds %d bytes", m.s.led.out.bytes)
	}
	// A former sender's messages may still wait beside the present one's.
	if n := len(m.r.led.inbox); n*(recordOverhead+40) > 2*modelWindow {
		return fmt.Errorf("the receiver holds %d messages", n)
	}
	return nil
}

// settle runs one healthy session until nothing moves and looks at what is left.
func (m *model) settle() error {
	m.killAll("the end")
	m.open()
	l := m.links[0]
	if err := errors.Join(m.attachR(l), m.attachS(l)); err != nil {
		return err
	}
	for range 1000 {
		before := len(m.delivered) + len(m.s.led.out.held) + len(l.toR) + len(m.r.led.inbox)
		m.collect(l)
		for len(l.toR) > 0 {
			if err := m.receive(l); err != nil {
				return err
			}
		}
		for len(m.r.led.inbox) > 0 {
			if err := m.pop(); err != nil {
				return err
			}
		}
		m.acknowledge(l)
		for _, p := range l.toS {
			if _, err := m.s.led.stated(l.s, []position{p}); err != nil {
				return err
			}
		}
		l.toS = nil
		if before == len(m.delivered) && len(m.s.led.out.held) == 0 {
			break
		}
	}
	if n := len(m.s.led.out.held); n > 0 {
		return fmt.Errorf("%d records never travel: both sides wait", n)
	}
	for _, n := range m.pushed {
		if id := m.id(n); !m.delivered[id] && !m.reported[id] {
			return fmt.Errorf("record %s was neither delivered nor reported", id)
		}
	}
	return nil
}

// runModel runs one schedule.
func runModel(obs *observer, draws []uint32, trace bool) (*model, error) {
	m := newModel(obs)
	m.trace = trace
	for _, d := range draws {
		if err := m.step(d); err != nil {
			return m, err
		}
	}
	return m, m.settle()
}

func modelDraws(seed uint64) []uint32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	draws := make([]uint32, modelEvents)
	for i := range draws {
		draws[i] = rng.Uint32()
	}
	return draws
}

// minimise leaves out what a failing schedule does not need.
func minimise(obs *observer, draws []uint32) []uint32 {
	for size := len(draws) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(draws); {
			shorter := slices.Delete(slices.Clone(draws), at, at+size)
			if _, err := runModel(obs, shorter, false); err != nil {
				draws = shorter
			} else {
				at += size
			}
		}
	}
	return draws
}

// TestFlowModel runs schedules from seeds 1, 2, 3 … A failing one is printed,
// minimised, as a story; MODEL_SEED=n replays it.
func TestFlowModel(t *testing.T) {
	obs := testObserver(t)
	first, count := uint64(1), uint64(modelSchedules)
	if s := os.Getenv("MODEL_SCHEDULES"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		count = n
	}
	if s := os.Getenv("MODEL_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, count = n, 1
	}
	const workers = 2
	var wg sync.WaitGroup
	var delivered, reported [workers]int
	start := time.Now()
	for w := range uint64(workers) {
		wg.Go(func() {
			for seed := first + w; seed < first+count && !t.Failed(); seed += workers {
				m, err := runModel(obs, modelDraws(seed), false)
				delivered[w] += len(m.delivered)
				reported[w] += len(m.reported)
				if err != nil {
					draws := minimise(obs, modelDraws(seed))
					m, err = runModel(obs, draws, true)
					t.Errorf("MODEL_SEED=%d: %v, after\n%s", seed, err, strings.Join(m.log, "\n"))
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d schedules in %v: %d records delivered, %d reported", count, time.Since(start).Round(time.Millisecond),
		delivered[0]+delivered[1], reported[0]+reported[1])
}
