package turn

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// turns is a socket, and a listener, whose calls end as the script says; the last way for ever.
type turns struct {
	net.PacketConn
	net.Listener
	script []error // nil is a datagram, or a connection
	closed int     // connections that were handed out and closed
}

func (s *turns) Close() error { return nil }

func (s *turns) next() error {
	err := s.script[0]
	if len(s.script) > 1 {
		s.script = s.script[1:]
	}
	return err
}

func (s *turns) ReadFrom(p []byte) (int, net.Addr, error) {
	if err := s.next(); err != nil {
		return 0, nil, err
	}
	return copy(p, "junk"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, nil
}

func (s *turns) Accept() (net.Conn, error) {
	if err := s.next(); err != nil {
		return nil, err
	}
	return handedOut{s: s}, nil
}

// handedOut is a connection of turns.
type handedOut struct {
	net.Conn
	s *turns
}

func (c handedOut) Close() error {
	c.s.closed++
	return nil
}

// TestPauses: after an error that passes the pause is a millisecond, doubled up to a second, and a
// millisecond again after a success; the end of the socket, or of the server, ends it.
func TestPauses(t *testing.T) {
	passes := errors.New("passes")
	var long []error
	for range 14 {
		long = append(long, passes)
	}
	for name, c := range map[string]struct {
		script []error
		stop   time.Duration // of the server or allocation
		want   time.Duration
	}{
		"one":                 {[]error{passes, net.ErrClosed}, 0, time.Millisecond},
		"three":               {[]error{passes, passes, passes, net.ErrClosed}, 0, 7 * time.Millisecond},
		"again after success": {[]error{passes, passes, nil, passes, net.ErrClosed}, 0, 4 * time.Millisecond},
		"at most a second":    {append(long, net.ErrClosed), 0, 1023*time.Millisecond + 4*time.Second},
		"until the end":       {[]error{passes}, 10 * time.Second, 10 * time.Second},
		"at once":             {[]error{net.ErrClosed}, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			for what, run := range map[string]func(s *turns, server *Server) error{
				"inlet": func(s *turns, server *Server) error {
					i := &inlet{PacketConn: s, server: server}
					_, _, err := i.ReadFrom(make([]byte, 100))
					if !i.ended {
						t.Errorf("%s: the inlet goes on", name)
					}
					return err
				},
				"allocation": func(s *turns, server *Server) error {
					a := &allocation{PacketConn: s, inlet: &inlet{server: server}, closed: server.stop,
						bind: netip.MustParseAddr("192.0.2.9"), relayed: netip.MustParseAddrPort("192.0.2.9:5")}
					for {
						n, from, err := a.ReadFrom(make([]byte, 100))
						if err != nil {
							return err
						}
						if n != 4 || from.String() != "192.0.2.1:1" {
							t.Errorf("%d bytes from %v", n, from)
						}
					}
				},
				"listener": func(s *turns, server *Server) error {
					n := 0
					for _, err := range s.script {
						if err == nil {
							n++
						}
					}
					server.closed = true
					server.accept(s)
					if s.closed != n {
						t.Errorf("%s: %d of %d connections were closed", name, s.closed, n)
					}
					return net.ErrClosed
				},
			} {
				server := &Server{stop: make(chan struct{})}
				server.wg.Add(1)
				start := time.Now()
				if c.stop > 0 {
					time.AfterFunc(c.stop, func() { close(server.stop) })
				}
				err := run(&turns{script: append([]error(nil), c.script...)}, server)
				if got := time.Since(start); got != c.want || !errors.Is(err, net.ErrClosed) {
					t.Errorf("%s, %s: %v after %v, want %v", name, what, err, got, c.want)
				}
				if what != "listener" {
					server.wg.Wait() // once
				}
			}
		})
	}
}
