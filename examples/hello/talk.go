package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/mesh"
)

const (
	meshName = "hello"
	// defaultInput is read when the program runs from the project's root.
	defaultInput = "testdata/incidents.jsonl"
)

// answer is the payload of a reply: what the other agent found.
type answer struct {
	Verified  bool `json:"verified"`
	Duplicate bool `json:"duplicate"`
}

// lines is a writer for lines of several goroutines.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// serve answers every Peer until the node closes.
func serve(ctx context.Context, node *mesh.Node, trust keys.Trust, stdout io.Writer) error {
	var peers sync.WaitGroup
	defer peers.Wait()
	for {
		p, err := node.Accept(ctx)
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		peers.Go(func() {
			if err := reply(ctx, p, trust, stdout); err != nil {
				fmt.Fprintf(stdout, "%s: %v\n", p.ID(), err)
			}
		})
	}
}

// reply verifies and answers what one Peer sends.
func reply(ctx context.Context, p *mesh.Peer, trust keys.Trust, stdout io.Writer) error {
	defer p.Close()
	seen := map[string]bool{}
	for {
		m, err := p.Receive(ctx)
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		a := answer{Verified: verify(ctx, m, trust) == nil, Duplicate: seen[m.ID]}
		seen[m.ID] = true
		fmt.Fprintf(stdout, "%s -> %s #%d: %s\n", m.Source, m.Destination, m.SequenceNum, summary(m.Payload))
		payload, err := json.Marshal(a)
		if err != nil {
			return err
		}
		out := mesh.Message{Performative: "agree", ConversationID: m.ConversationID, CitationIDs: []string{m.ID}, Payload: payload}
		if !a.Verified {
			out.Performative = "refuse"
		}
		if err := p.Send(ctx, out); err != nil {
			return err
		}
	}
}

// verify checks a message the way an auditor would, years later: from its JSON
// form alone.
func verify(ctx context.Context, m mesh.Message, trust keys.Trust) error {
	b, err := m.AppendJSON(nil)
	if err != nil {
		return err
	}
	var read mesh.Message
	if err := read.UnmarshalJSON(b); err != nil {
		return err
	}
	return read.Verify(ctx, meshName, trust)
}

// send sends every line of the input, counts the answers and prints the sum.
func send(ctx context.Context, o options, node *mesh.Node, to string, stdin io.Reader, stdout io.Writer) error {
	in, err := open(o.input, stdin)
	if err != nil {
		return err
	}
	defer in.Close()
	dialCtx, cancel := context.WithTimeout(ctx, o.timeout)
	p, err := node.Dial(dialCtx, to)
	cancel()
	if err != nil {
		return err
	}
	defer p.Close()

	t := &tally{waiting: map[string]bool{}, finished: make(chan struct{})}
	counted := make(chan error, 1)
	go func() { counted <- t.count(ctx, p, stdout) }()

	input := bufio.NewReaderSize(in, 1<<20)
	for {
		line, readErr := input.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			id := fmt.Sprintf("%s-%d", node.ID(), t.expect(node.ID()))
			err := p.Send(ctx, mesh.Message{ID: id, Performative: "inform", ConversationID: "hello", Payload: line})
			if err != nil {
				return err
			}
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return readErr
		}
	}
	if err := p.Flush(ctx); err != nil {
		return err
	}
	t.end()
	if err := <-counted; err != nil {
		return err
	}
	fmt.Fprintln(stdout, t)
	if t.lost() > 0 || t.verified != t.sent || t.duplicated > 0 {
		return errors.New("not every message arrived once and verified")
	}
	return nil
}

// open opens the input.
func open(name string, stdin io.Reader) (io.ReadCloser, error) {
	switch name {
	case "-":
		return io.NopCloser(stdin), nil
	case "":
		name = defaultInput
	}
	return os.Open(name)
}

// tally counts messages and their answers.
type tally struct {
	mu         sync.Mutex
	sent       int
	received   int
	verified   int
	duplicated int
	waiting    map[string]bool // IDs without an answer
	ended      bool            // nothing more will be sent
	finished   chan struct{}
}

// expect notes that a message will be sent and returns its number.
func (t *tally) expect(from string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent++
	t.waiting[fmt.Sprintf("%s-%d", from, t.sent)] = true
	return t.sent
}

// end notes that everything was sent and delivered: only answers are missing.
func (t *tally) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if len(t.waiting) == 0 {
		close(t.finished)
	}
}

// count counts answers until each message has one.
func (t *tally) count(ctx context.Context, p *mesh.Peer, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-t.finished:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		m, err := p.Receive(ctx)
		select {
		case <-t.finished:
			return nil
		default:
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s -> %s #%d: %s\n", m.Source, m.Destination, m.SequenceNum, m.Performative)
		if err := t.add(m); err != nil {
			return err
		}
	}
}

// add counts one answer.
func (t *tally) add(m mesh.Message) error {
	var a answer
	if err := json.Unmarshal(m.Payload, &a); err != nil || len(m.CitationIDs) != 1 {
		return fmt.Errorf("an answer that makes no sense: %s", summary(m.Payload))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.received++
	if a.Verified && m.Performative == "agree" {
		t.verified++
	}
	if a.Duplicate || !t.waiting[m.CitationIDs[0]] {
		t.duplicated++
	}
	delete(t.waiting, m.CitationIDs[0])
	if t.ended && len(t.waiting) == 0 {
		close(t.finished)
	}
	return nil
}

func (t *tally) lost() int { return len(t.waiting) }

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("hello: %d sent, %d received, %d verified, %d lost, %d duplicated",
		t.sent, t.received, t.verified, t.lost(), t.duplicated)
}

// summary shortens a payload for the screen.
func summary(payload []byte) string {
	const most = 100
	r := []rune(string(payload))
	if len(r) <= most {
		return string(r)
	}
	return fmt.Sprintf("%s… (%d bytes)", string(r[:most]), len(payload))
}
