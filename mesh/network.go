package mesh

import (
	"net"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

// network returns the Net to use and whether its loopback addresses count as
// candidates: only when it has no other interface, so that a machine without
// a network can still run a mesh of its own and no other offers 127.0.0.1.
func network(n transport.Net) (transport.Net, bool, error) {
	if n == nil {
		std, err := stdnet.NewNet()
		if err != nil {
			return nil, false, err
		}
		n = std
	}
	ifs, err := n.Interfaces()
	if err != nil {
		return nil, false, err
	}
	loopback := len(ifs) > 0
	for _, i := range ifs {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			loopback = false
		}
	}
	return bufferedNet{n}, loopback, nil
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
	std, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return loopbackNet{std}, nil
}

type loopbackNet struct{ transport.Net }

func (n loopbackNet) Interfaces() ([]*transport.Interface, error) {
	all, err := n.Net.Interfaces()
	if err != nil {
		return nil, err
	}
	var lo []*transport.Interface
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			lo = append(lo, i)
		}
	}
	return lo, nil
}
