package pipenet

import "net"

// listener implements net.Listener.
type listener struct {
	net    *Net
	addr   pipeAddr
	queue  chan *conn
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed: // even if connections wait: they have been reset
		return nil, l.err("accept")
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, l.err("accept")
	}
}

func (l *listener) Close() error {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	if l.net.listeners[string(l.addr)] != l {
		return l.err("close")
	}
	delete(l.net.listeners, string(l.addr))
	close(l.closed)
	for c := range l.net.conns {
		if c.listener == l {
			c.reset()
			delete(l.net.conns, c)
		}
	}
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) err(op string) error {
	return &net.OpError{Op: op, Net: "pipe", Addr: l.addr, Err: net.ErrClosed}
}
