package mesh

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// pensive is a Trust that takes its time about whom it does not know.
type pensive struct {
	*book
	takes time.Duration
}

func (p pensive) Check(ctx context.Context, c keys.Claim) (keys.Verdict, error) {
	v, err := p.book.Check(ctx, c)
	if v.Decision == keys.Yes || err != nil {
		return v, err
	}
	select {
	case <-time.After(p.takes):
		return v, nil
	case <-ctx.Done():
		return keys.Verdict{}, ctx.Err()
	}
}

// keyService signs as one does: after a while.
type keyService struct {
	ed25519.PrivateKey
	takes time.Duration
}

func (k keyService) Sign(r io.Reader, msg []byte, o crypto.SignerOpts) ([]byte, error) {
	<-time.After(k.takes)
	return k.PrivateKey.Sign(r, msg, o)
}

// strangers offer from their own keys, so many a second, until the returned function is
// called.
//
// bubble: its goroutine sleeps.
func (d *duel) strangers(ids []*keys.Identity, perSecond int) (stop func()) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			case <-time.After(time.Second / time.Duration(perSecond)):
			}
			e, err := signaling.Seal(ids[i%len(ids)], signaling.Envelope{Kind: signaling.Offer, Mesh: "default", To: "agent-a",
				Instance: d.inst, Generation: uint64(time.Now().UnixMilli()), Time: time.Now(), Body: d.description()})
			if err != nil {
				d.t.Error(err)
				return
			}
			d.hub.inject("agent-a", e.Bytes())
		}
	})
	return func() { close(over); wg.Wait() }
}

// answered offers as the foe and returns how long the answer took.
func (d *duel) answered(t *testing.T, within time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	d.hub.inject("agent-a", d.seal(signaling.Offer, signaling.Hash{}, d.description()).Bytes())
	for time.Since(start) < within {
		if e := d.heard(); e != nil && e.Kind == signaling.Answer {
			return time.Since(start)
		}
	}
	t.Errorf("no answer in %v", within)
	return within
}

// TestStrangersKeepNobodyOut: however long the question about strangers takes, and
// however many of them there are, an agent that trust knows is answered at once.
func TestStrangersKeepNobodyOut(t *testing.T) {
	many := make([]*keys.Identity, 200)
	for i := range many {
		many[i] = newIdentity(t, fmt.Sprintf("stranger-%d", i))
	}
	for name, c := range map[string]struct {
		ids   []*keys.Identity
		takes time.Duration
	}{
		"one, 100 ms":      {many[:1], 100 * time.Millisecond},
		"many, 100 ms":     {many, 100 * time.Millisecond},
		"many, no answer":  {many, time.Hour},
		"foe's name taken": {[]*keys.Identity{newIdentity(t, "agent-m")}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			inDuel(t, func(t *testing.T, d *duel) {
				stop := d.strangers(c.ids, 100)
				defer stop()
				time.Sleep(10 * time.Second)
				if took := d.answered(t, 10*time.Second); took > 20*time.Millisecond {
					t.Errorf("a friend is answered after %v", took)
				}
			}, func(cfg *Config) { cfg.Trust = pensive{cfg.Trust.(*book), c.takes} })
		})
	}
}

// TestKeyServiceKeepsNobodyOut: a key service that signs in 250 ms signs twenty refusals
// a second no more than before; a friend waits for his own signature only.
func TestKeyServiceKeepsNobodyOut(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		stop := d.strangers([]*keys.Identity{newIdentity(t, "stranger")}, 20)
		defer stop()
		time.Sleep(20 * time.Second)
		if took := d.answered(t, time.Minute); took > 600*time.Millisecond {
			t.Errorf("a friend is answered after %v", took)
		}
	}, func(c *Config) {
		_, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.Identity, err = keys.NewIdentity("agent-a", keyService{private, 250 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	})
}

// refusal waits for the answer to an offer of the foe, which must be a refusal.
func (d *duel) refusal(t *testing.T, offer *signaling.Sealed) rejectBody {
	t.Helper()
	d.hub.inject("agent-a", offer.Bytes())
	e := d.heard()
	if e == nil || e.Kind != signaling.Reject || e.Ref != offer.Hash() {
		t.Fatalf("%+v comes to %v", e, offer.Hash())
	}
	b, err := decodeReject(e.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestClockRefused: an offer whose time is off is refused with both times, if its author
// is trusted and nothing fresh has come of him, and told once as what it probably is. A
// stranger hears nothing of clocks.
func TestClockRefused(t *testing.T) {
	for _, off := range []time.Duration{-6 * time.Minute, 6 * time.Minute, 30 * 24 * time.Hour} {
		events := &countedEvents{of: map[witness.Name]int{}}
		log := &logged{}
		inDuel(t, func(t *testing.T, d *duel) {
			skewed := func(e *signaling.Envelope) {
				e.Time = time.Now().Add(off)
				e.Generation = uint64(e.Time.UnixMilli())
			}
			for range 8 { // as often as an attempt repeats its offer
				offer := d.seal(signaling.Offer, signaling.Hash{}, d.description(), skewed)
				b := d.refusal(t, offer)
				if b.Code != rejectClock || b.Theirs != uint64(offer.Time.UnixMilli()) || time.Since(time.UnixMilli(int64(b.Ours))).Abs() > time.Second {
					t.Errorf("%v off: refused with %+v", off, b)
				}
			}
			replays := 0
			if off < 0 { // nobody can have recorded what is of the future
				replays = 1
			}
			if n := events.count(witness.ReplayRejected); n != replays {
				t.Errorf("%v off: %d security events", off, n)
			}
			if n := log.count("the clocks are too far apart"); n != 1 {
				t.Errorf("%v off: said %d times: %s", off, n, log.lines)
			}
			stranger := *d
			stranger.foe = newIdentity(t, "agent-m")
			if b := stranger.refusal(t, stranger.seal(signaling.Offer, signaling.Hash{}, d.description(), skewed)); b.Code != rejectUntrusted || b.Ours != 0 {
				t.Errorf("a stranger hears %+v", b)
			}
			// His clock is right: what is old now was recorded by somebody.
			d.gen = 0
			if took := d.answered(t, time.Second); took > time.Second {
				t.Error("no answer with the right clock")
			}
			for d.heard() != nil {
			}
			old := d.seal(signaling.Offer, signaling.Hash{}, d.description(), skewed)
			d.hub.inject("agent-a", old.Bytes())
			for e := d.heard(); e != nil; e = d.heard() {
				if e.Ref == old.Hash() {
					t.Errorf("an old offer beside fresh ones is answered with %v", e.Kind)
				}
			}
		}, func(c *Config) { c.Recorder, c.Logger = events, log.logger() })
	}
}

// TestClockInDialError: whoever dials with a clock that is off hears so, with both times,
// whichever side's it is.
func TestClockInDialError(t *testing.T) {
	for name, off := range map[string][2]time.Duration{
		"dialler slow": {-6 * time.Minute, 0},
		"dialler fast": {time.Hour, 0},
		"callee slow":  {0, -6 * time.Minute},
		"callee fast":  {0, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
				at := func(d time.Duration) func(*Config) {
					return func(c *Config) { c.Time = func() time.Time { return time.Now().Add(d).Round(0) } }
				}
				a := w.agent("agent-a", virtual.Open, at(off[0]))
				w.agent("agent-b", virtual.Open, at(off[1]))
				now := time.Now()
				_, err := dialFor(a, "agent-b", 5*time.Second)
				story := fmt.Sprintf("the clocks are %v apart: %s", (off[0] - off[1]).Abs(), now.Add(off[0]).UTC().Format("2006-01-02T15:"))
				var clock *ClockError
				if !errors.As(err, &clock) || !strings.Contains(err.Error(), story) {
					t.Fatalf("%v does not say %q", err, story)
				}
				if d := clock.Ours.Sub(clock.Theirs) - (off[0] - off[1]); d.Abs() > time.Second || clock.Peer != "agent-b" {
					t.Errorf("%v, which is %v wrong", clock, d)
				}
			})
		})
	}
}

// TestRefusalOfNothing: a refusal is believed whatever its time if it is of an envelope
// that waits for an answer, and otherwise not even looked at.
func TestRefusalOfNothing(t *testing.T) {
	events := &countedEvents{of: map[witness.Name]int{}}
	inDuel(t, func(t *testing.T, d *duel) {
		old := func(e *signaling.Envelope) { e.Time = time.Now().Add(-time.Hour) }
		body := (&rejectBody{Code: rejectUntrusted}).encode()
		d.hub.inject("agent-a", d.seal(signaling.Reject, signaling.Hash{1}, body, old).Bytes())
		if d.heard() != nil || events.count(witness.ReplayRejected) != 1 {
			t.Error("an old refusal of nothing counts")
		}
		dialled := make(chan error, 1)
		go func() { _, err := dialFor(d.node, "agent-m", time.Minute); dialled <- err }()
		offer := d.heard()
		d.hub.inject("agent-a", d.seal(signaling.Reject, offer.Hash(), body, old).Bytes())
		if err := <-dialled; !errors.Is(err, ErrRefused) {
			t.Error(err)
		}
	}, func(c *Config) { c.Recorder = events })
}

// TestMalformedOfferRefused: who cannot read an offer says so.
func TestMalformedOfferRefused(t *testing.T) {
	inDuel(t, func(t *testing.T, d *duel) {
		other := keys.Fingerprint{1}
		for name, body := range map[string][]byte{
			"no CBOR":             []byte("x"),
			"nothing":             nil,
			"no SDP":              (&descriptionBody{Fingerprint: d.cert.Fingerprint()}).encode(),
			"another certificate": (&descriptionBody{SDP: describe(other, 0), Fingerprint: d.cert.Fingerprint()}).encode(),
		} {
			if b := d.refusal(t, d.seal(signaling.Offer, signaling.Hash{}, body)); b.Code != rejectMalformed || b.Text == "" {
				t.Errorf("%s: %+v", name, b)
			}
		}
	})
}

// exhausted is a Net that has no sockets to give.
type exhausted struct {
	transport.Net
	err error
	on  *atomic.Bool
}

func (e exhausted) ListenUDP(network string, a *net.UDPAddr) (transport.UDPConn, error) {
	if e.on.Load() {
		return nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("socket", e.err)}
	}
	return e.Net.ListenUDP(network, a)
}

func (e exhausted) ListenPacket(network, a string) (net.PacketConn, error) {
	if e.on.Load() {
		return nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("socket", e.err)}
	}
	return e.Net.ListenPacket(network, a)
}

// TestUnableIsSaid: an agent that has no descriptors left says so, and the dial ends with
// that reason instead of with silence; its own log has it too.
func TestUnableIsSaid(t *testing.T) {
	inWorld(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true}, func(w *world) {
		var on atomic.Bool
		log := &logged{}
		a := w.agent("agent-a", virtual.Open)
		w.agent("agent-b", virtual.Open, func(c *Config) {
			c.Net, c.Logger = exhausted{c.Net, syscall.EMFILE, &on}, log.logger()
		})
		on.Store(true)
		_, err := dialFor(a, "agent-b", 3*time.Second)
		if err == nil || !strings.Contains(err.Error(), "no file descriptors") {
			t.Errorf("dial: %v", err)
		}
		if log.count("an offer cannot be answered") == 0 {
			t.Errorf("the log of the other side: %s", log.lines)
		}
		on.Store(false)
		if _, err := dialFor(a, "agent-b", 10*time.Second); err != nil {
			t.Error(err)
		}
	})
}

// countedEvents counts security events and what else is witnessed.
type countedEvents struct {
	mu sync.Mutex
	of map[witness.Name]int
}

func (c *countedEvents) Record(_ context.Context, e witness.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of[e.Name]++
}

func (c *countedEvents) count(t witness.Name) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[t]
}
