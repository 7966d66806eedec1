// Package agentmesh is the root of an SDK with which software agents talk to each
// other directly: signed messages, delivered once and in order, over WebRTC.
// It holds no code. Start with package mesh:
//
//   - [github.com/infrafabric/agentmesh/mesh]: Listen, Dial, Node, Peer, Message
//   - [github.com/infrafabric/agentmesh/mesh/meshtest]: a universe for tests of
//     agents, with faults, in virtual time
//   - [github.com/infrafabric/agentmesh/keys]: identities and trust policies
//   - [github.com/infrafabric/agentmesh/signaling]: the server that introduces
//     agents to each other, and its client
//   - [github.com/infrafabric/agentmesh/turn]: the pool of relays, and a relay to embed
//   - [github.com/infrafabric/agentmesh/witness]: events
//   - [github.com/infrafabric/agentmesh/metrics]: instruments, and promexport for
//     Prometheus
//
// The directory examples has a program for each task; `go run ./examples/hello`
// needs nothing else.
package agentmesh
