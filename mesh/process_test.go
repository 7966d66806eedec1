package mesh

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// processEnv makes TestProcessMain an agent in a process of its own. Its value
// is a processConfig in JSON.
const processEnv = "AGENTMESH_TEST_PROCESS"

// processConfig is what a process is told. It reports on its standard output,
// one line per event: a word and what belongs to it.
type processConfig struct {
	Key    string // file of the identity
	Name   string
	Server string
	Trust  map[string]string // public keys by name
	Peer   string            // dialled at once
	Send   int               // messages to send as fast as they go; -1 for no end
}

// TestProcessMain is no test in the test's own process: it is the main function
// of the processes that the tests below start.
func TestProcessMain(t *testing.T) {
	text := os.Getenv(processEnv)
	if text == "" {
		return
	}
	var cfg processConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.run(); err != nil {
		fmt.Println("failed", err)
	}
}

// run is an agent that reports what it receives before it counts as delivered,
// and what it sends after Send has returned, until its Peer closes.
func (c processConfig) run() error {
	id, err := keys.Load(c.Key, c.Name)
	if err != nil {
		return err
	}
	trust := &book{keys: map[string]keys.PublicKey{}}
	for name, text := range c.Trust {
		if trust.keys[name], err = keys.ParsePublicKey(text); err != nil {
			return err
		}
	}
	loopback, err := LoopbackNet()
	if err != nil {
		return err
	}
	web := &http.Client{Transport: &http.Transport{}}
	defer web.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	n, err := Listen(ctx, Config{Identity: id, Trust: trust, Signaling: []string{c.Server}, HTTPClient: web, Net: loopback,
		Handler: func(_ context.Context, _ *Peer, m Message) { fmt.Println("got", m.SequenceNum, m.ID) }})
	if err != nil {
		return err
	}
	defer n.Close()
	p, err := n.Dial(ctx, c.Peer)
	if err != nil {
		fmt.Println("refused", errors.Is(err, ErrReplaced), err)
		return nil
	}
	fmt.Println("dialled")
	for i := 1; i != c.Send+1; i++ {
		if err := p.Send(ctx, Message{}); err != nil {
			break
		}
		if i%100 == 0 || i == c.Send {
			if err := p.Flush(ctx); err != nil {
				break
			}
			fmt.Println("flushed", i)
		}
	}
	<-p.Context().Done()
	cause := context.Cause(p.Context())
	fmt.Println("closed", errors.Is(cause, ErrReplaced), cause)
	if _, err = n.Dial(ctx, c.Peer); err != nil {
		fmt.Println("refused", errors.Is(err, ErrReplaced), err)
	}
	return nil
}

// town is where processes meet: a signaling server on the loopback interface
// and agent-a, a Node in the test's own process.
type town struct {
	t      *testing.T
	dir    string
	server string
	trust  *book
	a      *Node
	b      *keys.Identity // of the processes
	ctx    context.Context
}

func newTown(t *testing.T, handler func(context.Context, *Peer, Message)) *town {
	t.Helper()
	s, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		web.Close()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	w := &town{t: t, dir: t.TempDir(), server: strings.Replace(web.URL, "http", "ws", 1),
		b: newIdentity(t, "agent-b"), ctx: ctx}
	if err := w.b.Save(filepath.Join(w.dir, "agent-b.key")); err != nil {
		t.Fatal(err)
	}
	id := newIdentity(t, "agent-a")
	w.trust = newBook(id, w.b)
	loopback, err := LoopbackNet()
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	w.a, err = Listen(ctx, Config{Identity: id, Trust: w.trust, Signaling: []string{w.server}, HTTPClient: client,
		Net: loopback, Handler: handler})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.a.Close(); err != nil && !errors.As(err, new(*UndeliveredError)) {
			t.Error(err)
		}
		client.CloseIdleConnections()
	})
	return w
}

// process is an agent-b in a process of its own.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string   // closed when its output has ended
	quiet chan struct{} // closed then, too
}

// start starts one that sends so many messages to agent-a.
func (w *town) start(send int) *process {
	w.t.Helper()
	cfg, err := json.Marshal(processConfig{Key: filepath.Join(w.dir, "agent-b.key"), Name: "agent-b", Server: w.server,
		Trust: map[string]string{"agent-a": w.a.cfg.Identity.PublicKey().String()}, Peer: "agent-a", Send: send})
	if err != nil {
		w.t.Fatal(err)
	}
	p := &process{t: w.t, cmd: exec.Command(os.Args[0], "-test.run=^TestProcessMain$"), lines: make(chan string, 1<<20), quiet: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), processEnv+"="+string(cfg))
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go p.scan(out)
	w.t.Cleanup(p.kill)
	return p
}

func (p *process) scan(out io.Reader) {
	defer close(p.quiet)
	defer close(p.lines)
	for s := bufio.NewScanner(out); s.Scan(); {
		p.lines <- s.Text()
	}
}

// kill is SIGKILL, and waits. It returns when the process is gone and all that
// it had said is in lines.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.quiet                // Wait closes the pipe under its reader
	_ = p.cmd.Wait()         // killed
}

// until returns the lines up to and with the first that begins with the word.
func (p *process) until(word string) []string {
	p.t.Helper()
	var seen []string
	for line := range p.lines {
		seen = append(seen, line)
		if w, _, _ := strings.Cut(line, " "); w == word {
			return seen
		}
	}
	p.t.Fatalf("the process ended without %q: %q", word, seen)
	return nil
}

// got returns the numbers and IDs of the messages that lines report.
func got(t *testing.T, lines []string) (numbers []uint64, ids []string) {
	t.Helper()
	for _, line := range lines {
		var n uint64
		var id string
		if _, err := fmt.Sscanf(line, "got %d %s", &n, &id); err == nil {
			numbers, ids = append(numbers, n), append(ids, id)
		}
	}
	return numbers, ids
}

// contiguous reports whether each number is one more than the one before.
func contiguous(numbers []uint64) bool {
	for i := 1; i < len(numbers); i++ {
		if numbers[i] != numbers[i-1]+1 {
			return false
		}
	}
	return true
}

// TestReceiverKilled: the receiving process is killed in the middle of traffic
// and started again, twice. Each instance gets a contiguous run; the next
// one begins with what was not acknowledged as delivered, and skips nothing.
func TestReceiverKilled(t *testing.T) {
	w := newTown(t, nil)
	proc := w.start(0)
	proc.until("dialled")
	p, err := w.a.Accept(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan int, 1)
	stop := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				sent <- n
				return
			default:
			}
			if err := p.Send(w.ctx, Message{ID: fmt.Sprint("m", n+1)}); err != nil {
				t.Error(err)
				sent <- n
				return
			}
		}
	}()
	last := uint64(0) // highest number that any instance has taken
	for round := range 2 {
		seen := proc.until("got")
		for range 200 {
			seen = append(seen, proc.until("got")...)
		}
		proc.kill()
		for line := range proc.lines {
			seen = append(seen, line)
		}
		numbers, _ := got(t, seen)
		p.led.mu.Lock()
		base := p.led.out.base()
		p.led.mu.Unlock()
		if !contiguous(numbers) {
			t.Errorf("round %d: an instance got %v", round, numbers)
		}
		if numbers[0] > last+1 {
			t.Errorf("round %d: begins with %d, the instance before took up to %d", round, numbers[0], last)
		}
		last = max(last, numbers[len(numbers)-1])
		if base > last+1 {
			t.Errorf("round %d: %d acknowledged, %d taken", round, base-1, last)
		}
		proc = w.start(0)
		seen = proc.until("got")
		if numbers, _ = got(t, seen); numbers[0] < base || numbers[0] > last+1 {
			t.Errorf("round %d: goes on with %d; up to %d was acknowledged, up to %d taken", round, numbers[0], base-1, last)
		}
		last = max(last, numbers[0])
	}
	close(stop)
	n := <-sent
	if err := p.Flush(w.ctx); err != nil {
		t.Error(err)
	}
	var numbers []uint64
	for len(numbers) == 0 || numbers[len(numbers)-1] < uint64(n) {
		ns, ids := got(t, proc.until("got"))
		if ids[0] != fmt.Sprint("m", ns[0]) {
			t.Fatalf("message %d is %s", ns[0], ids[0])
		}
		numbers = append(numbers, ns...)
	}
	if !contiguous(numbers) || numbers[0] > last+1 {
		t.Errorf("the last instance got %d to %d of %d", numbers[0], numbers[len(numbers)-1], n)
	}
	if err := p.Close(); err != nil {
		t.Errorf("after a flush: %v", err)
	}
}

// TestSenderKilled: the sending process is killed in the middle of traffic and
// started again. What it had flushed has arrived; each instance's messages are
// a contiguous run from 1, each once.
func TestSenderKilled(t *testing.T) {
	type record struct {
		instance signaling.Instance
		number   uint64
	}
	records := make(chan record, 1<<20)
	w := newTown(t, func(_ context.Context, _ *Peer, m Message) {
		records <- record{m.Signature.Instance, m.SequenceNum}
	})
	flushed := 0
	for range 3 {
		proc := w.start(-1)
		for range 3 {
			proc.until("flushed")
			flushed += 100
		}
		proc.kill()
	}
	// One more, which ends on its own, so that all before it has been handled.
	w.start(100).until("flushed")
	flushed += 100
	if err := w.a.Close(); err != nil { // no handler runs any more
		t.Error(err)
	}
	close(records)
	seen := map[signaling.Instance]uint64{}
	var order []signaling.Instance
	total := 0
	for r := range records {
		if !slices.Contains(order, r.instance) {
			order = append(order, r.instance)
		}
		if r.instance != order[len(order)-1] {
			t.Fatalf("instance %d is back after the one that replaced it", slices.Index(order, r.instance))
		}
		if r.number != seen[r.instance]+1 {
			t.Fatalf("instance %d: record %d after %d", len(order)-1, r.number, seen[r.instance])
		}
		seen[r.instance] = r.number
		total++
	}
	if len(order) != 4 || total < flushed {
		t.Errorf("%d records of %d instances, %d were flushed", total, len(order), flushed)
	}
}

// TestTwoProcesses: a second process with the same identity takes over. The
// first learns why, is refused when it dials again, and the second one stays.
func TestTwoProcesses(t *testing.T) {
	w := newTown(t, nil)
	first := w.start(0)
	first.until("dialled")
	p, err := w.a.Accept(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	tell(t, p, "first")
	first.until("got")
	if err := p.Flush(w.ctx); err != nil {
		t.Error(err)
	}
	second := w.start(0)
	second.until("dialled")
	for _, word := range []string{"closed", "refused"} {
		lines := first.until(word)
		if line := lines[len(lines)-1]; !strings.HasPrefix(line, word+" true ") {
			t.Errorf("the first process: %s", line)
		}
	}
	tell(t, p, "second")
	if _, ids := got(t, second.until("got")); !slices.Equal(ids, []string{"second"}) {
		t.Errorf("the second process got %q", ids)
	}
	if err := p.Flush(w.ctx); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if lines := second.until("closed"); !strings.HasPrefix(lines[len(lines)-1], "closed false ") {
		t.Errorf("the second process: %q", lines)
	}
}

// TestKilledThenClosed: a process is killed, its Peer closed here: Close reports
// exactly what was not acknowledged, and nothing of it is seen by the process
// that comes next, which is dialled from here; numbers go on.
func TestKilledThenClosed(t *testing.T) {
	w := newTown(t, nil)
	proc := w.start(0)
	proc.until("dialled")
	p, err := w.a.Accept(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	tell(t, p, "taken")
	proc.until("got")
	if err := p.Flush(w.ctx); err != nil {
		t.Error(err)
	}
	proc.kill()
	tell(t, p, "lost 1")
	tell(t, p, "lost 2")
	var lost *UndeliveredError
	if err := p.Close(); !errors.As(err, &lost) || !slices.Equal(lost.IDs, []string{"lost 1", "lost 2"}) {
		t.Errorf("close: %v", err)
	}
	if err := p.Send(w.ctx, Message{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("send after close: %v", err)
	}
	proc = w.start(0)
	if p, err = w.a.Dial(w.ctx, "agent-b"); err != nil {
		t.Fatal(err)
	}
	tell(t, p, "next")
	numbers, ids := got(t, proc.until("got"))
	if !slices.Equal(numbers, []uint64{4}) || !slices.Equal(ids, []string{"next"}) {
		t.Errorf("the new process got %v %q", numbers, ids)
	}
	if err := p.Flush(w.ctx); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
