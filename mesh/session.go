package mesh

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/time/rate"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/turn"
)

// order ranks the sessions of a pair: by the generation in the signed offer,
// then by the offerer's key. Both sides see the same order.
type order struct {
	generation uint64
	offerer    keys.PublicKey
}

func (o order) compare(p order) int {
	if c := cmp.Compare(o.generation, p.generation); c != 0 {
		return c
	}
	return o.offerer.Compare(p.offerer)
}

// session is one connection whose hellos are being or were exchanged. It has
// two goroutines: the reader, which the negotiation turns into, and the writer.
type session struct {
	conn      conn
	led       *ledger
	node      *Node
	peer      *Peer // nil in tests of the session alone
	order     order
	bind      binding
	remoteKey keys.PublicKey

	why Reason // it was made

	// Of the attempt that made it.

	first    chan firstFrame // what a standby has read or will read; nil for others
	own      *turn.Relay     // that this side gathered from, nil for none
	fellBack bool            // no direct path was found in time
	slim     bool            // it goes in small packets
	kinds    []string        // of its path

	// Since the hello.

	told  memory // by this side
	proof proof  // of the path
	relay string // the TURN server that the path goes over, "" for none
	owned bool   // by this side's candidate

	// Owned by the Peer's loop.

	passed  bool      // a higher session carries the messages: none goes back to this one
	retired bool      // and both sides have that one: this is about to be closed
	moved   int64     // bytes that the transport had handed over
	checked time.Time // when that was looked at last
	// adrift is set when a change of the network has taken away what the session went
	// by: how often the next one begins its replacement anew.
	adrift *rate.Limiter

	wake    chan struct{} // capacity 1: the ledger may have work
	proved  atomic.Int64  // when the other side last answered, in nanoseconds since node.start
	pinged  atomic.Int64  // when the last ping left, likewise
	doubted atomic.Bool   // the Peer waits for an answer
	// confirmed is set by the first frame behind the other side's hello: it has this
	// side's hello as well, and has taken the session in.
	confirmed atomic.Bool
	// unanswered is a ping that may wait for this side's next.
	unanswered atomic.Pointer[heldPing]
	rtt        atomic.Int64  // smoothed round trip in nanoseconds, 0 before the first
	rttVar     atomic.Int64  // its variation
	rttLast    atomic.Int64  // the last one that was measured
	cleared    atomic.Uint64 // when a doubt was last over, by micros
	carried    *rate.Limiter // the reader's own: of envelopes
	written    atomic.Int64  // bytes handed to conn

	// What the other side said it had sent and received, in packets.
	theirSent, theirReceived atomic.Uint64

	frame  []byte // the writer's buffer
	joined []byte // parts of a batch so far; the reader's own
	total  int    // bytes that joined shall have
}

// firstFrame is what the other side says first.
type firstFrame struct {
	frame []byte
	err   error
}

func newSession(n *Node, led *ledger, c conn, o order) *session {
	return &session{conn: c, led: led, node: n, order: o, wake: make(chan struct{}, 1),
		carried: rate.NewLimiter(carriedPerSecond, maxCarriedBurst)}
}

// inDoubt reports whether the other side's answers are missed; a nil session has
// none.
func (s *session) inDoubt() bool { return s == nil || s.doubted.Load() }

// sound reports whether the other side has the session as well, and answers.
func (s *session) sound() bool { return s.confirmed.Load() && !s.inDoubt() }

// poke tells the writer that the ledger may have work. A nil session is none.
func (s *session) poke() {
	if s == nil {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// handshake exchanges hellos. Nothing else is sent or accepted before.
func (s *session) handshake(ctx context.Context) (*helloBody, error) {
	stop := context.AfterFunc(ctx, func() {
		if s.peer != nil && s.peer.ctx.Err() != nil {
			// The other side may have taken the session in by this side's hello.
			s.goodbye(s.peer.replyCode, "")
		} else {
			s.conn.Close()
		}
	})
	defer stop()
	err := s.checkCertificate(s.node.now())
	s.node.obs.certificate(ctx, s.bind.remote, err)
	if err != nil {
		return nil, err
	}
	if local, _ := s.conn.Path(); local == "relay" && s.own != nil {
		s.relay, s.owned = s.own.Server(), true
	}
	s.told = s.led.remembers(s.bind.remoteInst)
	hello, err := signHello(s.node.cfg.Identity, s.bind, s.told, s.relay)
	if err != nil {
		return nil, err
	}
	s.proof.begin(s, len(hello))
	if err := s.put(hello); err != nil {
		return nil, err
	}
	f := s.readFirst()
	if f.err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, s.proof.verdict(f.err)
	}
	h, err := verifyHello(f.frame, s.remoteKey, s.bind)
	if errors.Is(err, keys.ErrBadSignature) {
		s.node.obs.signatureFailed(ctx, s.bind.remote, "session")
	}
	if err != nil {
		return nil, err
	}
	if !s.proof.greet() {
		return nil, ErrNarrowPath
	}
	switch s.why {
	case ReasonDirectPath, ReasonRelay:
		// Nothing is in a hurry: the session in use works, and this one is to be as good.
		if err := s.conn.Drain(ctx); err != nil {
			return nil, s.proof.verdict(err)
		}
	}
	if !stop() { // the time was over first, and the connection is being closed
		return nil, context.Cause(ctx)
	}
	s.prove()
	if !s.owned {
		s.relay = h.Relay
	}
	return h, nil
}

// readFirst reads the first frame, or takes what was read while the session stood
// by.
func (s *session) readFirst() firstFrame {
	if s.first != nil {
		return <-s.first
	}
	buf := make([]byte, maxFrame)
	n, err := s.conn.Read(buf)
	return firstFrame{buf[:n], err}
}

// checkCertificate compares what the other side presented with what its
// envelope announced, and checks the dates, which pion does not.
func (s *session) checkCertificate(now time.Time) error {
	cert := s.conn.RemoteCertificate()
	if keys.FingerprintOf(cert) != s.bind.remoteCert {
		return protocolErrorf("the certificate presented is not the one in the signed envelope")
	}
	if err := keys.CheckCertificate(cert, now); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// goodbyeError is the other side's goodbye.
type goodbyeError struct {
	code goodbyeCode
	text string
}

func (e *goodbyeError) Error() string {
	if e.text == "" {
		return e.Unwrap().Error()
	}
	return e.Unwrap().Error() + ": " + e.text
}

func (e *goodbyeError) Unwrap() error {
	switch e.code {
	case goodbyeReplaced:
		return ErrReplaced
	case goodbyeUntrusted:
		return ErrRefused
	case goodbyeProtocol:
		return ErrProtocol
	}
	return ErrPeerClosed
}

// read handles frames until the session ends and says why it did.
func (s *session) read() error {
	buf := make([]byte, maxFrame)
	for {
		n, err := s.conn.Read(buf)
		if errors.Is(err, ErrProtocol) {
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrConnectionLost, s.proof.verdict(err))
		}
		if err := s.handle(buf[:n]); err != nil {
			return err
		}
	}
}

// handle handles one frame; b is valid during the call only.
func (s *session) handle(b []byte) error {
	kind, err := peekFrame(b)
	if err != nil {
		return err
	}
	if !s.confirmed.Load() && kind != kindGoodbye && s.confirmed.CompareAndSwap(false, true) && s.peer != nil {
		s.peer.post(func() { s.peer.confirmed(s) })
	}
	if len(b) >= maxFrame/2 && (kind == kindBatch || kind == kindPart) {
		// The other side's answers stand in a queue behind such frames, for
		// seconds on a thin line. Who hears nothing cannot send many of them.
		s.prove()
		s.led.forgive(time.Now())
	}
	if s.joined != nil && kind == kindBatch {
		return protocolErrorf("a batch inside a batch in parts")
	}
	switch kind {
	case kindBatch:
		return s.batch(bytes.Clone(b))
	case kindPart:
		return s.part(b)
	case kindPositions:
		f, err := decodePositionsFrame(b)
		if err != nil {
			return err
		}
		return s.stated(f.Positions)
	case kindSkip:
		f, err := decodeSkipFrame(b)
		if err != nil {
			return err
		}
		return s.led.skipTo(s, &f)
	case kindEcho:
		f, err := decodeEchoFrame(b)
		if err != nil {
			return err
		}
		return s.echoed(&f)
	case kindGoodbye:
		f, err := decodeGoodbyeFrame(b)
		if err != nil {
			return err
		}
		return &goodbyeError{code: f.Code, text: safeText(f.Text)}
	case kindEnvelope:
		f, err := decodeEnvelopeFrame(b)
		if err != nil {
			return err
		}
		if !s.carried.Allow() {
			s.node.obs.misdelivered(s.node.ctx, "peer "+s.bind.remote, "too many envelopes")
			return nil
		}
		s.node.handed(s, bytes.Clone(f.Envelope))
		return nil
	}
	return protocolErrorf("frame kind %d after the hello", kind)
}

// stated passes positions on to the ledger. Progress proves that the other side
// answers.
func (s *session) stated(list []position) error {
	progress, err := s.led.stated(s, list)
	if progress {
		s.prove()
	}
	return err
}

// batch verifies a batch and files its records. It keeps b.
func (s *session) batch(b []byte) error {
	f, err := decodeBatchFrame(b)
	if err != nil {
		return err
	}
	if len(f.Records) == 0 || len(f.Records) > maxTree {
		return protocolErrorf("batch of %d records", len(f.Records))
	}
	if err := s.stated(f.Positions); err != nil {
		return err
	}
	leaves := make([]tlog.Hash, len(f.Records))
	for i, rec := range f.Records {
		leaves[i] = leafHash(rec)
	}
	size, root := len(leaves), merkleRoot(leaves)
	err = s.remoteKey.Verify(batchStatement(s.bind.mesh, s.bind.remote, s.bind.remoteInst, size, root), f.Signature)
	if err != nil {
		s.node.obs.signatureFailed(s.node.ctx, s.bind.remote, "session")
		return fmt.Errorf("batch of %s: %w: %w", s.bind.remote, ErrProtocol, err)
	}
	s.node.obs.signatureVerified(s.node.ctx)
	msgs := make([]Message, size)
	sigs := make([]Signature, size)
	for i, rec := range f.Records {
		m, err := decodeRecord(rec, s.bind.remote, s.bind.local)
		if err != nil {
			return err
		}
		if m.Destination != s.bind.local {
			return protocolErrorf("record for %s", safeText(m.Destination))
		}
		sigs[i] = Signature{Key: s.remoteKey, Mesh: s.bind.mesh, Instance: s.bind.remoteInst,
			TreeSize: size, Index: i, Bytes: f.Signature, leaves: leaves}
		m.Signature = &sigs[i]
		msgs[i] = m
	}
	return s.led.accept(s, msgs, f.Records)
}

// part adds one part and handles the batch when it is whole.
func (s *session) part(b []byte) error {
	f, err := decodePartFrame(b)
	if err != nil {
		return err
	}
	if s.joined == nil {
		if f.Total <= maxFrame || f.Total > maxJoined {
			return protocolErrorf("batch in parts of %d bytes", f.Total)
		}
		s.total = int(f.Total)
		s.joined = make([]byte, 0, s.total)
	}
	if f.Total != uint64(s.total) || f.Offset != uint64(len(s.joined)) || len(f.Bytes) == 0 ||
		len(f.Bytes) > s.total-len(s.joined) {
		return protocolErrorf("part that does not follow the one before")
	}
	s.joined = append(s.joined, f.Bytes...)
	if len(s.joined) < s.total {
		return nil
	}
	whole := s.joined
	s.joined = nil
	kind, err := peekFrame(whole)
	if err != nil {
		return err
	}
	if kind != kindBatch {
		return protocolErrorf("parts of frame kind %d", kind)
	}
	return s.batch(whole)
}

// path is how the session runs.
func (s *session) path() Path {
	local, remote := s.conn.Path()
	if s.relay != "" && local != "relay" {
		remote = "relay" // ICE may have met it as an address that nobody announced
	}
	return Path{Local: local, Remote: remote, Relay: s.relay, Narrow: s.slim}
}

// carry puts an envelope on the session. It reports false when there is no room
// for it.
func (s *session) carry(envelope []byte) bool {
	if len(envelope) > maxCarriedEnvelope || s.conn.Queued() > maxCarriedQueue {
		return false
	}
	return s.put((&envelopeFrame{Envelope: envelope}).encode()) == nil
}

// write sends what the ledger has for this session until ctx or the
// connection ends. A failed write is not reported: the reader sees the same.
func (s *session) write(ctx context.Context) {
	for {
		select {
		case <-s.wake:
		case <-s.conn.Done():
			return
		case <-ctx.Done():
			return
		}
		for {
			if s.conn.Wait(ctx) != nil {
				return
			}
			w := s.led.collect(s)
			if w.begins && s.peer != nil {
				s.peer.watch()
			}
			if w.skip == nil && w.records == nil && w.positions == nil {
				break
			}
			if err := s.send(w); err != nil {
				if !errors.Is(err, ErrConnectionLost) {
					s.node.log.Error("cannot sign messages", "peer", s.bind.remote, "error", err)
				}
				s.conn.Close()
				return
			}
		}
	}
}

// send writes one piece of work.
func (s *session) send(w work) error {
	if w.skip != nil {
		if err := s.put(w.skip.encode()); err != nil {
			return err
		}
	}
	if w.records == nil {
		if w.positions == nil {
			return nil
		}
		return s.put((&positionsFrame{Positions: w.positions}).encode())
	}
	leaves := make([]tlog.Hash, len(w.records))
	for i, rec := range w.records {
		leaves[i] = leafHash(rec)
	}
	sig, err := s.node.cfg.Identity.Sign(
		batchStatement(s.bind.mesh, s.bind.local, s.bind.localInst, len(leaves), merkleRoot(leaves)))
	if err != nil {
		return err
	}
	s.frame = (&batchFrame{Signature: sig, Records: w.records, Positions: w.positions}).encode(s.frame[:0])
	frame := s.frame
	if cap(frame) > 4*maxFrame {
		s.frame = nil // a large message was an exception
	}
	if len(frame) <= maxFrame {
		return s.put(frame)
	}
	for at := 0; at < len(frame); {
		n := min(partSize, len(frame)-at)
		part := partFrame{Total: uint64(len(frame)), Offset: uint64(at), Bytes: frame[at : at+n]}
		if err := s.conn.Wait(s.node.ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrConnectionLost, err)
		}
		if err := s.put(part.encode()); err != nil {
			return err
		}
		at += n
	}
	return nil
}

func (s *session) put(frame []byte) error {
	if err := s.conn.Write(frame); err != nil {
		return fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	s.written.Add(int64(len(frame)))
	return nil
}

// leave closes a session that the other side is ending, when it has or after
// linger: two sides that end one association at once disturb each other.
func (s *session) leave(linger time.Duration) {
	t := time.NewTimer(linger)
	defer t.Stop()
	select {
	case <-s.conn.Done():
	case <-t.C:
	}
	s.conn.Close()
}

// goodbye tells the other side what was delivered and why this side leaves,
// waits a moment for it to go out, and closes the connection. Without the
// positions the other side would report as lost what this application has.
func (s *session) goodbye(code goodbyeCode, text string) {
	var err error
	if pos := s.led.positions(s.bind.remoteInst); pos != nil {
		err = s.conn.Write((&positionsFrame{Positions: pos}).encode())
	}
	if err == nil {
		err = s.conn.Write((&goodbyeFrame{Code: code, Text: safeText(text)}).encode())
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), linger)
		defer cancel()
		_ = s.conn.Drain(ctx) // closing comes next in any case
	}
	s.conn.Close()
}
