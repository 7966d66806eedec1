package turn

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/logging"
)

// Server is a TURN server (RFC 8656), made of pion/turn, for tests and for small
// deployments: agents that have no direct path to each other meet at the
// addresses that it lends them. It relays UDP, and serves clients over UDP, TCP
// and TLS and both families of addresses.
//
// # Who may use it
//
// Every request is authenticated, with a credential that expires
// (ServerConfig.Secrets) or one that does not (Users). A wrong, unknown or expired
// one gets error 401, also for the Refresh of an allocation that was made with it:
// an allocation ends at the latest an hour after its credential. A user, whose
// name is that without the time of expiry, has so many allocations and so many
// bytes a second.
//
// # Which peers may be reached
//
// Public unicast addresses. Refused with error 403, as what clients could not
// reach themselves and must not reach through the server, are loopback,
// link-local, private and unique local addresses, those of carriers' NATs, of
// clouds' metadata services, of documentation and benchmarks, multicast, broadcast
// and reserved ones, whatever is not in 2000::/3 of IPv6, and IPv6 addresses that
// stand for IPv4 ones: mapped, compatible, NAT64, 6to4 and Teredo.
// ServerConfig.AllowPeers opens some of them, except mapped ones.
//
// Of its own host only other allocations can be reached, so that two agents on
// one server meet. If RelayIP.Public is private or loopback, as in a laboratory,
// they meet only when AllowPeers contains it, and then the whole host is
// reachable. Datagrams of peers without a permission reach nobody.
//
// # What it does not do
//
// TCP to peers (RFC 6062) gets error 442, EVEN-PORT and RESERVATION-TOKEN get
// 508. Datagrams of 1600 bytes and more are dropped. Nonces are valid for an
// hour, for every client of a socket: who has a credential can
// make an allocation in the name of an address he forges, at the expense of his
// own quota and without ever seeing its port.
//
// # Abuse
//
// Whoever has not authenticated gets, over UDP, no answer that is more than
// three times as long as his request, and so many a second
// (ServerConfig.AnswersPerSecond). What is no STUN gets none, over TCP it ends the
// connection. A TCP connection ends after 10 s without an allocation, and when it
// does not take a message within 10 s.
//
// All methods may be called concurrently. Shutdown or Close must be called when
// the server is no longer used.
type Server struct {
	cfg         ServerConfig
	credentials *credentials
	peers       *peerPolicy
	answers     *answerRate
	counters    counters
	wg          sync.WaitGroup // accept loops, inlets, allocations
	stop        chan struct{}  // closed when Close begins
	drained     chan struct{}  // closed when draining and without allocations
	ended       chan struct{}  // closed when Close is done

	// mu guards what follows. It may be taken while pion/turn holds locks of its
	// own, so nothing of pion/turn is called under it.
	mu       sync.Mutex
	accounts map[string]*account
	relays   map[netip.AddrPort]*allocation
	streams  map[*stream]struct{}
	idle     *list.List // streams without an allocation, the oldest first
	total    int        // allocations
	draining bool
	closed   bool
}

// NewServer validates cfg and serves. The sockets and listeners of cfg are the
// server's from then on. On an error they remain the caller's.
//
// Errors: *ConfigError, and that of the network when it does not tell the
// addresses of this host.
func NewServer(cfg ServerConfig) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	peers, err := newPeerPolicy(cfg)
	if err != nil {
		return nil, fmt.Errorf("turn: server: addresses of this host: %w", err)
	}
	s := &Server{
		cfg:         cfg,
		credentials: newCredentials(cfg),
		peers:       peers,
		answers:     newAnswerRate(cfg.AnswersPerSecond),
		stop:        make(chan struct{}),
		drained:     make(chan struct{}),
		ended:       make(chan struct{}),
		accounts:    make(map[string]*account),
		relays:      make(map[netip.AddrPort]*allocation),
		streams:     make(map[*stream]struct{}),
		idle:        list.New(),
	}
	s.cfg.Secrets, s.cfg.Users = nil, nil // credentials has what is needed
	for _, p := range cfg.PacketConns {
		if err := s.serve(p, nil); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	for _, l := range cfg.Listeners {
		s.wg.Go(func() { s.accept(l) })
	}
	s.cfg.Logger.Info("TURN server started", "config", cfg)
	return s, nil
}

// Shutdown refuses new allocations with error 508, waits until those that exist
// have ended, and closes the server. When ctx ends, it is closed at once and the
// error is that of ctx. After Close the error matches [net.ErrClosed].
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	closed := s.closed
	s.draining = true
	s.checkDrained()
	s.mu.Unlock()
	if closed {
		return fmt.Errorf("turn: server: %w", net.ErrClosed)
	}
	s.cfg.Logger.Info("TURN server drains")
	var err error
	select {
	case <-s.drained:
	case <-s.stop:
		err = fmt.Errorf("turn: server: %w", net.ErrClosed)
	case <-ctx.Done():
		err = fmt.Errorf("turn: server: shutdown: %w", context.Cause(ctx))
	}
	return errors.Join(err, s.Close())
}

// checkDrained closes s.drained when it is time; s.mu is held.
func (s *Server) checkDrained() {
	if !s.draining || s.total > 0 {
		return
	}
	select {
	case <-s.drained:
	default:
		close(s.drained)
	}
}

// Close ends every allocation, closes the sockets, listeners and connections and
// waits for what served them. It is idempotent; only the first call returns what
// failed.
func (s *Server) Close() error {
	streams, first := s.startClosing()
	if !first {
		<-s.ended
		return nil
	}
	close(s.stop)
	var errs []error
	for _, l := range s.cfg.Listeners {
		errs = append(errs, closed(l.Close()))
	}
	for _, p := range s.cfg.PacketConns {
		errs = append(errs, closed(p.Close()))
	}
	for _, c := range streams {
		c.Close() // its client may have closed it
	}
	s.wg.Wait()
	s.cfg.Logger.Info("TURN server closed")
	close(s.ended)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("turn: server: close: %w", err)
	}
	return nil
}

// startClosing refuses what is new and returns the connections that there are.
func (s *Server) startClosing() (streams []*stream, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	s.closed, s.draining = true, true
	for c := range s.streams {
		streams = append(streams, c)
	}
	return streams, true
}

// closed is err unless it says that somebody else has closed it already.
func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// wait returns after d, or false when the server closes before.
func (s *Server) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stop:
		return false
	}
}

// silence is the log of pion/turn. It speaks of every packet, and what matters of
// it the server logs or counts itself.
type silence struct{}

func (silence) NewLogger(string) logging.LeveledLogger { return silence{} }
func (silence) Trace(string)                           {}
func (silence) Tracef(string, ...any)                  {}
func (silence) Debug(string)                           {}
func (silence) Debugf(string, ...any)                  {}
func (silence) Info(string)                            {}
func (silence) Infof(string, ...any)                   {}
func (silence) Warn(string)                            {}
func (silence) Warnf(string, ...any)                   {}
func (silence) Error(string)                           {}
func (silence) Errorf(string, ...any)                  {}
