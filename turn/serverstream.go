package turn

import (
	"bufio"
	"container/list"
	"errors"
	"net"
	"sync"
	"time"
)

// stream is a TCP connection as the net.PacketConn that an inlet needs: one
// client, one message at a time.
type stream struct {
	net.Conn
	server  *Server
	in      *bufio.Reader
	writing sync.Mutex // serialises writes, each with its deadline
	once    sync.Once
	err     error
	idle    *list.Element // in Server.idle while there is no allocation; guarded by Server.mu
}

// ReadFrom returns the next message. Any error is for good.
func (c *stream) ReadFrom(p []byte) (int, net.Addr, error) {
	n, err := readFrame(c.in, p)
	if err != nil {
		if errors.Is(err, errFrame) {
			c.server.counters.junk.Add(1)
		}
		c.Close()
		return 0, nil, err
	}
	return n, c.RemoteAddr(), nil
}

// WriteTo sends a message. Half a message would make the rest unreadable, so a
// connection that does not take it in time is closed. Between messages there is no
// deadline: TLS answers an update of keys while it reads.
func (c *stream) WriteTo(p []byte, _ net.Addr) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.SetWriteDeadline(time.Now().Add(connWrite))
	if err == nil {
		_, err = c.Write(p)
	}
	if err == nil {
		err = c.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		return 0, err
	}
	return len(p), nil
}

// Close closes the connection at once: that of a tls.Conn waits for a client that
// reads nothing.
func (c *stream) Close() error {
	c.once.Do(func() {
		conn := c.Conn
		if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
			conn = t.NetConn()
		}
		c.err = conn.Close()
	})
	return c.err
}

// accept serves the connections of a listener until it is closed.
func (s *Server) accept(l net.Listener) {
	for pause := time.Duration(0); ; {
		conn, err := l.Accept()
		if err == nil {
			pause = 0
			s.admit(conn)
			continue
		}
		// Without file descriptors there is nothing to accept for a while.
		pause = min(max(2*pause, time.Millisecond), time.Second)
		if errors.Is(err, net.ErrClosed) || !s.wait(pause) {
			return
		}
	}
}

// admit serves a connection, or closes it when there are too many. A flood of
// connections thus displaces itself rather than those who come to allocate, who
// need a moment only.
func (s *Server) admit(conn net.Conn) {
	c := &stream{Conn: conn, server: s, in: bufio.NewReaderSize(conn, maxDatagram)}
	oldest, ok := s.enlist(c)
	if oldest != nil {
		oldest.Close()
	}
	if !ok {
		conn.Close()
		return
	}
	if err := c.SetDeadline(time.Now().Add(connIdle)); err != nil || s.serve(c, c) != nil {
		c.Close()
		s.forget(c)
	}
}

// enlist adds a connection, and says which one has to go for it.
func (s *Server) enlist(c *stream) (oldest *stream, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	if len(s.streams) >= s.cfg.MaxConnections {
		s.counters.connectionsRefused.Add(1)
		front := s.idle.Front()
		if front == nil {
			return nil, false
		}
		oldest = front.Value.(*stream)
		s.drop(oldest)
	}
	s.streams[c] = struct{}{}
	c.idle = s.idle.PushBack(c)
	return oldest, true
}

// drop removes a connection from the lists; s.mu is held.
func (s *Server) drop(c *stream) {
	delete(s.streams, c)
	if c.idle != nil {
		s.idle.Remove(c.idle)
		c.idle = nil
	}
}

// forget is drop for one that has ended.
func (s *Server) forget(c *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(c)
}

// occupied tells a connection whether it has an allocation. Without one it ends
// after connIdle.
func (s *Server) occupied(c *stream, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.streams[c]; !ok {
		return
	}
	switch {
	case yes && c.idle != nil:
		s.idle.Remove(c.idle)
		c.idle = nil
		_ = c.SetReadDeadline(time.Time{}) // fails for a closed connection only
	case !yes && c.idle == nil:
		c.idle = s.idle.PushBack(c)
		_ = c.SetReadDeadline(time.Now().Add(connIdle))
	}
}
