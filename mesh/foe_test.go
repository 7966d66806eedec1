package mesh

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// lines is a connector in memory: the other end of each connection is the
// test's own, which may send whatever it likes.
type lines struct {
	mu  sync.Mutex
	all []*line
}

func (*lines) Close() error { return nil }

func (l *lines) New(cert *keys.Certificate, _ connOptions) (conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &line{
		number: len(l.all), cert: cert.Fingerprint(), candidates: make(chan string),
		opened: make(chan struct{}), done: make(chan struct{}), drained: make(chan struct{}, 1),
	}
	close(c.candidates)
	l.all = append(l.all, c)
	return c, nil
}

// count is how many connections there were.
func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// living is how many of them are not closed.
func (l *lines) living() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.all {
		select {
		case <-c.done:
		default:
			n++
		}
	}
	return n
}

// of finds the connection that a description belongs to.
func (l *lines) of(t testing.TB, sdp string) *line {
	t.Helper()
	var n int
	_, after, _ := strings.Cut(sdp, "a=line:")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatalf("%v: %q", err, sdp)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[n]
}

// line is one conn. The test plays its other end through in and out.
type line struct {
	number     int
	cert       keys.Fingerprint
	candidates chan string
	opened     chan struct{}
	done       chan struct{}
	once       sync.Once
	drained    chan struct{}

	// They are set before opened is closed.
	remote  []byte // the certificate presented
	in, out chan []byte

	mu     sync.Mutex
	queued int // bytes in out
	added  int // candidates of the other side
}

func (c *line) Queued() uint64 { return uint64(c.waiting()) }

func (c *line) Packets() (sent, received uint64) { return 0, 0 }
func (c *line) Checks() (uint64, time.Duration)  { return 0, 0 }

func describe(cert keys.Fingerprint, number int) string {
	return fmt.Sprintf("v=0\r\na=fingerprint:sha-256 %s\r\na=line:%d\r\n", cert, number)
}

func (c *line) Offer(context.Context) (string, error) { return describe(c.cert, c.number), nil }
func (c *line) Answer(context.Context, string) (string, error) {
	return describe(c.cert, c.number), nil
}
func (c *line) Accept(string) error          { return nil }
func (c *line) Candidates() <-chan string    { return c.candidates }
func (c *line) Quiet() <-chan struct{}       { return nil }
func (c *line) Opened() <-chan struct{}      { return c.opened }
func (c *line) Done() <-chan struct{}        { return c.done }
func (c *line) RemoteCertificate() []byte    { return c.remote }
func (c *line) Path() (local, remote string) { return "host", "host" }
func (c *line) Base() netip.Addr             { return netip.Addr{} }

func (c *line) AddCandidate(string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.added++
	return nil
}

// open makes the connection usable, with the certificate that the other side
// presents.
func (c *line) open(cert []byte) {
	c.remote = cert
	c.in, c.out = make(chan []byte, 1<<15), make(chan []byte, 1<<15)
	close(c.opened)
}

func (c *line) Read(b []byte) (int, error) {
	// What came before the end is read first, as SCTP does.
	select {
	case f := <-c.in:
		return copyFrame(b, f)
	default:
	}
	select {
	case f := <-c.in:
		return copyFrame(b, f)
	case <-c.done:
		return 0, net.ErrClosed
	}
}

func copyFrame(b, f []byte) (int, error) {
	if len(f) > len(b) {
		return 0, errors.New("frame too long")
	}
	return copy(b, f), nil
}

func (c *line) Write(b []byte) error {
	select {
	case <-c.done:
		return net.ErrClosed
	default:
	}
	c.mu.Lock()
	c.queued += len(b)
	c.mu.Unlock()
	select {
	case c.out <- append([]byte(nil), b...):
		return nil
	default:
		return errors.New("more frames queued than a test looks at")
	}
}

func (c *line) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queued
}

func (c *line) Wait(ctx context.Context) error { return c.below(ctx, bufferHigh) }

func (c *line) Drain(ctx context.Context) error { return c.below(ctx, 0) }

func (c *line) below(ctx context.Context, mark int) error {
	for c.waiting() > mark {
		select {
		case <-c.drained:
		case <-c.done:
			return net.ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *line) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// duel is a Node and a foe: an agent with a trusted key that speaks the
// protocol by hand and keeps to no rule.
type duel struct {
	t     *testing.T
	hub   *hub
	lines *lines
	node  *Node // "agent-a"
	trust *book

	foe     *keys.Identity // "agent-m"
	private ed25519.PrivateKey
	end     *hubEnd
	cert    *keys.Certificate
	inst    signaling.Instance
	gen     uint64
}

// inDuel runs f in a bubble with a Node and its foe.
func inDuel(t *testing.T, f func(t *testing.T, d *duel), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		_, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		foe, err := keys.NewIdentity("agent-m", private)
		if err != nil {
			t.Fatal(err)
		}
		id := newIdentity(t, "agent-a")
		d := &duel{t: t, private: private, hub: newHub(time.Millisecond), lines: &lines{}, foe: foe, trust: newBook(id, foe),
			inst: signaling.NewInstance()}
		cert, err := keys.NewCertificate(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		d.cert = cert
		cfg := Config{Identity: id, Trust: d.trust, Window: minWindow}
		for _, c := range change {
			c(&cfg)
		}
		d.node = startNode(t, d.hub, d.lines, cfg)
		defer d.node.Close()
		d.end = d.hub.end("agent-m")
		defer d.end.Close()
		f(t, d)
	})
}

// as returns the duel with another trusted foe, which has its own hub end.
func (d *duel) as(id *keys.Identity) *duel {
	other := *d
	d.trust.mu.Lock()
	d.trust.keys[id.ID()] = id.PublicKey()
	d.trust.mu.Unlock()
	other.foe, other.inst, other.gen = id, signaling.NewInstance(), 0
	other.end = d.hub.end(id.ID())
	return &other
}

// seal makes an envelope of the foe to the Node.
func (d *duel) seal(kind signaling.Kind, ref signaling.Hash, body []byte, change ...func(*signaling.Envelope)) *signaling.Sealed {
	d.t.Helper()
	d.gen = max(d.gen+1, uint64(time.Now().UnixMilli()))
	e := signaling.Envelope{Kind: kind, Mesh: "default", To: "agent-a", Instance: d.inst, Generation: d.gen,
		Time: time.Now(), Ref: ref, Body: body}
	for _, c := range change {
		c(&e)
	}
	s, err := signaling.Seal(d.foe, e)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// description is the foe's, of a connection with its certificate.
func (d *duel) description() []byte {
	fp := d.cert.Fingerprint()
	return (&descriptionBody{SDP: describe(fp, 0), Fingerprint: fp}).encode()
}

// heard returns the next envelope to the foe, nil after a while without one.
func (d *duel) heard() *signaling.Sealed {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for {
		ev, err := d.end.Receive(ctx)
		if err != nil {
			return nil
		}
		if ev.Kind != signaling.EventEnvelope {
			continue
		}
		s, err := signaling.Parse(ev.Envelope)
		if err == nil {
			err = s.Verify()
		}
		if err != nil {
			d.t.Fatal(err)
		}
		return s
	}
}

// foeEnd is the foe's end of a connection.
type foeEnd struct {
	*duel
	line *line
	bind binding   // as the foe sees it
	next uint64    // number of the foe's next record
	said helloBody // by the Node
}

// negotiate takes the foe's own offer as far as an open connection, on which
// nothing was said.
func (d *duel) negotiate() *foeEnd {
	d.t.Helper()
	offer := d.seal(signaling.Offer, signaling.Hash{}, d.description())
	d.hub.inject("agent-a", offer.Bytes())
	for {
		e := d.heard()
		if e == nil {
			d.t.Fatal("no answer to the foe's offer")
		}
		if e.Kind == signaling.Answer && e.Ref == offer.Hash() {
			return d.opened(e, offer.Hash(), e.Hash())
		}
	}
}

// opened opens the connection that an envelope of the Node describes.
func (d *duel) opened(e *signaling.Sealed, offer, answer signaling.Hash) *foeEnd {
	d.t.Helper()
	desc, err := decodeDescription(e.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	w := &foeEnd{duel: d, line: d.lines.of(d.t, desc.SDP), next: 1, bind: binding{
		mesh: "default", local: d.foe.ID(), remote: "agent-a", localInst: d.inst, remoteInst: e.Instance,
		offer: offer, answer: answer, localCert: d.cert.Fingerprint(), remoteCert: desc.Fingerprint}}
	w.line.open(d.cert.Leaf.Raw)
	return w
}

// connect negotiates and exchanges hellos.
func (d *duel) connect(change ...func(*helloBody)) *foeEnd {
	d.t.Helper()
	w := d.negotiate()
	w.greet(change...)
	return w
}

// greet reads the Node's hello and sends the foe's.
func (w *foeEnd) greet(change ...func(*helloBody)) *helloBody {
	w.t.Helper()
	h, err := verifyHello(w.get(), w.node.cfg.Identity.PublicKey(), w.bind)
	if err != nil {
		w.t.Fatal(err)
	}
	w.said = *h
	w.put(w.hello(w.foe, change...))
	return h
}

// hello is the foe's hello as that identity signs it.
func (w *foeEnd) hello(id *keys.Identity, change ...func(*helloBody)) []byte {
	w.t.Helper()
	h := helloBody{FromInstance: w.bind.localInst, ToInstance: w.bind.remoteInst, Offer: w.bind.offer, Answer: w.bind.answer,
		OwnCert: w.bind.localCert, PeerCert: w.bind.remoteCert, Window: minWindow, Credit: minWindow}
	for _, c := range change {
		c(&h)
	}
	body := h.encode()
	sig, err := id.Sign(helloStatement(w.bind.mesh, w.bind.local, w.bind.remote, body))
	if err != nil {
		w.t.Fatal(err)
	}
	return (&helloFrame{Body: body, Signature: sig}).encode()
}

// put sends frames to the Node and waits until it has dealt with them.
func (w *foeEnd) put(frames ...[]byte) {
	for _, f := range frames {
		w.line.in <- f
	}
	synctest.Wait()
}

// get returns the next frame of the Node but echoes, nil when it is silent.
func (w *foeEnd) get() []byte {
	for {
		f := w.any()
		if k, err := peekFrame(f); f == nil || err != nil || k != kindEcho {
			return f
		}
	}
}

// any returns the next frame of the Node, nil when it is silent.
func (w *foeEnd) any() []byte {
	synctest.Wait()
	select {
	case f := <-w.line.out:
		w.line.mu.Lock()
		w.line.queued -= len(f)
		w.line.mu.Unlock()
		select {
		case w.line.drained <- struct{}{}:
		default:
		}
		return f
	default:
		return nil
	}
}

// record encodes a message of the foe under its next number.
func (w *foeEnd) record(m Message) []byte {
	if m.ID == "" {
		m.ID = fmt.Sprint("m-", w.next)
	}
	if m.Destination == "" {
		m.Destination = "agent-a"
	}
	if m.SequenceNum == 0 {
		m.SequenceNum = w.next
		w.next++
	}
	if m.Payload == nil {
		m.Payload = []byte("null")
	}
	m.Timestamp, m.Level, m.Performative = time.Now(), 2, "inform"
	return encodeRecord(&m)
}

// batch signs records as the foe and as they stand.
func (w *foeEnd) batch(recs ...[]byte) []byte {
	w.t.Helper()
	return w.signedBy(w.foe, w.bind.mesh, w.bind.local, w.bind.localInst, recs...)
}

func (w *foeEnd) signedBy(id *keys.Identity, mesh, from string, inst signaling.Instance, recs ...[]byte) []byte {
	w.t.Helper()
	var leaves []tlog.Hash
	for _, r := range recs {
		leaves = append(leaves, leafHash(r))
	}
	var root tlog.Hash
	if len(leaves) > 0 {
		root = merkleRoot(leaves)
	}
	sig, err := id.Sign(batchStatement(mesh, from, inst, len(leaves), root))
	if err != nil {
		w.t.Fatal(err)
	}
	return (&batchFrame{Signature: sig, Records: recs}).encode(nil)
}

// positions is a frame with what the foe claims to have received.
func positions(list ...position) []byte { return (&positionsFrame{Positions: list}).encode() }

// accept returns the Peer of the foe's session.
func (d *duel) accept() *Peer {
	d.t.Helper()
	synctest.Wait()
	select {
	case p := <-d.node.accepted:
		return p
	default:
		d.t.Fatal("the foe has no Peer")
		return nil
	}
}

// nothing checks that the Peer has no message.
func nothing(t testing.TB, p *Peer) {
	t.Helper()
	p.led.mu.Lock()
	defer p.led.mu.Unlock()
	for _, in := range p.led.inbox {
		t.Errorf("message %d was accepted: %s", in.msg.SequenceNum, in.msg.Payload)
	}
}

// ended checks that the Peer has closed for a broken rule, and that the foe
// was told.
func (w *foeEnd) ended(p *Peer, want error) {
	w.t.Helper()
	synctest.Wait()
	if cause := context.Cause(p.Context()); !errors.Is(cause, want) {
		w.t.Errorf("the Peer ended with %v, want %v", cause, want)
		return
	}
	for f := w.get(); f != nil; f = w.get() {
		if k, _ := peekFrame(f); k == kindGoodbye {
			if bye, err := decodeGoodbyeFrame(f); err != nil || bye.Code != goodbyeProtocol {
				w.t.Errorf("goodbye %v, %v", bye, err)
			}
			return
		}
	}
	w.t.Error("no goodbye")
}
