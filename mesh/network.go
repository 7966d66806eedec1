package mesh

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/transport/v5"
	"golang.org/x/time/rate"
)

// nearOnly reports whether loopback addresses count as candidates: only when there
// are none that lead further, so that a machine without a network can still run a
// mesh of its own and no other offers 127.0.0.1. So do IPv6 addresses of a link, if
// there are any.
func nearOnly(n transport.Net) (loopback, link bool, err error) {
	ifs, err := n.Interfaces()
	if err != nil {
		return false, false, err
	}
	list, loopback := usableAddresses(ifs)
	return loopback, loopback && slices.ContainsFunc(list, func(l located) bool { return l.addr.Zone() != "" }), nil
}

// watchHost watches the operating system's network, if the Node's is that and the
// application does not tell of its changes.
func (n *Node) watchHost() {
	if h, ok := n.cfg.Net.(host); ok && n.nextChange == nil {
		w := newHostWatch(h, n.log)
		n.nextChange, n.closeNet = w.next, w.close
	}
}

// asked returns what waits for Config.NetworkChanged. One that fails is called again
// after a wait, which grows while it does.
func (n *Node) asked() func(context.Context) (change, error) {
	wait := networkRetry
	return func(ctx context.Context) (change, error) {
		for {
			err := n.cfg.NetworkChanged(ctx)
			switch {
			case ctx.Err() != nil:
				return change{}, context.Cause(ctx)
			case err == nil:
				wait = networkRetry
				return change{all: true}, nil
			}
			n.log.Warn("changes of the network are not noticed for a while", "again", wait, "error", err)
			if err := sleepUntil(ctx, time.Now().Add(wait)); err != nil {
				return change{}, err
			}
			wait = min(2*wait, networkRetryMost)
		}
	}
}

// watchNetwork tells the Peers what changes about the network. What may concern
// everything and does not end, as where an interface flaps, is acted on less and less
// often.
func (n *Node) watchNetwork() {
	pause := networkPause
	for {
		quiet := time.Now()
		c, err := n.nextChange(n.ctx)
		if err != nil {
			return // the Node closes
		}
		n.log.Info("the network has changed", "gone", addressList(c.gone), "new", addressList(c.fresh), "way", c.all || c.rerouted)
		wide := c.all || c.rerouted
		if wide || c.blind && len(c.gone) > 0 {
			n.signaler.Refresh()
		} else {
			n.probe()
		}
		for _, p := range n.allPeers() {
			p.post(func() { p.networkChanged(&c) })
		}
		if !wide {
			continue // the watch itself takes its time
		}
		if time.Since(quiet) >= networkPauseMost {
			pause = networkPause
		}
		if sleepUntil(n.ctx, time.Now().Add(pause)) != nil {
			return
		}
		pause = min(2*pause, networkPauseMost)
	}
}

func addressList(list []located) []string {
	var s []string
	for _, l := range list {
		s = append(s, l.addr.String())
	}
	return s
}

// networkChanged makes a new session when the present one may lead nowhere, and looks
// for a better path when there is a chance of one.
func (p *Peer) networkChanged(c *change) {
	top := p.top()
	breaks := c.all || c.rerouted
	if top != nil {
		breaks = top.breaks(c)
	}
	switch {
	case breaks:
		p.do(p.machine.wants(ReasonNetwork, p.busy()))
	case len(c.fresh) > 0:
		p.do(p.machine.news(time.Now(), p.busy()))
	}
}

// bufferedNet asks for larger kernel buffers on UDP sockets: the usual 208 KiB
// hold a millisecond of a fast path, and what overflows is lost.
type bufferedNet struct {
	transport.Net
	refused *lastRefusal // nil for none to tell
}

func (n bufferedNet) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.Net.ListenUDP(network, addr)
	if err != nil {
		n.refused.note(err)
		return nil, err
	}
	// A kernel that grants less, or a virtual network, is no failure.
	_ = c.SetReadBuffer(socketBuffer)
	_ = c.SetWriteBuffer(socketBuffer)
	return c, nil
}

// lastRefusal is why there was no socket the last time. pion goes on without and tells
// its log only.
type lastRefusal struct {
	mu  sync.Mutex
	err error
	at  time.Time
}

func (r *lastRefusal) note(err error) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.at = err, time.Now()
}

// since returns the error, nil when it is older than that.
func (r *lastRefusal) since(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.Before(t) {
		return nil
	}
	return r.err
}

// LoopbackNet is the operating system's network restricted to its loopback
// interface, for demos and tests on one machine.
func LoopbackNet() (transport.Net, error) {
	return FilterNet(nil, NetFilter{Address: netip.Addr.IsLoopback})
}

// breaks reports whether a change of the network is reason to replace the session. When
// its address has gone, so is each new one: what is under way began without the address
// that it needs.
func (s *session) breaks(c *change) bool {
	base := s.conn.Base()
	if !c.breaks(base) {
		return s.adrift != nil && len(c.fresh) > 0 && s.adrift.Allow()
	}
	if _, there := c.left[base]; !there && s.adrift == nil {
		s.adrift = rate.NewLimiter(rate.Every(attemptTimeout), adriftBurst)
	}
	return true
}
