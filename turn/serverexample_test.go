package turn_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

// A server for UDP and TCP on one address. In service the address is public, the
// port is 3478, and the secret comes from a file that only the server and those
// who hand out credentials can read.
func ExampleNewServer() {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	s, err := turn.NewServer(turn.ServerConfig{
		PacketConns: []net.PacketConn{udp},
		Listeners:   []net.Listener{tcp},
		RelayIPs:    []turn.RelayIP{{Public: netip.MustParseAddr("127.0.0.1")}},
		Secrets:     []string{"a secret of 16 bytes or more"},
		AllowPeers:  []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, // to try it out
	})
	if err != nil {
		log.Fatal(err)
	}
	// … when it is time to end:
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	fmt.Println(s.Shutdown(ctx), s.Stats().Allocations)
	// Output: <nil> 0
}
