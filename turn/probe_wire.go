package turn

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"
	"github.com/pion/turn/v5"

	"github.com/infrafabric/agentmesh/internal/resolve"
)

// dial connects to an address of a server within patience and ctx. A datagram socket is connected
// too: the system then drops what others send, and tells when nobody listens there.
func dial(ctx context.Context, n transport.Net, a address, at netip.Addr, cfg *tls.Config, patience time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	deadline, _ := ctx.Deadline()
	network := "tcp"
	if a.datagram {
		network = "udp"
	}
	//lint:ignore SA1019 a transport.Dialer has no DialContext, and without Cancel an end before the deadline would have to wait for it
	conn, err := n.CreateDialer(&net.Dialer{Deadline: deadline, Cancel: ctx.Done()}).Dial(network, resolve.JoinHostPort(at.String(), a.port))
	if err != nil || !a.tls {
		return conn, err
	}
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = a.host
	}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// wire is a connection to a server as messages. One goroutine uses it; interrupt
// may come from another one.
type wire struct {
	conn     net.Conn
	packets  net.PacketConn // frames of the stream; nil for datagrams
	datagram bool
	buf      []byte

	mu          sync.Mutex
	interrupted bool
}

func newWire(conn net.Conn, datagram bool) *wire {
	w := &wire{conn: conn, datagram: datagram, buf: make([]byte, maxMessage)}
	if !datagram {
		w.packets = turn.NewSTUNConn(conn)
	}
	return w
}

// interrupt ends reading and writing, now and later.
func (w *wire) interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.interrupted = true
	_ = w.conn.SetDeadline(time.Unix(1, 0))
}

// until sets the deadline of the next operation.
func (w *wire) until(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.interrupted {
		_ = w.conn.SetDeadline(t)
	}
}

// read returns a message, or nil for something else.
func (w *wire) read(deadline time.Time) (*stun.Message, error) {
	w.until(deadline)
	var n int
	var err error
	if w.datagram {
		n, err = w.conn.Read(w.buf)
	} else {
		n, _, err = w.packets.ReadFrom(w.buf)
	}
	if err != nil {
		return nil, err
	}
	m := &stun.Message{Raw: append([]byte(nil), w.buf[:n]...)}
	if m.Decode() != nil || m.Contains(stun.AttrFingerprint) && stun.Fingerprint.Check(m) != nil {
		return nil, nil //nolint:nilnil // no message, and no error
	}
	return m, nil
}

// write is bounded by the deadline of the read before, or by interrupt: what is
// written fits into the buffer of any connection.
func (w *wire) write(p []byte) error {
	w.until(time.Now().Add(streamPatience))
	_, err := w.conn.Write(p)
	return err
}

// last writes after interrupt, without waiting for room.
func (w *wire) last(p []byte) {
	_ = w.conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	_, _ = w.conn.Write(p)
}

// Close closes the connection. A stream is not kept for what was written: what the
// probe did not wait for is not worth it.
func (w *wire) Close() {
	if s, ok := w.conn.(*tls.Conn); ok {
		_ = s.NetConn().Close() // without the goodbye, which may wait for five seconds
		return
	}
	_ = w.conn.Close()
}

// ipv6 reports whether the way to the server is over IPv6.
func (w *wire) ipv6() bool {
	switch a := w.conn.LocalAddr().(type) {
	case *net.UDPAddr:
		return a.IP.To4() == nil
	case *net.TCPAddr:
		return a.IP.To4() == nil
	}
	return false
}

// isTimeout reports whether err is a deadline's. Virtual networks have errors of
// their own for it.
func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
