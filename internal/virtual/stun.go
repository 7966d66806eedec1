package virtual

import (
	"fmt"

	"github.com/pion/turn/v5"
)

const (
	stunAddr = "1.2.3.4"
	stunPort = 3478 // RFC 8489 §18.6, and RFC 8656 §19 for TURN
)

// STUNServer is the URL of the STUN server, "stun:1.2.3.4:3478", in the form of
// RFC 7064. Nothing answers there without [Config.STUN].
func (n *Net) STUNServer() string { return fmt.Sprintf("stun:%s:%d", stunAddr, stunPort) }

// serveSTUN answers binding requests on a public host of its own, which does not
// count as one. Allocations are refused: without a relay address generator there
// is nothing to hand out.
func (n *Net) serveSTUN() (*turn.Server, error) {
	at, err := n.attachAt(stunAddr)
	if err != nil {
		return nil, err
	}
	host := &Host{net: n, fixed: true}
	n.wire.move(host, at)
	return host.serve(turn.ServerConfig{PacketConnConfigs: []turn.PacketConnConfig{{}}})
}

// serve runs a server on the host. Its socket becomes the first of cfg.
func (h *Host) serve(cfg turn.ServerConfig) (*turn.Server, error) {
	conn, err := h.ListenPacket("udp4", fmt.Sprintf("%s:%d", h.Addr(), stunPort))
	if err != nil {
		return nil, err
	}
	cfg.PacketConnConfigs[0].PacketConn = conn
	cfg.LoggerFactory = silent()
	server, err := turn.NewServer(cfg)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return server, nil
}
