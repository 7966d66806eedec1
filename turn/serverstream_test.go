package turn

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"
	pion "github.com/pion/turn/v5"
)

// pipes is a listener for connections in memory, which hold nothing that is not
// read.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
	port  int
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (*pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(9, 9, 9, 9), Port: 3478} }

func (l *pipes) dial(t testing.TB) net.Conn {
	t.Helper()
	l.port++
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close() })
	l.conns <- pipe{far, &net.TCPAddr{IP: net.IPv4(8, 8, 8, 8), Port: l.port}, l.Addr()}
	return pipe{near, l.Addr(), nil}
}

type pipe struct {
	net.Conn
	remote, local net.Addr
}

func (p pipe) RemoteAddr() net.Addr { return p.remote }
func (p pipe) LocalAddr() net.Addr  { return p.local }

// newPipeWorld is newServerWorld with clients that come by TCP as well.
//
// bubble: as newServerWorld.
func newPipeWorld(t *testing.T, change func(*ServerConfig)) (*serverWorld, *pipes) {
	t.Helper()
	l := newPipes()
	return newServerWorld(t, func(c *ServerConfig) {
		c.Listeners = []net.Listener{l}
		if change != nil {
			change(c)
		}
	}), l
}

func (w *serverWorld) callPipe(l *pipes, user string) *caller {
	w.t.Helper()
	return callOn(w.t, pion.NewSTUNConn(l.dial(w.t)), l.Addr(), user, serverPassword)
}

// endsAfter reads a connection until it ends and checks when.
//
// bubble: the time is virtual.
func endsAfter(t *testing.T, what string, c net.Conn, want time.Duration) {
	t.Helper()
	start := time.Now()
	err := c.SetReadDeadline(start.Add(want + time.Minute))
	if err == nil {
		_, err = io.Copy(io.Discard, c)
	} else if errors.Is(err, io.ErrClosedPipe) { // ended already
		err = nil
	}
	if took := time.Since(start); err != nil || took != want {
		t.Errorf("%s: ended after %v with %v, not after %v", what, took, err, want)
	}
}

// TestServerConnectionsEnd: who does not allocate is not kept.
func TestServerConnectionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newPipeWorld(t, nil)
		endsAfter(t, "silent", l.dial(t), connIdle)

		half := l.dial(t)
		_, err := half.Write([]byte{0, 1, 0})
		check(t, err)
		endsAfter(t, "half a message", half, connIdle)

		junk := l.dial(t)
		_, err = junk.Write([]byte("GET / HTTP/1.1\r\n\r\n")[:8])
		check(t, err)
		endsAfter(t, "another protocol", junk, 0)

		asking := w.callPipe(l, "a")
		asking.challenge()
		endsAfter(t, "asking only", asking.conn.(*pion.STUNConn).Conn(), connIdle)

		c := w.callPipe(l, "a")
		c.mustAllocate()
		time.Sleep(5 * time.Minute) // the allocation keeps it
		if code := c.free(); code != 0 {
			t.Fatal(code)
		}
		time.Sleep(connIdle - time.Second)
		c.mustAllocate() // again, in time
		time.Sleep(9 * time.Minute)
		if _, code := c.do(stun.MethodRefresh); code != 0 {
			t.Fatal(code)
		}
		endsAfter(t, "not refreshed", c.conn.(*pion.STUNConn).Conn(), 10*time.Minute+connIdle)
		if st := w.server.Stats(); st.Connections != 0 || st.Allocations != 0 || st.Junk != 1 {
			t.Errorf("counted %+v", st)
		}

		// An allocation ends with its connection.
		c = w.callPipe(l, "a")
		c.mustAllocate()
		c.conn.Close()
		synctest.Wait()
		if st := w.server.Stats(); st.Connections != 0 || st.Allocations != 0 {
			t.Errorf("after the client left: %+v", st)
		}
	})
}

// TestServerConnectionGuesses: a connection is not for trying passwords.
func TestServerConnectionGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newPipeWorld(t, nil)
		c := w.callPipe(l, "a")
		c.password = "wrong"
		c.challenge()
		for i := 1; i < maxEarlyAnswers; i++ {
			if _, code := c.allocate(); code != 401 {
				t.Fatalf("guess %d: %d", i, code)
			}
		}
		c.send(c.sign(stun.MethodAllocate, transportUDP)...)
		if m, err := c.tryReceive(time.Second); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("one guess too many: %v, %v", m, err)
		}
	})
}

// TestServerConnectionLimit: those who have an allocation stay, the oldest of the
// others goes.
func TestServerConnectionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newPipeWorld(t, func(c *ServerConfig) { c.MaxConnections = 3 })
		first := w.callPipe(l, "a")
		first.mustAllocate()
		flood := []net.Conn{l.dial(t), l.dial(t)}
		synctest.Wait()
		flood = append(flood, l.dial(t), l.dial(t))
		endsAfter(t, "the oldest", flood[0], 0)
		endsAfter(t, "the next", flood[1], 0)
		second := w.callPipe(l, "a") // in the middle of the flood
		second.mustAllocate()
		third := w.callPipe(l, "b")
		third.mustAllocate()
		endsAfter(t, "beyond those with allocations", l.dial(t), 0)
		if st := w.server.Stats(); st.Connections != 3 || st.Allocations != 3 || st.ConnectionsRefused != 5 {
			t.Errorf("counted %+v", st)
		}
		if _, code := first.do(stun.MethodRefresh); code != 0 {
			t.Errorf("the first: %d", code)
		}
	})
}

// TestServerSlowReader: a client that reads nothing loses its connection, and
// nobody else notices.
func TestServerSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l := newPipeWorld(t, nil)
		slow, brisk, datagrams := w.callPipe(l, "a"), w.callPipe(l, "a"), w.call("a")
		peer := w.socket()
		at := map[*caller]netip.AddrPort{}
		for _, c := range []*caller{slow, brisk, datagrams} {
			at[c] = c.mustAllocate()
			if code := c.bind(0x4000, addrPort(peer.LocalAddr())); code != 0 {
				t.Fatal(code)
			}
		}
		start := time.Now()
		for range 100 { // the first blocks the slow one's allocation
			_, err := peer.WriteTo([]byte("12345678"), net.UDPAddrFromAddrPort(at[slow]))
			check(t, err)
		}
		synctest.Wait()
		for _, c := range []*caller{brisk, datagrams} {
			_, err := peer.WriteTo([]byte("12345678"), net.UDPAddrFromAddrPort(at[c]))
			check(t, err)
			check(t, c.conn.SetReadDeadline(time.Now().Add(time.Second)))
			buf := make([]byte, 100)
			if n, _, err := c.conn.ReadFrom(buf); err != nil || string(buf[:n]) != "\x40\x00\x00\x0812345678" {
				t.Errorf("another client got %q, %v", buf[:n], err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the others waited %v", took)
		}
		time.Sleep(connWrite)
		synctest.Wait()
		if st := w.server.Stats(); st.Connections != 1 || st.Allocations != 2 {
			t.Errorf("counted %+v", st)
		}
	})
}

// TestServerHandshake: a TLS handshake that does not end is one of the things that
// take too long.
func TestServerHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serverTLS, clientTLS := selfSigned(t)
		l := newPipes()
		w := newServerWorld(t, func(c *ServerConfig) { c.Listeners = []net.Listener{tls.NewListener(l, serverTLS)} })
		endsAfter(t, "no hello", l.dial(t), connIdle)
		conn := tls.Client(l.dial(t), clientTLS)
		c := callOn(t, pion.NewSTUNConn(conn), l.Addr(), "a", serverPassword)
		c.mustAllocate()
		check(t, w.server.Close())
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("still open")
		}
	})
}

func TestReadFrame(t *testing.T) {
	binding := build(t, stun.BindingRequest)
	stream := append([]byte{0x40, 1, 0, 5, 'h', 'e', 'l', 'l', 'o', 0, 0, 0}, binding...)
	r := bufio.NewReader(iotest.OneByteReader(bytes.NewReader(stream)))
	buf := make([]byte, 100)
	for _, want := range [][]byte{stream[:12], binding} {
		n, err := readFrame(r, buf)
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Errorf("%x, %v instead of %x", buf[:n], err, want)
		}
	}
	if _, err := readFrame(r, buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for n := range binding {
		if _, err := readFrame(bufio.NewReader(bytes.NewReader(binding[:n])), buf); err == nil {
			t.Errorf("%d bytes of a message are accepted", n)
		}
	}
	for what, p := range map[string][]byte{
		"another protocol":  []byte("GET / HTTP/1.1\r\n"),
		"no magic cookie":   make([]byte, 20),
		"an odd length":     {0, 1, 0, 1, 0x21, 0x12, 0xa4, 0x42},
		"a channel too far": {0x50, 0, 0, 0, 0, 0, 0, 0},
		"a large message":   {0, 1, 0xff, 0xfc, 0x21, 0x12, 0xa4, 0x42},
		"a large channel":   {0x40, 0, 0xff, 0xff, 0, 0, 0, 0},
	} {
		if _, err := readFrame(bufio.NewReader(bytes.NewReader(p)), buf); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0x40, 1, 0, 5, 'h', 'e', 'l', 'l', 'o', 0, 0, 0})
	f.Add(build(f, stun.BindingRequest, transportUDP))
	f.Fuzz(func(t *testing.T, p []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(p), 64)
		buf := make([]byte, 128)
		for rest := p; ; {
			n, err := readFrame(r, buf)
			if err != nil {
				return
			}
			if n < channelHeader || n >= len(buf) || !bytes.Equal(buf[:n], rest[:n]) || !looksRight(buf[:n]) {
				t.Fatalf("%x of %x", buf[:n], rest)
			}
			rest = rest[n:]
		}
	})
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte{0x40, 1, 0, 5, 'h', 'e', 'l', 'l', 'o', 0, 0, 0})
	f.Add(build(f, stun.NewType(stun.MethodData, stun.ClassIndication),
		peerAddr(netip.MustParseAddrPort("1.2.3.4:5")), attr(stun.AttrData, 1, 2, 3)))
	f.Fuzz(func(t *testing.T, p []byte) {
		n, ok := payload(p)
		if n < 0 || n > len(p) || !ok && n != 0 {
			t.Fatalf("%d of %x", n, p)
		}
		m := &stun.Message{Raw: append([]byte(nil), p...)}
		if m.Decode() != nil || p[0]&0xc0 != 0 || m.Type != stun.NewType(stun.MethodData, stun.ClassIndication) || len(m.Raw) != len(p) {
			return
		}
		if data, err := m.Get(stun.AttrData); err == nil && n != len(data) {
			t.Fatalf("%d instead of %d in %x", n, len(data), p)
		}
	})
}

func FuzzRESTUser(f *testing.F) {
	for _, s := range []string{"1700000000:a", "1700000000", "", ":", "-1:a", "+1:a", "99999999999999999999:a", "1:a:b", "１:a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		user, expires, ok := parseRESTUser(name)
		if !ok {
			return
		}
		if expires < 0 || len(user) >= max(1, len(name)) || name[0] < '0' || name[0] > '9' {
			t.Fatalf("%q: user %q until %d", name, user, expires)
		}
	})
}
