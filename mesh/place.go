package mesh

import (
	"errors"
	"slices"

	"github.com/infrafabric/agentmesh/signaling"
)

// watchPlace tells when another process has this agent's place at every signaling
// server, and when it is back. An agent that is only ever dialled learns it nowhere else.
func (n *Node) watchPlace() {
	for {
		if n.signaler.Wait(n.ctx, displaced) != nil {
			return // the Node closes
		}
		n.log.Error("another process has taken this agent's place at every signaling server: nobody new reaches this one",
			"error", ErrReplaced)
		n.mu.Lock()
		close(n.displaced)
		n.mu.Unlock()
		err := n.signaler.Wait(n.ctx, func(s []signaling.ServerStatus) bool { return open(s) > 0 })
		n.mu.Lock()
		n.displaced = make(chan struct{})
		n.mu.Unlock()
		if err != nil {
			return
		}
		n.log.Info("the other process is gone: this agent can be reached again")
	}
}

// displaced reports whether somebody else has the agent's place wherever it could be
// registered. A server that is out of reach may still have this one.
func displaced(servers []signaling.ServerStatus) bool {
	replaced := 0
	for _, s := range servers {
		switch s.State {
		case signaling.StateReplaced:
			replaced++
		case signaling.StateConnecting:
			if !errors.Is(s.Err, signaling.ErrReplaced) {
				return false
			}
			replaced++ // it asks again whether the other is gone
		case signaling.StateOpen, signaling.StateWaiting:
			return false
		}
	}
	return replaced > 0
}

// absentEverywhere reports whether every open server is among those that said so.
func (n *Node) absentEverywhere(said []string) bool {
	servers := n.signaler.Servers()
	for _, s := range servers {
		if s.State == signaling.StateOpen && !slices.Contains(said, s.URL) {
			return false
		}
	}
	return open(servers) > 0
}

func open(servers []signaling.ServerStatus) (count int) {
	for _, s := range servers {
		if s.State == signaling.StateOpen {
			count++
		}
	}
	return count
}
