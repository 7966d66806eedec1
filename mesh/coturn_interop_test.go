//go:build interop && linux

package mesh

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

const (
	labUser, labPassword = "ann", "open sesame"
	labSecret            = "a secret that agents and servers share"
)

// labRelay tells a process of a relay.
type labRelay struct {
	URL    string
	Secret string // of REST credentials; labUser and labPassword when there is none
	CA     string // file
}

// labPool is what a process knows of relays.
func labPool(of []labRelay, logger *slog.Logger) (*turn.Pool, error) {
	cfg := turn.PoolConfig{Logger: logger}
	for _, r := range of {
		e := turn.Endpoint{URL: r.URL, Credentials: turn.Static(labUser, labPassword)}
		if r.Secret != "" {
			e.Credentials = turn.SharedSecret(r.Secret, labUser, time.Hour)
		}
		if r.CA != "" {
			text, err := os.ReadFile(r.CA)
			if err != nil {
				return nil, err
			}
			e.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
			e.TLS.RootCAs.AppendCertsFromPEM(text)
		}
		cfg.Endpoints = append(cfg.Endpoints, e)
	}
	return turn.NewPool(cfg)
}

// tellRelays says how many relays are usable, whenever that may have changed.
func tellRelays(ctx context.Context, pool *turn.Pool) {
	for {
		changed := pool.Changed()
		usable := 0
		for _, r := range pool.Rank(ctx) {
			if !r.Down {
				usable++
			}
		}
		fmt.Println("relays", usable)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// coturn is Debian's TURN server.
type coturn struct {
	l    *lab
	ns   string
	args []string
	up   []string // where it listens, as ss says it
	proc *labProc

	mu   sync.Mutex
	logs []string
}

// coturn starts one at an address, for UDP and TCP at port 3478 and, unless told
// otherwise, TLS at 443.
func (l *lab) coturn(ns, addr string, more ...string) *coturn {
	l.t.Helper()
	dir := l.t.TempDir()
	c := &coturn{l: l, ns: ns, up: []string{"udp " + addr + ":3478", "tcp " + addr + ":3478"}}
	if !slices.Contains(more, "--no-tls") {
		c.up = append(c.up, "tcp "+addr+":443")
	}
	c.args = append([]string{need(l.t, "turnserver", "coturn"), "-n", "-L", addr, "-E", addr, "-p", "3478",
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

// static and rest are coturn's two kinds of credentials.
var (
	static = []string{"--lt-cred-mech", "--user=" + labUser + ":" + labPassword}
	rest   = []string{"--use-auth-secret", "--static-auth-secret=" + labSecret}
)

// start starts it, or starts it again, and returns when it listens.
func (c *coturn) start() {
	c.l.t.Helper()
	c.proc = c.l.start(c.l.command(c.ns, c.args...), func(s string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.logs = append(c.logs, s)
	})
	until(c.l.t, labLimit, "coturn listens", func() bool {
		left := slices.Clone(c.up)
		for line := range strings.Lines(c.l.in(c.ns, "ss", "-Hltun")) {
			f := strings.Fields(line)
			left = slices.DeleteFunc(left, func(s string) bool { return len(f) > 4 && s == f[0]+" "+f[4] })
		}
		return len(left) == 0
	})
}

// TestInteropCoturn: agents behind symmetric NATs connect by Debian's coturn, over
// each transport and with each kind of credential.
func TestInteropCoturn(t *testing.T) {
	l := newLab(t)
	l.home("a", 11, symmetric)
	l.home("b", 12, symmetric)
	ca := newAuthority(t, labFirst, labSecond)
	l.coturn("s", labFirst, append(static, ca.args()...)...)
	l.coturn("s", labSecond, append(rest, ca.args()...)...)
	for _, server := range []struct{ name, addr, secret string }{{"static", labFirst, ""}, {"REST", labSecond, labSecret}} {
		for _, transport := range []struct{ name, url, ca, port string }{
			{"UDP", "turn:%s:3478", "", ""},
			{"TCP", "turn:%s:3478?transport=tcp", "", ":3478"},
			{"TLS", "turns:%s:443?transport=tcp", ca.CA, ":443"},
		} {
			t.Run(transport.name+" "+server.name, func(t *testing.T) {
				l := l.within(t)
				a, b := l.pair(place{"a", "a"}, place{"b", "b"}, labConfig{Paths: Paths{RelayAfter: AtOnce, DirectEvery: Never},
					TURN: []labRelay{{URL: fmt.Sprintf(transport.url, server.addr), Secret: server.secret, CA: transport.ca}}})
				messages(t, a, b, 1)
				t.Logf("after %v", millis(a.since.Sub(a.began)))
				t.Logf("longest pause %v", millis(messages(t, a, b, 50)))
				if !relayed(a, b) {
					t.Error("a direct path between symmetric NATs")
				}
				for _, port := range []string{":3478", ":443"} {
					if used := l.connections(server.addr + port); used > 0 != (port == transport.port) {
						t.Errorf("%d TCP connections to port %s", used, port)
					}
				}
				finish(t, a, b)
			})
		}
	}
}

// TestInteropCoturnKilled: of two coturns the one in use is killed and comes back,
// then the other one, which is in use by then, and then the one in use hangs. Agents
// that know both lose nothing.
func TestInteropCoturnKilled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.home("a", 11, symmetric)
	l.home("b", 12, symmetric)
	servers := map[string]*coturn{}
	for _, addr := range []string{labFirst, labSecond} {
		servers[addr] = l.coturn("s", addr, append(static, "--no-tls")...)
	}
	a, b := l.pair(place{"a", "a"}, place{"b", "b"}, labConfig{Paths: Paths{RelayAfter: AtOnce, DirectEvery: Never},
		TURN: []labRelay{{URL: "turn:" + labFirst + ":3478"}, {URL: "turn:" + labSecond + ":3478"}}})
	messages(t, a, b, 100)
	phase := func(what string, limit time.Duration) {
		t.Helper()
		pause := messages(t, a, b, 200)
		t.Logf("%s: longest pause %v", what, millis(pause))
		if pause > limit {
			t.Errorf("%s: a pause of %v, more than %v", what, pause, limit)
		}
	}
	used := func() (c *coturn) {
		t.Helper()
		until(t, labLimit, "both on one relay", func() bool {
			var x, y string
			a.is(func() bool { x = a.relay; return true })
			b.is(func() bool { y = b.relay; return true })
			c = servers[x]
			return x == y && c != nil
		})
		return c
	}
	back := func(c *coturn) {
		t.Helper()
		c.start()
		for _, x := range []*labAgent{a, b} {
			until(t, labLimit, x.name+" knows of both relays", func() bool { return x.is(func() bool { return x.relays == 2 }) })
		}
	}
	const (
		brief = 2 * time.Second // a busy machine takes its time
		// anew includes that the pools find out about the relay that is dead.
		anew = 5 * time.Second
	)
	phase("in peace", brief)
	first := used()
	first.proc.kill()
	phase("first killed", brief)
	back(first)
	phase("first back", brief)
	second := used()
	if second == first {
		t.Fatal("still on a relay that was killed")
	}
	second.proc.kill()
	phase("second killed", anew)
	back(second)
	phase("second back", brief)
	used().proc.signal(t, syscall.SIGSTOP)
	phase("first hangs", anew)
	finish(t, a, b)
}

// connections counts the TCP connections to a server.
func (l *lab) connections(addr string) int {
	l.t.Helper()
	return strings.Count(l.in("s", "ss", "-Htn", "state", "established", "src", addr), "\n")
}

// authority is a certificate authority of the test's own.
type authority struct {
	CA, cert, key string // files
}

// args are coturn's.
func (a authority) args() []string {
	return []string{"--tls-listening-port=443", "--cert=" + a.cert, "--pkey=" + a.key}
}

// newAuthority makes one and the certificate of a server with such addresses.
func newAuthority(t *testing.T, addrs ...string) authority {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, addr := range addrs {
		leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(addr))
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return authority{write("ca.pem", "CERTIFICATE", caDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", private)}
}
