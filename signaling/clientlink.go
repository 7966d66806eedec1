package signaling

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	mathrand "math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/metric"

	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/witness"
)

// jitter spreads reconnections, so that the clients of a server that restarted
// do not come back at the same instant.
const jitter = 0.2

// errSpare ends the connection to a spare that is no longer needed.
var errSpare = errors.New("a server of higher priority is back")

// errRefresh ends a connection that Refresh replaces.
var errRefresh = errors.New("the network has changed")

// link keeps the connection to one server, with one goroutine: run.
type link struct {
	target
	c     *Client
	index int // priority, 0 first

	// Guarded by c.mu.
	state State
	err   error
	conn  *clientConn // not nil while state is StateOpen
	down  bool        // the last attempt failed, or the connection was lost
	clock Clock       // at the last registration or refusal

	warned time.Duration // by which the clocks were apart when that was logged; owned by run
}

// set makes every transition of the state machine that State documents.
func (l *link) set(s State, conn *clientConn, err error) {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	l.state, l.conn, l.err = s, conn, err
	switch s {
	case StateOpen, StateSpare:
		l.down = false
	case StateWaiting, StateRefused, StateReplaced, StateDuplicate:
		l.down = true
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// run is the link's goroutine: connect, serve, wait, again.
func (l *link) run() {
	label := metric.WithAttributes(metrics.Server.String(l.label))
	// So that a server that was never reached shows as 0 instead of not at all.
	l.c.cfg.Metrics.SignalingConnected.Add(context.Background(), 0, label)

	delays := &backoff.ExponentialBackOff{
		InitialInterval:     l.c.cfg.MinBackoff,
		MaxInterval:         l.c.cfg.MaxBackoff,
		Multiplier:          2,
		RandomizationFactor: jitter,
	}
	delays.Reset()
	for l.waitWanted() {
		l.set(StateConnecting, nil, l.status().Err)
		began := time.Now()
		renewed := l.c.refreshed()
		conn, err := l.connect(renewed)
		if err == nil {
			began = time.Now()
			l.c.cfg.Metrics.SignalingConnected.Add(context.Background(), 1, label)
			err = l.serve(conn, renewed)
			l.c.cfg.Metrics.SignalingConnected.Add(context.Background(), -1, label)
		} else if !errors.Is(err, errRefresh) {
			l.failed(err)
		}
		if l.c.closed() {
			return
		}
		if time.Since(began) >= min(stableTime, l.c.cfg.MaxBackoff) && conn != nil {
			delays.Reset() // it was a connection, not one more failure
		}
		var theirs *VersionError
		switch {
		case errors.Is(err, errSpare):
		case errors.Is(err, errRefresh):
			delays.Reset() // what failed before is no guide to this network
		case errors.Is(err, ErrReplaced):
			// Another process has this key. Coming back without yielding would
			// throw it out in turn, for ever.
			l.c.yield.Store(true)
			l.set(StateReplaced, nil, err)
			l.sleep(spread(l.c.cfg.RetryReplaced), renewed, nil)
		case errors.Is(err, ErrDuplicate):
			l.set(StateDuplicate, nil, err)
			l.waitAlone(renewed)
		case errors.Is(err, ErrRefused) || errors.As(err, &theirs):
			l.set(StateRefused, nil, err)
			l.sleep(spread(l.c.cfg.RetryRefused), renewed, nil)
		default:
			l.set(StateWaiting, nil, err)
			if l.sleep(delays.NextBackOff(), renewed, l.c.probed()) {
				delays.Reset()
			}
		}
	}
}

// sleep waits for d, for Probe, or until the client closes. It reports whether
// Refresh ended the wait.
func (l *link) sleep(d time.Duration, renewed, probed <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-renewed:
		return true
	case <-probed:
	case <-l.c.closing:
	}
	return false
}

// spread is d, give or take the jitter.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + jitter*(2*mathrand.Float64()-1)))
}

// waitAlone waits until a connection that may be to this server is lost, or Refresh,
// or the client's end: while another URL leads to this server, this one is not needed.
func (l *link) waitAlone(renewed <-chan struct{}) {
	c := l.c
	seen := make(map[*clientConn]bool)
	for !c.closed() {
		c.mu.Lock()
		changed, gone := c.changed, false
		open := make(map[*clientConn]bool)
		for _, other := range c.links {
			if other != l && other.state == StateOpen {
				open[other.conn] = true
			}
		}
		c.mu.Unlock()
		for conn := range seen {
			gone = gone || !open[conn]
		}
		if gone {
			return
		}
		seen = open
		// The one that took the place may not know yet that it has.
		wait := time.Duration(math.MaxInt64)
		if len(open) == 0 {
			wait = c.cfg.ConnectTimeout
		}
		t := time.NewTimer(wait)
		select {
		case <-changed:
		case <-t.C:
			gone = true
		case <-renewed:
			gone = true
		case <-c.closing:
		}
		t.Stop()
		if gone {
			return
		}
	}
}

// compare keeps a reading of the clocks, and warns when they are apart.
func (l *link) compare(clock Clock) Clock {
	if !clock.Known() {
		return clock
	}
	l.c.mu.Lock()
	l.clock = clock
	l.c.mu.Unlock()
	switch by := clock.Ahead(); {
	case !clock.Apart():
		l.warned = 0
	case (by - l.warned).Abs() > ClockTolerance: // not again at each registration
		l.warned = by
		l.c.cfg.Logger.Warn("the clocks are apart: agents refuse what is too old or too new", "server", l.label,
			"here", clock.Here, "there", clock.Server, "ahead", by)
	}
	return clock
}

// status returns what Servers reports.
func (l *link) status() ServerStatus {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	return l.statusLocked()
}

// statusLocked is status while c.mu is held.
func (l *link) statusLocked() ServerStatus {
	return ServerStatus{URL: l.label, State: l.state, Err: l.err, Clock: l.clock}
}

// wanted reports whether this server is to be used now: fewer than MaxServers
// before it are open or may soon be. A spare before it counts as well: it is
// taken first.
func (l *link) wanted() (yes bool, changed <-chan struct{}) {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	up := 0
	for _, before := range c.links[:l.index] {
		if !before.down {
			up++
		}
	}
	return up < c.cfg.MaxServers, c.changed
}

// waitWanted returns true when this server is to be connected and false when
// the client closes. A spare waits a moment longer than the first sign of
// trouble, because a short break ends by itself.
func (l *link) waitWanted() bool {
	if l.index < l.c.cfg.MaxServers {
		return !l.c.closed()
	}
	var since time.Time
	for !l.c.closed() {
		yes, changed := l.wanted()
		if !yes {
			since = time.Time{}
			if l.status().State != StateSpare {
				l.set(StateSpare, nil, nil)
				continue // changed is that of before
			}
			select {
			case <-changed:
			case <-l.c.closing:
			}
			continue
		}
		if l.status().State != StateSpare {
			return true // it was in use already
		}
		if since.IsZero() {
			since = time.Now()
		}
		rest := spareDelay - time.Since(since)
		if rest <= 0 {
			return true
		}
		t := time.NewTimer(rest)
		select {
		case <-t.C:
		case <-changed:
		case <-l.c.closing:
		}
		t.Stop()
	}
	return false
}

// unwanted waits until a server that is open is no longer wanted, or done.
func (l *link) unwanted(done <-chan struct{}) bool {
	if l.index < l.c.cfg.MaxServers {
		return false
	}
	for {
		yes, changed := l.wanted()
		if !yes {
			return true
		}
		select {
		case <-changed:
		case <-done:
			return false
		}
	}
}

// The three reports below go to log, witness and metrics.

func (l *link) connected() {
	l.c.cfg.Logger.Info("signaling connected", "server", l.label)
	l.record(witness.SignalingConnected, witness.Info, nil)
	l.c.failover()
}

func (l *link) failed(err error) {
	if l.c.closed() {
		return
	}
	if errors.Is(err, ErrReplaced) { // the answer to a question, as long as the other process lives
		l.c.cfg.Logger.Info("signaling server has another process with this key", "server", l.label)
		return
	}
	l.c.cfg.Logger.Warn("signaling connection failed", "server", l.label, "error", err)
	l.c.cfg.Metrics.SignalingErrors.Add(context.Background(), 1)
	l.record(witness.SignalingConnectionFailed, witness.Warning, err)
}

func (l *link) lost(err error) {
	if l.c.closed() || errors.Is(err, errSpare) || errors.Is(err, errRefresh) {
		return
	}
	if errors.Is(err, ErrDraining) || errors.Is(err, ErrDuplicate) { // nobody's error
		l.c.cfg.Logger.Info("signaling connection ended", "server", l.label, "error", err)
		l.record(witness.SignalingConnectionLost, witness.Info, err)
		l.c.failover()
		return
	}
	l.c.cfg.Logger.Warn("signaling connection lost", "server", l.label, "error", err)
	l.c.cfg.Metrics.SignalingErrors.Add(context.Background(), 1)
	l.record(witness.SignalingConnectionLost, witness.Warning, err)
	l.c.failover()
}

func (l *link) record(name witness.Name, sev witness.Severity, err error) {
	meta := map[string]any{"server": l.label}
	if err != nil {
		meta["error"] = err.Error()
	}
	l.c.record(witness.Event{Name: name, Severity: sev, Metadata: meta})
}

func (c *Client) record(e witness.Event) {
	e.Time = c.cfg.Time()
	e.AgentID = c.cfg.Identity.ID()
	c.cfg.Recorder.Record(context.Background(), e)
}

// failover reports when another server became the first choice because the one
// before it is gone. A return to a server of higher priority is none.
func (c *Client) failover() {
	c.mu.Lock()
	from, to, fromOpen := c.primary, "", false
	for _, l := range c.links {
		if l.state != StateOpen || l.conn.ended() {
			continue
		}
		if to == "" {
			to = l.label
		}
		fromOpen = fromOpen || l.label == from
	}
	if to != "" {
		c.primary = to
	}
	c.mu.Unlock()
	if from == "" || to == "" || from == to || fromOpen {
		return
	}
	id := make([]byte, 8)
	rand.Read(id) // never fails
	c.cfg.Logger.Warn("signaling failover", "from", from, "to", to)
	c.record(witness.Event{
		Name: witness.SignalingFailover, Severity: witness.Warning,
		FailoverID: hex.EncodeToString(id), Metadata: map[string]any{"from": from, "to": to},
	})
}
