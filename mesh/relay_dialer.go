package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"regexp"
	"sync"
	"time"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/internal/resolve"
	"github.com/infrafabric/agentmesh/turn"
)

// relayDialer connects to a relay by TCP or TLS (RFC 8656 §2.1) for one connection
// and ends the attempt when that closes, which pion's own way does not. A nil one
// has nothing to close.
type relayDialer struct {
	net    transport.Net
	tls    *tls.Config // nil for plain TCP
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	conns []net.Conn
}

// newRelayDialer returns the dialer for a relay at a URL, nil for one that is reached
// by UDP.
func newRelayDialer(n transport.Net, r *turn.Relay, u resolve.Server) *relayDialer {
	if u.UDP {
		return nil
	}
	d := &relayDialer{net: n}
	if u.TLS {
		d.tls = &tls.Config{}
		if r.TLS != nil {
			d.tls = r.TLS.Clone()
		}
		if d.tls.ServerName == "" {
			d.tls.ServerName = u.Host
		}
		if d.tls.MinVersion == 0 {
			d.tls.MinVersion = tls.VersionTLS12
		}
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Dial is called by pion, from a goroutine that closing the connection waits for.
func (d *relayDialer) Dial(network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, attemptTimeout)
	defer cancel()
	//lint:ignore SA1019 a transport.Dialer takes no context
	c, err := d.net.CreateDialer(&net.Dialer{Timeout: attemptTimeout, Cancel: ctx.Done()}).Dial(network, addr)
	if err != nil {
		return nil, err
	}
	if err := d.keep(c); err != nil {
		return nil, err
	}
	if d.tls == nil {
		return &relayConn{c}, nil
	}
	t := tls.Client(c, d.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &relayConn{t}, nil
}

// keep notes a connection, to be closed with the others.
func (d *relayDialer) keep(c net.Conn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return errors.Join(net.ErrClosed, c.Close())
	}
	d.conns = append(d.conns, c)
	return nil
}

// stop ends dialling at once. What was dialled has a moment to give its allocation
// back before it is closed. The function that it returns ends that moment.
func (d *relayDialer) stop() (end func()) {
	if d == nil {
		return func() {}
	}
	d.cancel()
	t := time.AfterFunc(linger, d.close)
	return func() {
		t.Stop()
		d.close()
	}
}

func (d *relayDialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		_ = c.Close() // again, in most cases
	}
	d.conns = nil
}

// relayConn closes a connection to a relay when a packet does not go out: a stream
// that is full is a path that is dead, and whoever writes holds locks of pion's.
type relayConn struct{ net.Conn }

func (c *relayConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(relayWriteWait)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		err = errors.Join(err, c.Close())
	}
	return n, err
}

// related is the part of a relay's candidate (RFC 8839 §5.1) that tells the address
// behind it.
var related = regexp.MustCompile(`( typ relay) raddr [^ ]+ rport [0-9]+`)

// withoutRelated hides in a candidate, or in a description, from where this agent
// talks to its relay, in the way that the RFC says.
func withoutRelated(s string) string {
	return related.ReplaceAllString(s, "$1 raddr 0.0.0.0 rport 9")
}

// limitedListener refuses connections beyond a limit, and outlives errors that pass:
// pion takes any for the end. Without file descriptors there is nothing to accept for a
// while.
type limitedListener struct {
	net.Listener
	free   chan struct{} // has an element for each that is open
	closed chan struct{}
	once   sync.Once
}

func newLimitedListener(l net.Listener, most int) *limitedListener {
	return &limitedListener{Listener: l, free: make(chan struct{}, most), closed: make(chan struct{})}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for pause := time.Duration(0); ; {
		c, err := l.Listener.Accept()
		if err != nil {
			pause = min(max(2*pause, time.Millisecond), time.Second)
			if errors.Is(err, net.ErrClosed) || !l.wait(pause) {
				return nil, err
			}
			continue
		}
		pause = 0
		select {
		case l.free <- struct{}{}:
			return &limitedConn{Conn: c, free: l.free}, nil
		default:
			_ = c.Close() // one too many
		}
	}
}

// wait returns after d, or false when the listener closes before.
func (l *limitedListener) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.closed:
		return false
	}
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	free chan struct{}
	once sync.Once
}

func (c *limitedConn) Close() error {
	c.once.Do(func() { <-c.free })
	return c.Conn.Close()
}
