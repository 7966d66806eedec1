package mesh

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/resolve"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// parting is the signaler and connector of a Node, of which Close fails.
type parting struct {
	signaler
	connector
	name   string
	err    error
	closed *[]string
}

func (p parting) Close() error {
	*p.closed = append(*p.closed, p.name)
	return p.err
}

// TestNodeLeaves: at its end a Node closes what it has, in order, and says what did not close well.
func TestNodeLeaves(t *testing.T) {
	broken := errors.New("broken")
	for err, want := range map[error][]string{
		nil:    nil,
		broken: {"close signaling", "close connector", "close network watch"},
	} {
		n := stillPeer(t).node
		n.peers = map[string]*member{}
		log := new(said)
		n.log = slog.New(log)
		var closed []string
		n.signaler = parting{signaler: n.signaler, name: "signaling", err: err, closed: &closed}
		n.connector = parting{connector: n.connector, name: "connector", err: err, closed: &closed}
		n.closeNet = func() error { closed = append(closed, "network"); return err }
		for range 2 {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
		if !slices.Equal(closed, []string{"signaling", "connector", "network"}) || !slices.Equal(log.all, want) {
			t.Errorf("%v: closed %q, said %q", err, closed, log.all)
		}
		if !errors.Is(context.Cause(n.ctx), net.ErrClosed) {
			t.Errorf("%v", context.Cause(n.ctx))
		}
	}
	n := stillPeer(t).node
	n.peers = map[string]*member{}
	log := new(said)
	n.log = slog.New(log)
	var closed []string
	n.signaler = parting{signaler: n.signaler, name: "signaling", err: net.ErrClosed, closed: &closed}
	if err := n.Close(); err != nil || len(log.all) != 0 {
		t.Errorf("closed before: %v, said %q", err, log.all)
	}
}

// dials is a network of which a test has the other ends of the connections.
type dials struct {
	transport.Net
	err    error
	hangUp bool
	ends   []net.Conn
	timed  []*net.Dialer
}

func (d *dials) CreateDialer(n *net.Dialer) transport.Dialer {
	d.timed = append(d.timed, n)
	return d
}

func (d *dials) Dial(string, string) (net.Conn, error) {
	if d.err != nil {
		return nil, d.err
	}
	near, far := net.Pipe()
	if d.hangUp {
		far.Close()
	}
	d.ends = append(d.ends, far)
	return near, nil
}

// TestRelayDialer: what a relay's dialer makes of the relay's configuration, and that what it has dialled
// is closed with it, also what it had dialled when it was stopped.
func TestRelayDialer(t *testing.T) {
	mine := &tls.Config{ServerName: "mine", MinVersion: tls.VersionTLS13}
	for name, c := range map[string]struct {
		server  resolve.Server
		cfg     *tls.Config
		name    string
		version uint16
	}{
		"TCP":                {resolve.Server{Host: "r"}, mine, "", 0},
		"TLS":                {resolve.Server{Host: "r", TLS: true}, nil, "r", tls.VersionTLS12},
		"TLS of one's own":   {resolve.Server{Host: "r", TLS: true}, mine, "mine", tls.VersionTLS13},
		"TLS, nothing in it": {resolve.Server{Host: "r", TLS: true}, new(tls.Config), "r", tls.VersionTLS12},
	} {
		d := newRelayDialer(nil, &turn.Relay{TLS: c.cfg}, c.server)
		if (d.tls != nil) != c.server.TLS {
			t.Errorf("%s: TLS %v", name, d.tls != nil)
		} else if d.tls != nil && (d.tls.ServerName != c.name || d.tls.MinVersion != c.version || d.tls == c.cfg) {
			t.Errorf("%s: %q, %x", name, d.tls.ServerName, d.tls.MinVersion)
		}
		d.cancel()
	}
	if newRelayDialer(nil, &turn.Relay{}, resolve.Server{Host: "r", UDP: true}) != nil {
		t.Error("UDP needs a dialer")
	}

	n := &dials{err: io.ErrNoProgress}
	d := newRelayDialer(n, &turn.Relay{}, resolve.Server{Host: "r"})
	if c, err := d.Dial("tcp", "r:1"); c != nil || !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("%v, %v", c, err)
	}
	n.err = nil
	c, err := d.Dial("tcp", "r:1")
	if err != nil || len(d.conns) != 1 || n.timed[0].Timeout != attemptTimeout {
		t.Fatalf("%v, %d connections, %v", err, len(d.conns), n.timed[0].Timeout)
	}
	open := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now().Add(-time.Second))
		_, err := c.Read(make([]byte, 1))
		return !errors.Is(err, io.EOF)
	}
	end := d.stop()
	if !open(n.ends[0]) {
		t.Error("it is closed before its moment is over")
	}
	if _, err := d.Dial("tcp", "r:1"); !errors.Is(err, net.ErrClosed) || open(n.ends[1]) {
		t.Errorf("dialled while it stops: %v, and it is open: %v", err, open(n.ends[1]))
	}
	end()
	if open(n.ends[0]) || d.conns != nil {
		t.Error("it is open after its end")
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("written after its end: %v", err)
	}

	d = newRelayDialer(n, &turn.Relay{}, resolve.Server{Host: "r", TLS: true})
	n.hangUp = true
	if c, err := d.Dial("tcp", "r:1"); c != nil || err == nil {
		t.Errorf("a handshake with nobody: %v", err)
	}
	d.stop()()
}

// TestSendOnDeadConnection: whatever a session has to send, a connection that is gone is the reason why it
// was not sent.
func TestSendOnDeadConnection(t *testing.T) {
	record := make([]byte, 10)
	for name, w := range map[string]work{
		"a skip":             {skip: &skipFrame{Flow: messageFlow, Number: 2}},
		"positions":          {positions: []position{{Flow: messageFlow}}},
		"records":            {records: [][]byte{record}},
		"a skip and records": {skip: &skipFrame{Flow: messageFlow, Number: 2}, records: [][]byte{record}},
		"a large record":     {records: [][]byte{make([]byte, 2*maxFrame)}},
	} {
		p := stillPeer(t)
		s := newSession(p.node, p.led, newDeadConn(), order{})
		if err := s.send(w); !errors.Is(err, ErrConnectionLost) || s.written.Load() != 0 {
			t.Errorf("%s: %v, %d bytes written", name, err, s.written.Load())
		}
		on := newPaper()
		s = newSession(p.node, p.led, on, order{})
		if err := s.send(w); err != nil || len(on.frames) == 0 {
			t.Errorf("%s: %v, %d frames", name, err, len(on.frames))
		}
		written := 0
		for _, f := range on.frames {
			written += len(f)
		}
		if int(s.written.Load()) != written {
			t.Errorf("%s: %d bytes counted, %d written", name, s.written.Load(), written)
		}
		kind, err := peekFrame(on.frames[0])
		if err != nil || (kind == kindSkip) != (w.skip != nil) || len(w.records) > 0 && len(w.records[0]) > maxFrame && kind != kindPart {
			t.Errorf("%s: begins with kind %d, %v", name, kind, err)
		}
	}
	p := stillPeer(t)
	s := newSession(p.node, p.led, newDeadConn(), order{})
	if err := s.send(work{}); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

// TestCarried: an envelope of others is put on a session where there is room for it.
func TestCarried(t *testing.T) {
	for name, c := range map[string]struct {
		size   int
		queued uint64
		dead   bool
		want   bool
	}{
		"room":              {100, maxCarriedQueue, false, true},
		"no room":           {100, maxCarriedQueue + 1, false, false},
		"as large as may":   {maxCarriedEnvelope, 0, false, true},
		"larger":            {maxCarriedEnvelope + 1, 0, false, false},
		"a connection gone": {100, 0, true, false},
	} {
		p := stillPeer(t)
		on := newPaper()
		on.queued = c.queued
		s := newSession(p.node, p.led, on, order{})
		if c.dead {
			s = newSession(p.node, p.led, newDeadConn(), order{})
		}
		if got := s.carry(make([]byte, c.size)); got != c.want || (len(on.frames) == 1) != c.want {
			t.Errorf("%s: %v, %d frames", name, got, len(on.frames))
		}
	}
}

// TestVerifyOfBrokenMessages: a message that breaks the format is refused with its field, whatever its
// signature, and one of another mesh or without a signature as such.
func TestVerifyOfBrokenMessages(t *testing.T) {
	id := newIdentity(t, "agent-a")
	trust := newBook(id)
	for name, c := range map[string]struct {
		change func(m *Message)
		field  string
		is     error
	}{
		"as it was":        {func(*Message) {}, "", nil},
		"no signature":     {func(m *Message) { m.Signature = nil }, "", ErrUnsigned},
		"another mesh":     {func(m *Message) { m.Signature.Mesh = "other" }, "", ErrWrongMesh},
		"no tree":          {func(m *Message) { m.Signature.TreeSize = 0 }, "signature.tree_size", nil},
		"a huge tree":      {func(m *Message) { m.Signature.TreeSize = maxTree + 1 }, "signature.tree_size", nil},
		"outside the tree": {func(m *Message) { m.Signature.Index = 2 }, "signature.index", nil},
		"before the tree":  {func(m *Message) { m.Signature.Index = -1 }, "signature.index", nil},
		"a long ID":        {func(m *Message) { m.ID = strings.Repeat("x", 1<<16) }, "id", nil},
		"no JSON":          {func(m *Message) { m.Payload = json.RawMessage("{") }, "payload", nil},
		"another payload":  {func(m *Message) { m.Payload = json.RawMessage("{}") }, "", keys.ErrBadSignature},
		"another place":    {func(m *Message) { m.Signature.Index = 0 }, "", keys.ErrBadSignature},
		"another source":   {func(m *Message) { m.Source = "agent-c" }, "", keys.ErrBadSignature},
		"another instance": {func(m *Message) { m.Signature.Instance[0]++ }, "", keys.ErrBadSignature},
	} {
		m := signed(t, id, "default", "agent-b", signaling.Instance{1}, []Message{{ID: "1"}, {ID: "2", Payload: json.RawMessage(`[1]`)}})[1]
		c.change(&m)
		err := m.Verify(t.Context(), "default", trust)
		var me *MessageError
		switch {
		case c.is == nil && c.field == "":
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case c.is != nil:
			if !errors.Is(err, c.is) {
				t.Errorf("%s: %v", name, err)
			}
		case !errors.As(err, &me) || me.Field != c.field:
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNetworkWithoutRest: changes of the whole network that do not end are acted on less and less often, and
// at once again after a rest; others are not held up.
func TestNetworkWithoutRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := stillPeer(t).node
		start := time.Now()
		var asked []time.Duration
		n.nextChange = func(ctx context.Context) (change, error) {
			asked = append(asked, time.Since(start))
			switch k := len(asked); {
			case k == 8: // a rest
				time.Sleep(networkPauseMost)
				return change{all: true}, nil
			case k == 9:
				return change{}, nil
			case k < 12:
				return change{rerouted: true}, nil
			}
			<-ctx.Done()
			return change{}, ctx.Err()
		}
		n.work.Go(n.watchNetwork)
		time.Sleep(time.Hour)
		synctest.Wait()
		var want []time.Duration
		for _, ms := range []int{0, 200, 600, 1400, 3000, 6200, 11200, 16200, 21400, 21400, 21800, 22600} {
			want = append(want, time.Duration(ms)*time.Millisecond)
		}
		if !slices.Equal(asked, want) {
			t.Errorf("asked after %v", asked)
		}
		n.cancel(net.ErrClosed)
		n.work.Wait()
	})
}

// TestFramesOfASession: what each kind of frame does, cut off or whole, and what is no frame of a session.
func TestFramesOfASession(t *testing.T) {
	for name, c := range map[string]struct {
		frame     []byte
		confirms  bool
		is        error // of the whole frame
		envelopes int
	}{
		"positions":      {(&positionsFrame{}).encode(), true, nil, 0},
		"a skip":         {(&skipFrame{Flow: messageFlow, Number: 1}).encode(), true, nil, 0},
		"an echo":        {(&echoFrame{}).encode(), true, nil, 0},
		"a goodbye":      {(&goodbyeFrame{Code: goodbyeClosed, Text: "x"}).encode(), false, ErrPeerClosed, 0},
		"an envelope":    {(&envelopeFrame{Envelope: []byte("x")}).encode(), true, nil, 1},
		"an empty batch": {(&batchFrame{Signature: make([]byte, signatureLen)}).encode(nil), true, ErrProtocol, 0},
		"a hello":        {(&helloFrame{Body: []byte("x"), Signature: make([]byte, signatureLen)}).encode(), true, ErrProtocol, 0},
	} {
		for cut := range 3 {
			p := stillPeer(t)
			s, _ := onPaper(t, p, 5)
			for len(p.tasks) > 0 {
				<-p.tasks
			}
			frame := slices.Clone(c.frame[:len(c.frame)-cut])
			err := s.handle(frame)
			if cut == 0 && !errors.Is(err, c.is) || cut == 0 && c.is == nil && err != nil || cut > 0 && err == nil {
				t.Errorf("%s, %d bytes less: %v", name, cut, err)
			}
			if cut == 0 && (s.confirmed.Load() != c.confirms || (len(p.tasks) == 1) != (c.confirms && s.peer != nil) || len(p.node.carried) != c.envelopes) {
				t.Errorf("%s: confirmed %v, %d tasks, %d envelopes", name, s.confirmed.Load(), len(p.tasks), len(p.node.carried))
			}
		}
	}
	p := stillPeer(t)
	s, _ := onPaper(t, p, 5)
	log := new(said)
	p.node.obs.log = slog.New(log)
	s.carried.SetLimit(0)
	s.carried.SetBurst(1)
	for range 3 {
		if err := s.handle((&envelopeFrame{Envelope: []byte("x")}).encode()); err != nil {
			t.Error(err)
		}
	}
	if len(p.node.carried) > 1 || !slices.Contains(log.all, "too many envelopes") {
		t.Errorf("%d envelopes, said %q", len(p.node.carried), log.all)
	}
	for code, want := range map[goodbyeCode]error{goodbyeClosed: ErrPeerClosed, goodbyeReplaced: ErrReplaced, goodbyeUntrusted: ErrRefused, goodbyeProtocol: ErrProtocol} {
		for _, text := range []string{"", "why"} {
			err := error(&goodbyeError{code, text})
			if !errors.Is(err, want) || text == "" && err.Error() != want.Error() || text != "" && err.Error() != want.Error()+": why" {
				t.Errorf("%d: %v", code, err)
			}
		}
	}
}

// TestLogsOfPion: what pion says is told at debug level, but for traces, and costs nothing where nobody listens.
func TestLogsOfPion(t *testing.T) {
	var b strings.Builder
	at := new(slog.LevelVar)
	at.Set(slog.LevelDebug)
	l := pionLogs{slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: at}))}.NewLogger("ice")
	for name, say := range map[string]func(){
		"debug": func() { l.Debug("a %s b") }, "debugf": func() { l.Debugf("a %s b", "%s") },
		"info": func() { l.Info("a %s b") }, "infof": func() { l.Infof("a %s b", "%s") },
		"warn": func() { l.Warn("a %s b") }, "warnf": func() { l.Warnf("a %s b", "%s") },
		"error": func() { l.Error("a %s b") }, "errorf": func() { l.Errorf("a %s b", "%s") },
	} {
		b.Reset()
		say()
		if text := b.String(); !strings.Contains(text, `level=DEBUG msg="a %s b" pion=ice`) {
			t.Errorf("%s: %q", name, text)
		}
		at.Set(slog.LevelInfo)
		b.Reset()
		say()
		if b.Len() > 0 {
			t.Errorf("%s: %q at info", name, b.String())
		}
		at.Set(slog.LevelDebug)
	}
	b.Reset()
	l.Trace("x")
	l.Tracef("x")
	if b.Len() > 0 {
		t.Errorf("a trace: %q", b.String())
	}
}
