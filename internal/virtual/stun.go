package virtual

import (
	"fmt"

	"github.com/pion/transport/v5/vnet"
	"github.com/pion/turn/v5"
)

const (
	stunAddr = "1.2.3.4"
	stunPort = 3478 // RFC 8489 §18.6
)

// STUNServer is the URL of the STUN server, "stun:1.2.3.4:3478", in the form of
// RFC 7064. Nothing answers there without [Config.STUN].
func (n *Net) STUNServer() string { return fmt.Sprintf("stun:%s:%d", stunAddr, stunPort) }

// serveSTUN answers binding requests on a public host of its own. Allocations
// are refused: without a relay address generator there is nothing to hand out.
func serveSTUN(core *vnet.Router) (*turn.Server, error) {
	host, err := newHost(stunAddr)
	if err != nil {
		return nil, err
	}
	if err := core.AddNet(host); err != nil {
		return nil, err
	}
	conn, err := host.ListenPacket("udp4", fmt.Sprintf("%s:%d", stunAddr, stunPort))
	if err != nil {
		return nil, err
	}
	server, err := turn.NewServer(turn.ServerConfig{
		PacketConnConfigs: []turn.PacketConnConfig{{PacketConn: conn}},
		LoggerFactory:     silent(),
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return server, nil
}
