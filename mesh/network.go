package mesh

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/netchange"
	"github.com/pion/transport/v5/stdnet"
)

// loopbackOnly reports whether loopback addresses count as candidates: only when
// there is no other interface, so that a machine without a network can still run
// a mesh of its own and no other offers 127.0.0.1.
func loopbackOnly(n transport.Net) (bool, error) {
	ifs, err := n.Interfaces()
	if err != nil {
		return false, err
	}
	for _, i := range ifs {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			return false, nil
		}
	}
	return len(ifs) > 0, nil
}

// systemNet returns the operating system's network and what tells of its
// changes, nil where that cannot be had.
func systemNet(log *slog.Logger) (n transport.Net, changed func(context.Context) error, stop func() error, err error) {
	d, err := netchange.NewDetector()
	if err != nil {
		log.Warn("changes of the network are not noticed", "error", err)
		std, err := stdnet.NewNet()
		return std, nil, nil, err
	}
	// The first check tells what is there, at once.
	if _, err := d.Check(context.Background()); err != nil {
		return nil, nil, nil, errors.Join(err, d.Close())
	}
	return d, func(ctx context.Context) error {
		_, err := d.Check(ctx)
		return err
	}, d.Close, nil
}

// watchNetwork makes everything new when the network has changed. A path that
// is not affected is replaced without a gap. Changes without end, as of a machine
// that starts and ends containers, are acted on less and less often.
func (n *Node) watchNetwork() {
	pause := networkPause
	for {
		quiet := time.Now()
		if err := n.cfg.NetworkChanged(n.ctx); err != nil {
			if n.ctx.Err() == nil {
				n.log.Warn("changes of the network are not noticed any more", "error", err)
			}
			return
		}
		if n.ctx.Err() != nil {
			return
		}
		n.log.Info("the network has changed")
		n.signaler.Refresh()
		for _, p := range n.allPeers() {
			p.post(p.networkChanged)
		}
		if time.Since(quiet) >= networkPauseMost {
			pause = networkPause
		}
		t := time.NewTimer(pause)
		pause = min(2*pause, networkPauseMost)
		select {
		case <-t.C:
		case <-n.ctx.Done():
		}
		t.Stop()
	}
}

// bufferedNet asks for larger kernel buffers on UDP sockets: the usual 208 KiB
// hold a millisecond of a fast path, and what overflows is lost.
type bufferedNet struct{ transport.Net }

func (n bufferedNet) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.Net.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	// A kernel that grants less, or a virtual network, is no failure.
	_ = c.SetReadBuffer(socketBuffer)
	_ = c.SetWriteBuffer(socketBuffer)
	return c, nil
}

// LoopbackNet is the operating system's network restricted to its loopback
// interface, for demos and tests on one machine.
func LoopbackNet() (transport.Net, error) {
	return FilterNet(nil, NetFilter{Address: netip.Addr.IsLoopback})
}
