//go:build interop && linux

package mesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	pionturn "github.com/pion/turn/v5"

	"github.com/infrafabric/agentmesh/turn"
)

// verdicts are all that a probe may find.
var verdicts = []error{turn.ErrUnreachable, turn.ErrCredentials, turn.ErrExpired, turn.ErrNoCredential, turn.ErrQuota,
	turn.ErrNoAllocation, turn.ErrForbidden, turn.ErrNoEcho}

// TestInteropProbe: what turn.Probe finds at a real server on this machine's
// loopback interface, and that it leaves no allocation behind.
func TestInteropProbe(t *testing.T) {
	t.Parallel()
	l := &lab{t: t}
	// Addresses of this process alone: nobody else's servers are there.
	pid := os.Getpid()
	addr := func(i int) string { return fmt.Sprintf("127.%d.%d.%d", 1+pid/256%250, pid%256, i) }
	at := func(i int) string { return addr(i) + ":3478" }
	serve := func(i int, more ...string) *coturn {
		t.Helper()
		return l.coturn("", addr(i), more...)
	}
	ca := newAuthority(t, addr(1))
	serve(1, append(static, ca.args()...)...)
	serve(2, append(rest, "--no-tls")...)
	serve(3, append(static, "--no-tls", "--user-quota=1")...)
	serve(4, append(static, "--no-tls", "--user=bob:"+labPassword, "--min-port=50000", "--max-port=50000")...)
	serve(5, append(static, "--no-tls", "--denied-peer-ip="+addr(5))...)
	hangs := serve(6, append(static, "--no-tls")...)
	roots := x509.NewCertPool()
	text, err := os.ReadFile(ca.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots.AppendCertsFromPEM(text)
	good := turn.Relay{Username: labUser, Password: labPassword, TLS: &tls.Config{RootCAs: roots}}
	relay := func(url string, change func(*turn.Relay)) turn.Relay {
		r := good
		r.URL = url
		if change != nil {
			change(&r)
		}
		return r
	}
	// rested makes a REST credential of it.
	rested := func(life time.Duration) func(*turn.Relay) {
		return func(r *turn.Relay) {
			var err error
			if r.Username, r.Password, err = pionturn.GenerateLongTermTURNRESTCredentials(labSecret, labUser, life); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(what string, r turn.Relay, want error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		latency, err := turn.Probe(ctx, nil, r)
		t.Logf("%s: %v, after %v: %v", what, latency, millis(time.Since(began)), err)
		if want == nil && err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for _, v := range verdicts {
			if errors.Is(err, v) != (v == want) {
				t.Errorf("%s: %v, where %v is right", what, err, want)
			}
		}
	}

	check("UDP", relay("turn:"+at(1), nil), nil)
	check("TCP", relay("turn:"+at(1)+"?transport=tcp", nil), nil)
	check("TLS", relay("turns:"+addr(1)+":443?transport=tcp", nil), nil)
	check("REST", relay("turn:"+at(2), rested(time.Hour)), nil)
	check("wrong password", relay("turn:"+at(1), func(r *turn.Relay) { r.Password = "x" }), turn.ErrCredentials)
	check("unknown user", relay("turn:"+at(1), func(r *turn.Relay) { r.Username = "eve" }), turn.ErrCredentials)
	check("wrong secret", relay("turn:"+at(2), func(r *turn.Relay) { rested(time.Hour)(r); r.Password = "x" }), turn.ErrCredentials)
	check("expired", relay("turn:"+at(2), rested(-time.Minute)), turn.ErrExpired)
	check("no server, UDP", relay("turn:"+at(7), nil), turn.ErrUnreachable)
	check("no server, TCP", relay("turn:"+at(7)+"?transport=tcp", nil), turn.ErrUnreachable)
	check("unknown authority", relay("turns:"+addr(1)+":443?transport=tcp", func(r *turn.Relay) { r.TLS = nil }), turn.ErrUnreachable)
	check("own address forbidden", relay("turn:"+at(5), nil), turn.ErrForbidden)
	hangs.proc.signal(t, syscall.SIGSTOP)
	check("hangs, UDP", relay("turn:"+at(6), nil), turn.ErrUnreachable)
	check("hangs, TCP", relay("turn:"+at(6)+"?transport=tcp", nil), turn.ErrUnreachable)

	// The server has one port, and another user takes it: no matter of quota.
	defer allocate(t, at(4), "bob")()
	check("no port", relay("turn:"+at(4), nil), turn.ErrNoAllocation)

	// A quota of one. Each probe gives its allocation back; coturn counts it for a
	// second more.
	free := func(what string) {
		t.Helper()
		began := time.Now()
		until(t, 5*time.Second, what, func() bool {
			_, err := turn.Probe(t.Context(), nil, relay("turn:"+at(3), nil))
			return err == nil
		})
		t.Logf("%s after %v", what, millis(time.Since(began)))
	}
	for range 2 {
		free("quota, free")
	}
	end := allocate(t, at(3), labUser)
	check("quota, taken", relay("turn:"+at(3), nil), turn.ErrQuota)
	end()
	free("quota, free again")
}

// allocate holds an allocation, as soon as the server gives one, until end is called.
func allocate(t *testing.T, addr, user string) (end func()) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := pionturn.NewClient(&pionturn.ClientConfig{Conn: conn, STUNServerAddr: addr, TURNServerAddr: addr, Username: user, Password: labPassword})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	var a net.PacketConn
	until(t, 5*time.Second, "an allocation", func() bool { a, err = c.Allocate(); return err == nil })
	return func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		c.Close()
		conn.Close()
	}
}
