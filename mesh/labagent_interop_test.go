//go:build interop && linux

package mesh

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// labEnv makes TestLabMain an agent, or the server, in a namespace of a lab. Its
// value is a labConfig in JSON.
const labEnv = "AGENTMESH_TEST_LAB"

type labConfig struct {
	Server string // the URL; an agent has a key as well
	Key    string // file of the identity
	Name   string
	Trust  map[string]string
	Peer   string // dialled and sent to
	// DialFor bounds the first dial; after that one without end follows.
	DialFor time.Duration
	STUN    []string
	TURN    []labRelay
	Paths   Paths
}

// TestLabMain is the main function of a lab's processes.
func TestLabMain(t *testing.T) {
	text := os.Getenv(labEnv)
	if text == "" {
		return
	}
	var cfg labConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Key == "" {
		at := strings.TrimSuffix(strings.TrimPrefix(cfg.Server, "ws://"), "/")
		s, err := signaling.NewServer(signaling.ServerConfig{Names: []string{at}})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("ready")
		t.Fatal(http.ListenAndServe(at, s))
	}
	if err := cfg.converse(); err != nil {
		fmt.Println("failed", err)
	}
}

// converse sends a message every 10 ms, with the application's own numbers, and
// says what comes in, until standard input ends. Then it waits until all is
// delivered, says how many there were, and goes on listening until it is killed.
// Its network is the system's own, and so are the notices of its changes.
func (c labConfig) converse() error {
	ctx := context.Background()
	id, err := keys.Load(c.Key, c.Name)
	if err != nil {
		return err
	}
	trust := &book{keys: map[string]keys.PublicKey{}}
	for name, text := range c.Trust {
		if trust.keys[name], err = keys.ParsePublicKey(text); err != nil {
			return err
		}
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := Config{Identity: id, Trust: trust, Logger: logger, Signaling: []string{c.Server}, STUN: c.STUN, Paths: c.Paths,
		Handler: func(_ context.Context, _ *Peer, m Message) {
			fmt.Println("got", m.ID, time.Now().UnixMicro())
		}}
	if len(c.TURN) > 0 {
		pool, err := labPool(c.TURN, logger)
		if err != nil {
			return err
		}
		defer pool.Close()
		cfg.TURN = pool
		go tellRelays(ctx, pool)
	}
	n, err := Listen(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	fmt.Println("ready")
	p, err := c.dial(ctx, n)
	if err != nil {
		return err
	}
	go func() {
		for ch := range p.Changes(ctx) {
			fmt.Println("status", ch.Path.Relayed(), ch.State, ch.Time.UnixMicro(), cmp.Or(ch.Path.Relay, "-"), ch.Reason, "/", ch.Path, "/", ch.Err)
		}
	}()
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 1; ; i++ {
		select {
		case <-tick.C:
		case <-over:
			if err := p.Flush(ctx); err != nil {
				return err
			}
			fmt.Println("sent", i-1)
			<-p.Context().Done()
			return context.Cause(p.Context())
		}
		if err := p.Send(ctx, Message{ID: strconv.Itoa(i)}); err != nil {
			return err
		}
	}
}

func (c labConfig) dial(ctx context.Context, n *Node) (*Peer, error) {
	if c.DialFor == 0 {
		return n.Dial(ctx, c.Peer)
	}
	bounded, cancel := context.WithTimeout(ctx, c.DialFor)
	defer cancel()
	p, err := n.Dial(bounded, c.Peer)
	if err != nil {
		fmt.Println("unreached", err)
		return n.Dial(ctx, c.Peer)
	}
	return p, nil
}

// labAgent is an agent's process as the test sees it. Times are those that the
// process told.
type labAgent struct {
	t     *testing.T
	name  string
	proc  *labProc
	began time.Time

	mu        sync.Mutex
	got       uint64 // the last message
	last      time.Time
	longest   time.Duration
	wrong     []string
	logs      []string
	state     string
	relayed   bool
	relay     string    // the server's address, or "-"
	since     time.Time // when it was first relayed, or not, as it is now
	relays    int       // that are usable
	sent      uint64
	finished  bool
	unreached string
}

func (a *labAgent) line(s string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	word, rest, _ := strings.Cut(s, " ")
	var micros int64
	switch word {
	case "got":
		var n uint64
		if _, err := fmt.Sscan(rest, &n, &micros); err != nil {
			a.wrong = append(a.wrong, s)
			return
		}
		at := time.UnixMicro(micros)
		if !a.last.IsZero() {
			a.longest = max(a.longest, at.Sub(a.last))
		}
		if a.last = at; n != a.got+1 {
			a.wrong = append(a.wrong, fmt.Sprintf("number %d after %d", n, a.got))
		}
		a.got = n
	case "status":
		var relayed bool
		var state, relay string
		if _, err := fmt.Sscan(rest, &relayed, &state, &micros, &relay); err != nil {
			a.wrong = append(a.wrong, s)
			return
		}
		if state == "connected" && (relayed != a.relayed || a.state == "") {
			a.relayed, a.since = relayed, time.UnixMicro(micros)
		}
		a.state, a.relay = state, relay
		a.t.Logf("%s %6dms %s", a.name, time.Since(a.began).Milliseconds(), rest)
	case "sent":
		if _, err := fmt.Sscan(rest, &a.sent); err != nil {
			a.wrong = append(a.wrong, s)
			return
		}
		a.finished = true
	case "relays":
		if _, err := fmt.Sscan(rest, &a.relays); err != nil {
			a.wrong = append(a.wrong, s)
		}
	case "unreached":
		a.unreached = rest
	default:
		if strings.HasPrefix(word, slog.TimeKey+"=") {
			a.logs = append(a.logs, s)
			return
		}
		a.wrong = append(a.wrong, s)
	}
}

// is evaluates a condition on what is known of the agent.
func (a *labAgent) is(ok func() bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return ok()
}

// messages waits until each of two agents got so many further messages and returns
// the longest pause since the last call.
func messages(t *testing.T, a, b *labAgent, more uint64) time.Duration {
	t.Helper()
	var longest time.Duration
	var want [2]uint64
	for i, x := range []*labAgent{a, b} {
		x.mu.Lock()
		want[i] = x.got + more
		x.mu.Unlock()
	}
	for i, x := range []*labAgent{a, b} {
		until(t, labLimit, fmt.Sprintf("%d messages to %s", more, x.name), func() bool { return x.is(func() bool { return x.got >= want[i] }) })
		x.mu.Lock()
		longest = max(longest, x.longest)
		x.longest = 0
		x.mu.Unlock()
	}
	return longest
}

// relayed says whether either of two agents knows of a relay: the other may see it
// as a peer-reflexive address.
func relayed(a, b *labAgent) bool {
	return a.is(func() bool { return a.relayed }) || b.is(func() bool { return b.relayed })
}

// finish ends the sending of two agents and checks that each got exactly what the
// other sent.
func finish(t *testing.T, a, b *labAgent) {
	t.Helper()
	for _, x := range []*labAgent{a, b} {
		x.proc.in.Close()
	}
	for _, x := range []*labAgent{a, b} {
		until(t, labLimit, x.name+" has delivered all", func() bool { return x.is(func() bool { return x.finished }) })
	}
	for _, x := range []*labAgent{a, b} {
		x.proc.kill() // and no line comes any more
		if len(x.wrong) > 0 {
			t.Errorf("%s: %q", x.name, x.wrong)
		}
	}
	if a.got != b.sent || b.got != a.sent {
		t.Errorf("%s sent %d, %s got %d; the other way %d and %d", a.name, a.sent, b.name, b.got, b.sent, a.got)
	}
	t.Logf("%s and %s got %d of %d messages", a.name, b.name, a.got+b.got, a.sent+b.sent)
}
