package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/mesh"
)

// endOrder, as a line on an agent's standard input, makes it send no more and
// flush. The end of standard input makes it leave.
const endOrder = "end"

// agentConfig is what an agent is told.
type agentConfig struct {
	Name        string
	Incarnation int // 1 for the first process of the name
	Key         string
	Directory   string
	Servers     []string
	Peers       []string
	Every       time.Duration // between two messages to one peer
}

// agent is what runs in the process.
type agent struct {
	agentConfig
	node *mesh.Node
	quit chan struct{} // closed when no more is to be sent
}

// run is the agent's main function.
func (c agentConfig) run() error {
	id, err := keys.Load(c.Key, c.Name)
	if err != nil {
		return err
	}
	trust, err := keys.NewDirectory(keys.DirectoryConfig{Path: c.Directory})
	if err != nil {
		return err
	}
	loopback, err := mesh.LoopbackNet()
	if err != nil {
		return err
	}
	ctx := context.Background()
	a := &agent{agentConfig: c, quit: make(chan struct{})}
	a.node, err = mesh.Listen(ctx, mesh.Config{
		Identity: id, Trust: trust, Signaling: c.Servers, Net: loopback, Logger: ownLog(),
		Handler: take,
	})
	if err != nil {
		return err
	}
	say("ready")
	go func() { // the Peers are dialled; nobody needs them twice
		for {
			if _, err := a.node.Accept(ctx); err != nil {
				return
			}
		}
	}()
	var talks sync.WaitGroup
	for _, to := range c.Peers {
		talks.Go(func() {
			if err := a.talk(ctx, to); err != nil {
				say("problem %s: %v", to, err)
			}
		})
	}
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		if orders.Text() == endOrder {
			close(a.quit)
			talks.Wait()
			say("settled")
		}
	}
	return errors.Join(orders.Err(), a.node.Close())
}

// dwell is how long the handler takes for a message that is at most fresh old:
// before its line and after it in turn. It is longer than an acknowledgement
// waits, so that a kill often hits a message that was acknowledged too early, if
// such were done. What waited for the end of a fault is not held up further.
const (
	dwell = 4 * time.Millisecond
	fresh = 50 * time.Millisecond
)

// take is the handler. The line is out before the message counts as delivered.
func take(_ context.Context, _ *mesh.Peer, m mesh.Message) {
	slow := time.Since(m.Timestamp) < fresh
	if slow && m.SequenceNum%2 == 0 {
		<-time.After(dwell)
	}
	say("got %s", m.ID)
	if slow && m.SequenceNum%2 == 1 {
		<-time.After(dwell)
	}
}

// talk sends to another agent until it is told to quit.
func (a *agent) talk(ctx context.Context, to string) error {
	peer, err := a.node.Dial(ctx, to)
	if err != nil {
		return err
	}
	go func() {
		for c := range peer.Changes(ctx) {
			say("state %s %v (%v) %v", to, c.State, c.Reason, c.Err)
		}
	}()
	tick := time.NewTicker(a.Every)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		select {
		case <-tick.C:
		case <-a.quit:
			return peer.Flush(ctx)
		}
		id := messageID{process{a.Name, a.Incarnation}, to, n}
		if err := peer.Send(ctx, mesh.Message{ID: id.String(), Performative: "inform", Payload: json.RawMessage(`{}`)}); err != nil {
			return err
		}
		say("sent %s %d", to, n)
	}
}

// ownLog writes what the project's own packages log to standard error; what pion
// logs is too much for a process with traffic.
func ownLog() *slog.Logger {
	return slog.New(withoutPion{slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})})
}

// withoutPion drops the loggers that package mesh makes for pion.
type withoutPion struct{ slog.Handler }

func (h withoutPion) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "pion" {
			return slog.DiscardHandler
		}
	}
	return withoutPion{h.Handler.WithAttrs(attrs)}
}
