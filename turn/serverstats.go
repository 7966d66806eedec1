package turn

import "sync/atomic"

// ServerStats counts what a [Server] did since it began.
type ServerStats struct {
	Allocations        int     `json:"allocations"`         // now
	Allocated          uint64  `json:"allocated"`           // ever
	QuotaRefused       uint64  `json:"quota_refused"`       // allocations refused with 486
	CapacityRefused    uint64  `json:"capacity_refused"`    // allocations refused with 508: MaxAllocations, ports, shutdown
	AuthFailures       uint64  `json:"auth_failures"`       // wrong, unknown or expired credentials
	PeersRefused       uint64  `json:"peers_refused"`       // permissions and channels, and datagrams to the server itself
	ToPeers            Traffic `json:"to_peers"`            // relayed from clients
	ToClients          Traffic `json:"to_clients"`          // relayed to clients
	Throttled          Traffic `json:"throttled"`           // dropped for BytesPerSecond
	Unanswered         uint64  `json:"unanswered"`          // requests without authentication, for amplification or AnswersPerSecond
	Junk               uint64  `json:"junk"`                // datagrams and connections that were neither STUN nor a channel's
	Connections        int     `json:"connections"`         // TCP, now
	ConnectionsRefused uint64  `json:"connections_refused"` // TCP, for MaxConnections
}

// Traffic is an amount of relayed datagrams. Bytes are those of their payloads.
type Traffic struct {
	Datagrams uint64 `json:"datagrams"`
	Bytes     uint64 `json:"bytes"`
}

// counters are those of ServerStats that no lock guards.
type counters struct {
	allocated, quotaRefused, capacityRefused, authFailures, peersRefused, unanswered, junk, connectionsRefused atomic.Uint64
	toPeers, toClients, throttled                                                                              traffic
}

type traffic struct{ datagrams, bytes atomic.Uint64 }

func (t *traffic) add(bytes int) {
	t.datagrams.Add(1)
	t.bytes.Add(uint64(bytes))
}

func (t *traffic) load() Traffic { return Traffic{t.datagrams.Load(), t.bytes.Load()} }

// Stats returns the counts of now. It may also be called after Close.
func (s *Server) Stats() ServerStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.counters
	return ServerStats{
		Allocations:        s.total,
		Allocated:          c.allocated.Load(),
		QuotaRefused:       c.quotaRefused.Load(),
		CapacityRefused:    c.capacityRefused.Load(),
		AuthFailures:       c.authFailures.Load(),
		PeersRefused:       c.peersRefused.Load(),
		ToPeers:            c.toPeers.load(),
		ToClients:          c.toClients.load(),
		Throttled:          c.throttled.load(),
		Unanswered:         c.unanswered.Load(),
		Junk:               c.junk.Load(),
		Connections:        len(s.streams),
		ConnectionsRefused: c.connectionsRefused.Load(),
	}
}
