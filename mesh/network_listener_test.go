package mesh

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// scarce is a listener that has no descriptor for the first connections.
type scarce struct {
	net.Listener
	failures int
	err      error
}

func (l *scarce) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: l.err}
	}
	c, far := net.Pipe()
	_ = far.Close()
	return c, nil
}

// TestAcceptOutlivesShortage: that there is no descriptor for a connection does not end
// the accepting of the next ones; that the listener is closed does.
func TestAcceptOutlivesShortage(t *testing.T) {
	l := &limitedListener{Listener: &scarce{failures: 3, err: syscall.EMFILE}, free: make(chan struct{}, 1)}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	l.Listener = &scarce{failures: 1, err: net.ErrClosed}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
