//go:build interop && linux

package mesh

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/infrafabric/agentmesh/turn"
)

const (
	labUser, labPassword = "ann", "open sesame"
)

// labRelay tells a process of a relay.
type labRelay struct {
	URL string
}

// labRelays is what a process knows of relays.
func labRelays(of []labRelay) (Relays, error) {
	var all doubtedLast
	for _, r := range of {
		relay := turn.Relay{URL: r.URL, Username: labUser, Password: labPassword}
		all.order = append(all.order, relay)
	}
	return &all, nil
}

// doubtedLast puts the relay that is doubted last.
type doubtedLast struct {
	mu    sync.Mutex
	order []turn.Relay
}

func (f *doubtedLast) Rank(context.Context) []turn.Relay {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.order)
}

func (f *doubtedLast) Changed() <-chan struct{} { return nil }

func (f *doubtedLast) Doubt(r turn.Relay) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Println("doubt", r)
	if f.order[0].URL == r.URL {
		f.order = append(f.order[1:len(f.order):len(f.order)], r)
	}
}

// coturn is Debian's TURN server.
type coturn struct {
	l    *lab
	ns   string
	args []string
	up   []string // addresses on which it listens
	proc *labProc

	mu   sync.Mutex
	logs []string
}

// coturn starts one at an address and port, for UDP and TCP.
func (l *lab) coturn(ns, addr string, port int, more ...string) *coturn {
	l.t.Helper()
	dir := l.t.TempDir()
	c := &coturn{l: l, ns: ns, up: []string{fmt.Sprint(addr, ":", port)}}
	c.args = append([]string{need(l.t, "turnserver", "coturn"), "-n", "-L", addr, "-E", addr, "-p", fmt.Sprint(port),
		"--realm=mesh", "--no-cli", "--no-dtls", "--allow-loopback-peers", "--log-file=stdout",
		"--pidfile=" + filepath.Join(dir, "pid"), "--userdb=" + filepath.Join(dir, "users")}, more...)
	c.start()
	l.t.Cleanup(func() {
		if l.t.Failed() {
			c.mu.Lock()
			defer c.mu.Unlock()
			l.t.Logf("%q said:\n%s", c.args, strings.Join(c.logs, "\n"))
		}
	})
	return c
}

// static is coturn's one kind of credentials.
var static = []string{"--lt-cred-mech", "--user=" + labUser + ":" + labPassword}

// start starts it, or starts it again, and returns when it listens.
func (c *coturn) start() {
	c.l.t.Helper()
	c.proc = c.l.start(c.l.command(c.ns, c.args...), func(s string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.logs = append(c.logs, s)
	})
	until(c.l.t, labLimit, "coturn listens", func() bool {
		out := c.l.in(c.ns, "ss", "-Hltun")
		return !slices.ContainsFunc(c.up, func(addr string) bool { return !strings.Contains(out, addr) })
	})
}
