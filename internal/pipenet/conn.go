package pipenet

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is one end of a connection; it implements net.Conn.
type conn struct {
	in, out       *half
	local, remote pipeAddr
	closed        atomic.Bool
	ends          *atomic.Int32 // ends that are still open, shared by both
	forget        func()        // called when both ends are closed

	// Of the dialling end only.
	client    *Client
	listener  *listener // nil if dialled into a black hole without one
	abandoned bool      // guarded by Net.mu
}

// pair returns the two ends of a new connection.
func pair(delay time.Duration, extra *atomic.Int64, client, server pipeAddr) (*conn, *conn) {
	up, down := newHalf(delay, extra), newHalf(delay, extra)
	ends := new(atomic.Int32)
	ends.Store(2)
	return &conn{in: down, out: up, local: client, remote: server, ends: ends},
		&conn{in: up, out: down, local: server, remote: client, ends: ends}
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.wrap("read", err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.wrap("write", err)
}

// Close sends end-of-file after what was written; what arrives afterwards is
// discarded and makes the other end's writes fail.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return c.wrap("close", net.ErrClosed)
	}
	c.out.closeWrite()
	c.in.closeRead()
	if c.ends.Add(-1) == 0 && c.forget != nil {
		c.forget()
	}
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setReadDeadline(t)
	c.out.setWriteDeadline(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setReadDeadline(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setWriteDeadline(t)
	return nil
}

// dialed is the address that was dialled.
func (c *conn) dialed() string { return string(c.remote) }

func (c *conn) reset() {
	c.in.reset()
	c.out.reset()
}

func (c *conn) stall(on bool) {
	c.in.stall(on)
	c.out.stall(on)
}

// wrap leaves io.EOF bare, as net.Conn does, and dresses everything else so
// that it satisfies net.Error.
func (c *conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "pipe", Source: c.local, Addr: c.remote, Err: err}
}

// The errors of a half, as the operating system names them.
var (
	errTimeout = os.ErrDeadlineExceeded
	errPipe    = error(syscall.EPIPE)
	errReset   = error(syscall.ECONNRESET)
)
