package turn

import (
	"testing"
	"time"
)

// BenchmarkServerRelay sends datagrams of 1200 bytes to an echo and back, in
// batches: each is relayed twice.
func BenchmarkServerRelay(b *testing.B) {
	s := serve(b, func(c *ServerConfig) { c.AllowPeers, c.BytesPerSecond = loopbacks, 1<<30 })
	c := call(b, s.addr(), "u", serverPassword)
	c.mustAllocate()
	if code := c.bind(0x4000, addrPort(echo(b, loopback4).LocalAddr())); code != 0 {
		b.Fatal(code)
	}
	const size, batch = 1200, 32
	data := append([]byte{0x40, 0, size >> 8, size & 0xff}, make([]byte, size)...)
	buf := make([]byte, 2048)
	b.SetBytes(2 * size)
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += batch {
		for range batch {
			c.sendRaw(data)
		}
		check(b, c.conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		for range batch {
			if _, _, err := c.conn.ReadFrom(buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}
