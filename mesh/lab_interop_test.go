//go:build interop && linux

package mesh

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

// The lab's public network. Its servers have the first addresses.
const (
	labServer = "ws://10.77.0.1:8443/"
	labFirst  = "10.77.0.1"
	labSecond = "10.77.0.2"
)

// labLimit is how long anything in a lab may take that has no limit of its own.
const labLimit = 30 * time.Second

// lab is a small internet of network namespaces. "s" holds its public network, a
// bridge, and the servers there. A namespace lives as long as the process that
// holds it, and the kernel ends that with the test, however the test ends.
type lab struct {
	t     *testing.T
	dir   string
	holds map[string]int // process IDs by namespace
	ids   map[string]*keys.Identity
}

// newLab makes the public network, with its signaling server.
func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir(), holds: map[string]int{}, ids: map[string]*keys.Identity{}}
	l.namespace("s")
	l.in("s", "ip", "link", "add", "br0", "type", "bridge")
	l.in("s", "ip", "link", "set", "br0", "up")
	for _, addr := range []string{labFirst, labSecond} {
		l.in("s", "ip", "addr", "add", addr+"/24", "dev", "br0")
	}
	// The rest of the world swallows what is sent there. Without a route to a
	// client's private address coturn gives its allocation up.
	l.in("s", "ip", "link", "add", "world", "type", "veth", "peer", "name", "void")
	l.in("s", "ip", "link", "set", "world", "up", "arp", "off")
	l.in("s", "ip", "link", "set", "void", "up")
	l.in("s", "ip", "route", "add", "default", "dev", "world")
	l.process("s", labConfig{Server: labServer}, nil)
	return l
}

// within is the lab for a subtest, with which its processes end.
func (l *lab) within(t *testing.T) *lab {
	sub := *l
	sub.t = t
	return &sub
}

// need fails the test when a program is missing.
func need(t *testing.T, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("this test needs root and the Debian package %s: %v", pkg, err)
	}
	return path
}

// namespace makes one.
func (l *lab) namespace(name string) {
	l.t.Helper()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		l.t.Fatalf("this test needs root to make network namespaces: %v", err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	l.holds[name] = cmd.Process.Pid
	l.in(name, need(l.t, "ip", "iproute2"), "link", "set", "lo", "up")
}

// command is a program in a namespace, or on the machine itself for "".
func (l *lab) command(ns string, args ...string) *exec.Cmd {
	if ns != "" {
		args = append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", l.holds[ns])}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...) // nsenter becomes the program
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// in runs a program in a namespace and returns what it says.
func (l *lab) in(ns string, args ...string) string {
	l.t.Helper()
	return l.feed(ns, "", args...)
}

// feed is in with standard input.
func (l *lab) feed(ns, stdin string, args ...string) string {
	l.t.Helper()
	cmd := l.command(ns, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.t.Fatalf("in %s: %s: %v\n%s%s", ns, strings.Join(args, " "), err, stdin, out)
	}
	return string(out)
}

// plug gives a namespace an interface eth0 on the public network.
func (l *lab) plug(ns string, host int) {
	l.t.Helper()
	port := "to" + ns
	l.in("s", "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(l.holds[ns]))
	l.in("s", "ip", "link", "set", port, "master", "br0", "up")
	l.in(ns, "ip", "link", "set", "eth0", "up")
	l.in(ns, "ip", "addr", "add", public(host)+"/24", "dev", "eth0")
}

// host makes a namespace on the public network.
func (l *lab) host(name string, host int) {
	l.t.Helper()
	l.namespace(name)
	l.plug(name, host)
}

func public(host int) string  { return fmt.Sprintf("10.77.0.%d", host) }
func private(home int) string { return fmt.Sprintf("192.168.%d.2", home) }

// home makes a namespace on a network of its own behind a router, which has the
// public address. No other network knows a way to the private ones.
func (l *lab) home(name string, number int, rules string) {
	l.t.Helper()
	router, gateway := "r"+name, fmt.Sprintf("192.168.%d.1", number)
	l.host(router, number)
	l.namespace(name)
	l.in(router, "ip", "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(l.holds[name]))
	l.in(router, "ip", "link", "set", "lan", "up")
	l.in(router, "ip", "addr", "add", gateway+"/24", "dev", "lan")
	l.in(router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	l.in(name, "ip", "link", "set", "eth0", "up")
	l.in(name, "ip", "addr", "add", private(number)+"/24", "dev", "eth0")
	l.in(name, "ip", "route", "add", "default", "via", gateway)
	l.rules(name, rules)
}

// rules replaces what the router of a home does, at one instant. Flows that it
// already translates stay as they are.
func (l *lab) rules(name, rules string) {
	l.t.Helper()
	need(l.t, "nft", "nftables")
	l.feed("r"+name, "flush ruleset\ntable ip lab {\n"+rules+"}\n", "nft", "-f", "-")
}

// symmetric is a NAT that gives each flow a port at random (RFC 4787: address
// and port-dependent mapping): what a STUN server saw is of no use to others. What
// nobody asked for is dropped; a router that answers it remembers a flow of its own
// and has to give the agent's another port, so that even a NAT that keeps ports
// would seem symmetric.
const symmetric = `chain leave { type nat hook postrouting priority srcnat; oifname "eth0" masquerade fully-random; }
chain own { type filter hook input priority filter; iifname "eth0" drop; }
`

// dropUDP is a firewall.
const dropUDP = `chain pass { type filter hook forward priority filter; meta l4proto udp counter drop; }
`

// fullCone is a NAT that keeps ports and lets everybody in.
func fullCone(home int) string {
	return fmt.Sprintf(`chain leave { type nat hook postrouting priority srcnat; oifname "eth0" snat to %s; }
chain arrive { type nat hook prerouting priority dstnat; iifname "eth0" dnat to %s; }
`, public(home), private(home))
}

// labProc is a running process.
type labProc struct {
	cmd  *exec.Cmd
	in   io.Closer
	gone chan struct{} // closed when it has ended and its lines are taken
}

// start starts a process in a namespace; line gets what it prints, nil logs it.
func (l *lab) start(cmd *exec.Cmd, line func(string)) *labProc {
	l.t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	p := &labProc{cmd, in, make(chan struct{})}
	go func() {
		defer close(p.gone)
		for s := bufio.NewScanner(out); s.Scan(); {
			line(s.Text())
		}
		_ = cmd.Wait() // killed, as a rule
	}()
	l.t.Cleanup(p.kill)
	return p
}

// kill is SIGKILL, also for a process that is stopped. It returns when the
// process is gone.
func (p *labProc) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.gone
}

func (p *labProc) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// process starts this test's binary in a namespace, as an agent or the server,
// and waits until it is up. line gets what it says after that.
func (l *lab) process(ns string, cfg labConfig, line func(string)) *labProc {
	l.t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := l.command(ns, os.Args[0], "-test.run=^TestLabMain$")
	cmd.Env = append(os.Environ(), labEnv+"="+string(text))
	ready := make(chan struct{})
	up := sync.OnceFunc(func() { close(ready) })
	p := l.start(cmd, func(s string) {
		switch {
		case s == "ready":
			up()
		case line != nil:
			line(s)
		}
	})
	select {
	case <-ready:
	case <-p.gone:
		l.t.Fatalf("the process of %q in %s ends", cfg.Name, ns)
	case <-time.After(labLimit):
		l.t.Fatalf("the process of %q in %s does not come up", cfg.Name, ns)
	}
	return p
}

// pair starts two agents that send to each other.
func (l *lab) pair(x, y place, cfg labConfig) (a, b *labAgent) {
	l.t.Helper()
	cfg.Server, cfg.Trust = labServer, map[string]string{}
	for _, who := range []place{x, y} {
		id := l.ids[who.name]
		if id == nil {
			id = newIdentity(l.t, who.name)
			l.ids[who.name] = id
			if err := id.Save(filepath.Join(l.dir, who.name)); err != nil {
				l.t.Fatal(err)
			}
		}
		cfg.Trust[who.name] = id.PublicKey().String()
	}
	begin := func(who, other place) *labAgent {
		l.t.Helper()
		cfg.Name, cfg.Key, cfg.Peer = who.name, filepath.Join(l.dir, who.name), other.name
		p := &labAgent{t: l.t, name: who.name, began: time.Now()}
		l.t.Cleanup(func() { // after its end, for cleanups run in reverse
			if l.t.Failed() {
				l.t.Logf("%s logged:\n%s", p.name, strings.Join(p.logs, "\n"))
			}
		})
		p.proc = l.process(who.ns, cfg, p.line)
		return p
	}
	a, b = begin(x, y), begin(y, x)
	return a, b
}

// place is an agent's name and namespace.
type place struct{ name, ns string }

// until waits for a condition.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// millis is for figures.
func millis(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
