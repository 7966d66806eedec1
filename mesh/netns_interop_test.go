//go:build interop && linux

package mesh

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// netnsEnv makes TestNetworkMain an agent, or the server, in a network
// namespace. Its value is a netnsConfig in JSON.
const netnsEnv = "AGENTMESH_TEST_NETNS"

type netnsConfig struct {
	Server string // the URL; an agent has a key as well
	Key    string
	Name   string
	Trust  map[string]string
	Peer   string // sends to it, when there is one
}

// TestNetworkMain is the main function of the processes of
// TestInteropAddressChange.
func TestNetworkMain(t *testing.T) {
	text := os.Getenv(netnsEnv)
	if text == "" {
		return
	}
	var cfg netnsConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.Key == "" {
		s, err := signaling.NewServer(signaling.ServerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("ready")
		t.Fatal(http.ListenAndServe(strings.TrimSuffix(strings.TrimPrefix(cfg.Server, "ws://"), "/"), s))
	}
	if err := cfg.converse(); err != nil {
		fmt.Println("failed", err)
	}
}

// converse sends a message every 10 ms, or prints what it gets, until it is killed.
// Its network is the system's own, and so are the notices of its changes.
func (c netnsConfig) converse() error {
	ctx := context.Background()
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
	n, err := Listen(ctx, Config{Identity: id, Trust: trust, Signaling: []string{c.Server},
		Handler: func(_ context.Context, _ *Peer, m Message) { fmt.Println("got", m.SequenceNum) }})
	if err != nil {
		return err
	}
	defer n.Close()
	fmt.Println("ready")
	if c.Peer == "" {
		<-ctx.Done()
	}
	p, err := n.Dial(ctx, c.Peer)
	if err != nil {
		return err
	}
	go func() {
		for ch := range p.Changes(ctx) {
			fmt.Println("state", ch.State, ch.Reason, ch.Path)
		}
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if err := p.Send(ctx, Message{}); err != nil {
			return err
		}
	}
	return nil
}

// lab is three network namespaces of the test's own: "s" holds a bridge and the
// server, "a" and "b" an agent each.
type lab struct {
	t      *testing.T
	prefix string
}

func (l *lab) ns(name string) string { return l.prefix + name }

func (l *lab) run(args ...string) {
	l.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (l *lab) in(ns string, args ...string) {
	l.t.Helper()
	l.run(append([]string{"ip", "netns", "exec", l.ns(ns)}, args...)...)
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Fatal("this test needs the Debian package iproute2 and root")
	}
	l := &lab{t, fmt.Sprintf("am%d", os.Getpid())}
	for _, name := range []string{"s", "a", "b"} {
		l.run("ip", "netns", "add", l.ns(name))
		t.Cleanup(func() { l.run("ip", "netns", "del", l.ns(name)) })
		l.in(name, "ip", "link", "set", "lo", "up")
	}
	l.in("s", "ip", "link", "add", "br0", "type", "bridge")
	l.in("s", "ip", "link", "set", "br0", "up")
	l.in("s", "ip", "addr", "add", "10.77.0.1/24", "dev", "br0")
	for i, name := range []string{"a", "b"} {
		port := "to" + name
		l.in("s", "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", l.ns(name))
		l.in("s", "ip", "link", "set", port, "master", "br0", "up")
		l.in(name, "ip", "link", "set", "eth0", "up")
		l.in(name, "ip", "addr", "add", fmt.Sprintf("10.77.0.%d/24", i+2), "dev", "eth0")
	}
	return l
}

// start starts a process in a namespace; line gets what it prints.
func (l *lab) start(ns string, cfg netnsConfig, line func(string)) {
	l.t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", l.ns(ns), os.Args[0], "-test.run=^TestNetworkMain$")
	cmd.Env = append(os.Environ(), netnsEnv+"="+string(text))
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	ready, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		first := true
		for s := bufio.NewScanner(out); s.Scan(); {
			if first {
				first = false
				close(ready)
			}
			line(s.Text())
		}
	}()
	l.t.Cleanup(func() {
		cmd.Process.Kill()
		<-over
		cmd.Wait()
	})
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		l.t.Fatalf("the process in %s does not come up", ns)
	}
}

// arrivals is when messages came.
type arrivals struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
	next    uint64
	wrong   []string
}

func (a *arrivals) line(s string) {
	var n uint64
	if _, err := fmt.Sscanf(s, "got %d", &n); err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if !a.last.IsZero() {
		a.longest = max(a.longest, now.Sub(a.last))
	}
	a.last = now
	if a.next++; n != a.next {
		a.wrong = append(a.wrong, fmt.Sprintf("number %d instead of %d", n, a.next))
		a.next = n
	}
}

// until waits for so many further messages and returns the longest pause.
func (a *arrivals) until(t *testing.T, more uint64) time.Duration {
	t.Helper()
	a.mu.Lock()
	want := a.next + more
	a.longest = 0
	a.mu.Unlock()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		a.mu.Lock()
		done, longest := a.next >= want, a.longest
		a.mu.Unlock()
		if done {
			return longest
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%d of %d messages came", a.next, want)
		}
	}
}

// TestInteropAddressChange: the address of a real interface changes under a running
// agent. The kernel tells it, and traffic goes on from the new address within a
// second.
func TestInteropAddressChange(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	trust := map[string]string{}
	for _, name := range []string{"a", "b"} {
		id := newIdentity(t, name)
		if err := id.Save(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		trust[name] = id.PublicKey().String()
	}
	const url = "ws://10.77.0.1:8443/"
	l.start("s", netnsConfig{Server: url}, func(string) {})
	var got arrivals
	l.start("b", netnsConfig{Server: url, Key: filepath.Join(dir, "b"), Name: "b", Trust: trust}, got.line)
	l.start("a", netnsConfig{Server: url, Key: filepath.Join(dir, "a"), Name: "a", Trust: trust, Peer: "b"}, func(s string) { t.Log("a:", s) })
	got.until(t, 100)
	t.Logf("in peace: longest pause %v", got.until(t, 100))
	for i, who := range []string{"a", "b", "a"} {
		host := map[string]int{"a": 2, "b": 3}[who]
		if i == 2 {
			host = 12
		}
		l.in(who, "ip", "addr", "del", fmt.Sprintf("10.77.0.%d/24", host), "dev", "eth0")
		l.in(who, "ip", "addr", "add", fmt.Sprintf("10.77.0.%d/24", host+10), "dev", "eth0")
		pause := got.until(t, 200)
		t.Logf("%s has another address: longest pause %v", who, pause)
		if pause > time.Second {
			t.Errorf("%s has another address: longest pause %v", who, pause)
		}
	}
	if len(got.wrong) > 0 {
		t.Errorf("out of order: %v", got.wrong)
	}
}
