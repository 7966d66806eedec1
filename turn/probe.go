package turn

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"

	"github.com/infrafabric/agentmesh/internal/resolve"
)

// DefaultProbeTimeout bounds a probe when nothing else does.
const DefaultProbeTimeout = 5 * time.Second

// Probe finds out whether r relays: it authenticates and allocates (RFC 8656 §7),
// asks for a permission for the relayed address itself (§9), sends a datagram from
// there to there, and frees the allocation (§8). The latency is from sending
// that datagram until it is back. It takes four round trips and a fifth to free;
// over TCP and TLS those of the connection come before.
//
// That the relay talks to itself is what it does for two agents that both need it.
// No address of this host is told to anybody but the server, which sees it anyway.
//
// If the server's name has several addresses, each is tried, the next one when the one
// before is silent for a moment, until one passes; one of a Relay with an Address is
// tried first.
//
// The context bounds the call, the look-up of the name included; without a deadline it
// is DefaultProbeTimeout. A nil network means the system's. The error is a
// [*ProbeError], or matches the cause of ctx when that was cancelled.
func Probe(ctx context.Context, n transport.Net, r Relay) (latency time.Duration, err error) {
	a, err := parseAddress(r.URL)
	if err != nil {
		return 0, fmt.Errorf("turn: probe: %w", &ConfigError{"Relay.URL", err.Error()})
	}
	if n == nil {
		if n, err = stdnet.NewNet(); err != nil {
			return 0, fmt.Errorf("turn: probe: %w", err)
		}
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultProbeTimeout)
		defer cancel()
	}
	names := resolve.New(resolve.Config{Lookup: resolve.Of(n)})
	defer names.Close()
	_, latency, err = (&prober{n, names, time.Now}).run(ctx, a, r, pace{firstResend, DefaultProbeTimeout, DefaultProbeTimeout})
	if err != nil {
		return 0, fmt.Errorf("turn: probe: %w", err)
	}
	return latency, nil
}

// pace is how eagerly a probe goes about it.
type pace struct {
	resend   time.Duration // between datagrams that nobody answers
	patience time.Duration // with silence, in dialling and until the first answer
	later    time.Duration // with silence in each step after it
}

// probe is Probe of one address within a ctx that has a deadline.
func (p *prober) probe(ctx context.Context, a address, at netip.Addr, r Relay, pace pace) (time.Duration, error) {
	fail := func(err error) (time.Duration, error) {
		if errors.Is(ctx.Err(), context.Canceled) {
			return 0, context.Cause(ctx) // given up: that says nothing about the server
		}
		var found *ProbeError
		if !errors.As(err, &found) {
			found = &ProbeError{Kind: ErrUnreachable, Err: err}
		}
		found.URL = r.URL
		return 0, found
	}
	if r.Username == "" || r.Password == "" {
		return fail(&ProbeError{Kind: ErrNoCredential})
	}
	conn, err := dial(ctx, p.net, a, at, r.TLS, pace.patience)
	if err != nil {
		return fail(err)
	}
	x := &exchange{conn: newWire(conn, a.datagram), pace: pace, username: r.Username, password: r.Password, expires: r.Expires, now: p.now}
	defer x.conn.Close()
	defer context.AfterFunc(ctx, x.conn.interrupt)()

	relayed, err := x.allocate(ctx)
	if err != nil {
		if errors.Is(err, errSilent) {
			x.abandon() // the answer may have been lost, and not the request
		}
		return fail(err)
	}
	// From here on there is something to free, whatever happens.
	latency, err := x.echo(ctx, relayed)
	x.free(ctx)
	if err != nil {
		return fail(err)
	}
	return latency, nil
}

// exchange is the conversation of one probe. It is a client of its own, and not the
// library's, because each step must end with a context, the server's answer to the
// end of an allocation must be waited for (a lost one costs a slot of the quota for
// ten minutes), and the code of every refusal matters. One goroutine owns it.
type exchange struct {
	conn *wire
	pace
	username, password string
	expires            time.Time
	now                func() time.Time // the wall clock

	realm stun.Realm
	nonce stun.Nonce
	key   stun.MessageIntegrity // nil until the server has named its realm
}

// allocate returns the relayed address (RFC 8656 §7.1).
func (x *exchange) allocate(ctx context.Context) (*net.UDPAddr, error) {
	attrs := []stun.Setter{
		stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}}, // UDP
		// Where the server lets it be so short, an allocation that could not be
		// freed is soon gone.
		stun.RawAttribute{Type: stun.AttrLifetime, Value: []byte{0, 0, 0, 30}},
	}
	if x.conn.ipv6() {
		// The family of the way to the server, as an agent's session asks for it.
		attrs = append(attrs, stun.RawAttribute{Type: stun.AttrRequestedAddressFamily, Value: []byte{2, 0, 0, 0}})
	}
	m, err := x.request(ctx, stun.MethodAllocate, attrs...)
	if err != nil {
		return nil, err
	}
	if x.key == nil {
		// Agents need a server that authenticates, for their client insists.
		return nil, &ProbeError{Kind: ErrNoAllocation, Err: errors.New("it asks for no credential")}
	}
	var relayed stun.XORMappedAddress
	if err := relayed.GetFromAs(m, stun.AttrXORRelayedAddress); err != nil {
		return nil, &ProbeError{Kind: ErrNoAllocation, Err: fmt.Errorf("relayed address: %w", err)}
	}
	return &net.UDPAddr{IP: relayed.IP, Port: relayed.Port}, nil
}

// echo sends a datagram from the relayed address to itself and returns how long it
// takes.
func (x *exchange) echo(ctx context.Context, relayed *net.UDPAddr) (time.Duration, error) {
	peer := peerAddress{IP: relayed.IP, Port: relayed.Port}
	if _, err := x.request(ctx, stun.MethodCreatePermission, peer); err != nil {
		var refused *stun.TurnError
		if errors.As(err, &refused) && refused.ErrorCodeAttr.Code == stun.CodeForbidden {
			return 0, &ProbeError{Kind: ErrForbidden, Err: refused}
		}
		return 0, err
	}
	// Nobody off the path can guess the first 16 bytes; the others number the
	// datagrams, so that a late one is not taken for the next one's echo.
	token := make([]byte, 20)
	rand.Read(token[:16]) // never fails
	var sent []time.Time
	var latency time.Duration
	err := x.step(ctx, true, func() error {
		binary.BigEndian.PutUint32(token[16:], uint32(len(sent)))
		m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication),
			peer, stun.RawAttribute{Type: stun.AttrData, Value: token}, stun.Fingerprint)
		if err != nil {
			return err
		}
		sent = append(sent, time.Now())
		return x.conn.write(m.Raw)
	}, func(m *stun.Message) bool {
		data, err := m.Get(stun.AttrData)
		if m.Type != stun.NewType(stun.MethodData, stun.ClassIndication) || err != nil ||
			len(data) != len(token) || string(data[:16]) != string(token[:16]) {
			return false
		}
		i := binary.BigEndian.Uint32(data[16:])
		if int(i) >= len(sent) {
			return false
		}
		latency = time.Since(sent[i])
		return true
	})
	if errors.Is(err, errSilent) || errors.Is(err, errFlood) {
		return 0, &ProbeError{Kind: ErrNoEcho, Err: err}
	}
	return latency, err
}

// free ends the allocation with a lifetime of zero (RFC 8656 §8.1). When ctx has
// ended it asks once and waits for no answer.
func (x *exchange) free(ctx context.Context) {
	if ctx.Err() != nil {
		x.abandon()
		return
	}
	x.patience, x.later = freeWait, freeWait
	x.resend = min(x.resend, freeWait/4)
	_, _ = x.request(ctx, stun.MethodRefresh, noLifetime) // without success it ends by itself
}

// abandon asks once, if there may be an allocation, and waits for nothing.
func (x *exchange) abandon() {
	if x.key == nil {
		return
	}
	if m, err := x.build(stun.MethodRefresh, noLifetime); err == nil {
		x.conn.last(m.Raw)
	}
}

var noLifetime = stun.RawAttribute{Type: stun.AttrLifetime, Value: []byte{0, 0, 0, 0}}

// request makes a transaction of each try: one without authentication until the
// server has named its realm, then one with, and further ones while it gives a new
// nonce (RFC 8489 §9.2.4, §9.2.5).
func (x *exchange) request(ctx context.Context, method stun.Method, attrs ...stun.Setter) (*stun.Message, error) {
	for range maxTries {
		authenticated := x.key != nil
		m, err := x.transact(ctx, method, attrs)
		if err != nil {
			return nil, err
		}
		if m.Type.Class == stun.ClassSuccessResponse {
			return m, nil
		}
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(m); err != nil {
			return nil, &ProbeError{Kind: ErrNoAllocation, Err: errors.New("an error without a code")}
		}
		switch {
		case code.Code == stun.CodeUnauthorized && !authenticated, code.Code == stun.CodeStaleNonce:
			if err := x.learn(m); err != nil {
				return nil, &ProbeError{Kind: ErrNoAllocation, Err: err}
			}
		default:
			return nil, x.refusal(m.Type, code)
		}
	}
	return nil, &ProbeError{Kind: ErrNoAllocation, Err: errors.New("its nonce is stale every time")}
}

// learn takes realm and nonce from the server.
func (x *exchange) learn(m *stun.Message) error {
	var nonce stun.Nonce
	if err := nonce.GetFrom(m); err != nil {
		return fmt.Errorf("nonce: %w", err)
	}
	x.nonce = append(stun.Nonce(nil), nonce...)
	if x.key != nil {
		return nil
	}
	var realm stun.Realm
	if err := realm.GetFrom(m); err != nil {
		return fmt.Errorf("realm: %w", err)
	}
	x.realm = append(stun.Realm(nil), realm...)
	x.key = stun.NewLongTermIntegrity(x.username, x.realm.String(), x.password)
	return nil
}

// refusal says what a code means.
func (x *exchange) refusal(t stun.MessageType, code stun.ErrorCodeAttribute) *ProbeError {
	// The reason is the server's text: cut, for it ends up in logs.
	code.Reason = append([]byte(nil), code.Reason[:min(len(code.Reason), 64)]...)
	e := &ProbeError{Kind: ErrNoAllocation, Err: &stun.TurnError{StunMessageType: t, ErrorCodeAttr: code}}
	switch code.Code {
	case stun.CodeUnauthorized, stun.CodeWrongCredentials:
		e.Kind = ErrCredentials
		end := x.expires
		if end.IsZero() {
			end = usernameEnd(x.username)
		}
		if !end.IsZero() && !end.After(x.now()) {
			e.Kind = ErrExpired
		}
	case stun.CodeAllocQuotaReached:
		e.Kind = ErrQuota
	}
	return e
}

func (x *exchange) build(method stun.Method, attrs ...stun.Setter) (*stun.Message, error) {
	all := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)
	if x.key != nil {
		all = append(all, stun.NewUsername(x.username), x.realm, x.nonce, x.key)
	}
	return stun.Build(append(all, stun.Fingerprint)...)
}

// transact sends one request until it is answered.
func (x *exchange) transact(ctx context.Context, method stun.Method, attrs []stun.Setter) (*stun.Message, error) {
	req, err := x.build(method, attrs...)
	if err != nil {
		return nil, err
	}
	var answer *stun.Message
	err = x.step(ctx, x.conn.datagram, func() error { return x.conn.write(req.Raw) }, func(m *stun.Message) bool {
		if m.TransactionID != req.TransactionID || m.Type.Method != method {
			return false
		}
		switch m.Type.Class {
		case stun.ClassSuccessResponse:
			// What is unsigned may come from anybody who can read the request.
			if x.key != nil && x.key.Check(m) != nil {
				return false
			}
		case stun.ClassErrorResponse:
			// Servers may leave a refusal unsigned. Who can forge one could as
			// well swallow the request.
		default:
			return false
		}
		answer = m
		return true
	})
	return answer, err
}

// step sends, again and again if it may be lost, until a message is taken, the
// server is silent for too long, or ctx ends.
func (x *exchange) step(ctx context.Context, lossy bool, send func() error, take func(*stun.Message) bool) error {
	end := time.Now().Add(x.patience)
	stray := 0
	for {
		if err := send(); err != nil && !(lossy && isShortage(err)) { // as if it was lost
			return err
		}
		again := end
		if lossy && time.Now().Add(x.resend).Before(end) {
			again = time.Now().Add(x.resend)
		}
		for {
			m, err := x.conn.read(again)
			if ctx.Err() != nil {
				return fmt.Errorf("%w: %w", errSilent, context.Cause(ctx))
			}
			if errors.Is(err, os.ErrDeadlineExceeded) || isTimeout(err) {
				break
			}
			if err != nil {
				return err
			}
			if m != nil && take(m) {
				x.patience, x.resend = x.later, min(x.resend, firstResend) // it lives
				return nil
			}
			if stray++; stray > maxStray {
				return errFlood
			}
		}
		if !time.Now().Before(end) {
			return errSilent
		}
	}
}

var (
	errSilent = errors.New("no answer")
	errFlood  = errors.New("a flood of messages that answer nothing")
)

// peerAddress is the attribute XOR-PEER-ADDRESS (RFC 8656 §18.3).
type peerAddress stun.XORMappedAddress

// AddTo adds it to m.
func (a peerAddress) AddTo(m *stun.Message) error {
	return stun.XORMappedAddress(a).AddToAs(m, stun.AttrXORPeerAddress)
}
