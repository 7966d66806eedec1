package meshtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
)

// Muddle makes a signaling server lose so many in a hundred, at most 50, of the
// envelopes that it should pass on, and in as many further cases repeat one of the last
// it has passed on to the same agent; 0 ends it.
func (u *Universe) Muddle(name string, percent int) {
	u.t.Helper()
	s := u.servers[name]
	if s == nil || percent < 0 || percent > 50 {
		u.fatal("muddle: %q by %d %%", name, percent)
	}
	u.Note("muddle %d %% of the envelopes at %s", percent, name)
	s.muddle.set(percent, uint64(u.seed()))
}

// muddle is what a server does to envelopes.
type muddle struct {
	mu      sync.Mutex
	percent int
	rng     *rand.Rand
}

func (m *muddle) set(percent int, seed uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.percent, m.rng = percent, rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // reproducible by intent
}

// draw says whether an envelope is lost, and otherwise which one of so many is sent
// after it, -1 for none.
func (m *muddle) draw(kept int) (lose bool, repeat int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.percent == 0 {
		return false, -1
	}
	switch r := m.rng.IntN(100); {
	case r < m.percent:
		return true, -1
	case r < 2*m.percent:
		return false, m.rng.IntN(kept)
	}
	return false, -1
}

// handler is a server whose WebSockets are muddled.
func (m *muddle) handler(server http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server.ServeHTTP(&muddledWriter{w, m}, r)
	})
}

type muddledWriter struct {
	http.ResponseWriter
	m *muddle
}

// Hijack implements http.Hijacker.
func (w *muddledWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, b, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if err := b.Flush(); err != nil { // the answer to the handshake
		return nil, nil, err
	}
	conn := &muddledConn{Conn: c, m: w.m}
	return conn, bufio.NewReadWriter(b.Reader, bufio.NewWriter(conn)), nil
}

// muddledConn is the server's end of a WebSocket. What is written is frames of RFC 6455
// §5.2, which a server does not mask.
type muddledConn struct {
	net.Conn
	m *muddle

	// Writes come one after the other.
	rest []byte   // a frame of which the end is missing
	kept [][]byte // the last frames with an envelope
}

// An envelope is a binary frame, whole, of a message [1, 4, …] of package signaling.
const wholeBinary = 0x82

var envelopeBegins = []byte{0x83, 1, 4}

func (c *muddledConn) Write(p []byte) (int, error) {
	c.rest = append(c.rest, p...)
	var out []byte
	for {
		head, size := frame(c.rest)
		if size == 0 {
			break
		}
		f := c.rest[:size:size]
		c.rest = c.rest[size:]
		if f[0] != wholeBinary || !bytes.HasPrefix(f[head:], envelopeBegins) {
			out = append(out, f...)
			continue
		}
		if len(c.kept) == maxKept {
			c.kept = c.kept[1:]
		}
		c.kept = append(c.kept, bytes.Clone(f))
		lose, repeat := c.m.draw(len(c.kept))
		if !lose {
			out = append(out, f...)
		}
		if repeat >= 0 {
			out = append(out, c.kept[repeat]...)
		}
	}
	if len(out) == 0 {
		return len(p), nil
	}
	if _, err := c.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// frame returns the sizes of the first frame's header and of the whole frame, 0 when it
// is not all there.
func frame(b []byte) (head, size int) {
	if len(b) < 2 {
		return 0, 0
	}
	head, size = 2, int(b[1]&0x7f)
	switch size {
	case 126:
		if head = 4; len(b) >= head {
			size = int(binary.BigEndian.Uint16(b[2:]))
		}
	case 127:
		if head = 10; len(b) >= head {
			size = int(binary.BigEndian.Uint64(b[2:])) //nolint:gosec // of our own server
		}
	}
	if len(b) < head+size {
		return 0, 0
	}
	return head, head + size
}
