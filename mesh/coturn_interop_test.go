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
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pionturn "github.com/pion/turn/v5"

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

// labRelays is what a process knows of relays.
func labRelays(of []labRelay) (Relays, error) {
	var all doubtedLast
	for _, r := range of {
		relay := turn.Relay{URL: r.URL, Username: labUser, Password: labPassword}
		if r.Secret != "" {
			var err error
			if relay.Username, relay.Password, err = pionturn.GenerateLongTermTURNRESTCredentials(r.Secret, labUser, time.Hour); err != nil {
				return nil, err
			}
		}
		if r.CA != "" {
			text, err := os.ReadFile(r.CA)
			if err != nil {
				return nil, err
			}
			relay.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
			relay.TLS.RootCAs.AppendCertsFromPEM(text)
		}
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

// coturn starts one at an address: for UDP and TCP at port 3478, for TLS at port
// 443. With a secret its credentials are REST credentials.
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
		out := c.l.in(c.ns, "ss", "-Hltun")
		return !slices.ContainsFunc(c.up, func(addr string) bool { return !strings.Contains(out, addr) })
	})
}

// TestInteropCoturn: agents behind symmetric NATs connect by Debian's coturn, over
// each transport and with each kind of credential.
func TestInteropCoturn(t *testing.T) {
	l := newLab(t)
	l.home("a", 11, symmetric)
	l.home("b", 12, symmetric)
	ca := newAuthority(t, labFirst, labSecond)
	l.coturn("s", labFirst, 3478, append(static, ca.args()...)...)
	l.coturn("s", labSecond, 3478, append(rest, ca.args()...)...)
	for _, server := range []struct{ name, addr, secret string }{{"static", labFirst, ""}, {"REST", labSecond, labSecret}} {
		for _, transport := range []struct{ name, url, ca string }{
			{"UDP", "turn:%s:3478", ""},
			{"TCP", "turn:%s:3478?transport=tcp", ""},
			{"TLS", "turns:%s:443?transport=tcp", ca.CA},
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
				finish(t, a, b)
			})
		}
	}
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
