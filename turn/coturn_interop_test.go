//go:build interop && linux

package turn

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestInteropCoturn: what a probe finds of a coturn, over UDP, TCP and TLS, IPv4 and
// IPv6, and that it frees what it allocates.
func TestInteropCoturn(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		cert, authorities := authority(t, ip)
		port, tlsPort, freed := coturn(t, ip, cert, "--user-quota=8", "--allow-loopback-peers")
		for _, r := range []Relay{
			{URL: "turn:" + net.JoinHostPort(ip, port)},
			{URL: "turn:" + net.JoinHostPort(ip, port) + "?transport=tcp"},
			{URL: "turns:" + net.JoinHostPort(ip, tlsPort), TLS: &tls.Config{RootCAs: authorities}},
		} {
			with := func(c Credentials) Relay {
				got, err := c(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				r.Username, r.Password, r.Expires = got.Username, got.Password, got.Expires
				return r
			}
			good := with(SharedSecret("north", "alice", time.Hour))
			for range 2 { // coturn gives a slot of the quota back a moment after it is freed
				began := time.Now()
				latency, err := Probe(t.Context(), nil, good)
				if err != nil {
					t.Fatal(err)
				}
				<-freed
				t.Logf("%s: echo %v, probe %v", r.URL, latency.Round(time.Microsecond), time.Since(began).Round(time.Microsecond))
			}
			if _, err := Probe(t.Context(), nil, with(SharedSecret("south", "alice", time.Hour))); !errors.Is(err, ErrCredentials) {
				t.Errorf("%s: another secret: %v", r.URL, err)
			}
			old := with(SharedSecret("north", "alice", time.Hour))
			old.Username, old.Expires = strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10)+":alice", time.Time{}
			if _, err := Probe(t.Context(), nil, old); !errors.Is(err, ErrExpired) {
				t.Errorf("%s: an old name: %v", r.URL, err)
			}
		}
	}
	quota(t)
	cert, _ := authority(t, "127.0.0.1")
	port, _, _ := coturn(t, "127.0.0.1", cert) // its default: no peer on the loopback
	c, err := SharedSecret("north", "alice", time.Hour)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(t.Context(), nil, Relay{URL: "turn:127.0.0.1:" + port, Username: c.Username, Password: c.Password}); !errors.Is(err, ErrForbidden) {
		t.Errorf("no loopback peers: %v", err)
	}
}

// quota: an allocation too many.
func quota(t *testing.T) {
	t.Helper()
	cert, _ := authority(t, "127.0.0.1")
	port, _, _ := coturn(t, "127.0.0.1", cert, "--user-quota=1")
	c, err := SharedSecret("north", "alice", time.Hour)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{conn: newWire(conn, true), pace: pace{firstResend, patience, patience}, username: c.Username, password: c.Password}
	defer x.conn.Close()
	if _, err := x.allocate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(t.Context(), nil, Relay{URL: "turn:127.0.0.1:" + port, Username: c.Username, Password: c.Password}); !errors.Is(err, ErrQuota) {
		t.Errorf("beyond the quota: %v", err)
	}
}

// coturn starts one until the test ends, and returns its ports and a channel that
// gets something for each allocation that is freed.
func coturn(t *testing.T, ip string, cert tls.Certificate, more ...string) (port, tlsPort string, freed <-chan struct{}) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	port, tlsPort = freePort(t, ip), freePort(t, ip)
	cmd := exec.CommandContext(t.Context(), "turnserver", append([]string{
		"-n", "-L", ip, "-E", ip, "-p", port, "--tls-listening-port=" + tlsPort, "--realm=mesh", "--no-dtls", "--no-cli",
		"--use-auth-secret", "--static-auth-secret=north", "--pidfile=" + filepath.Join(dir, "pid"), "--log-file=stdout", "--simple-log", "-v",
		"--cert=" + write("cert.pem", "CERTIFICATE", cert.Certificate[0]), "--pkey=" + write("key.pem", "PRIVATE KEY", key),
	}, more...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, done, ends := make(chan struct{}), make(chan struct{}), make(chan struct{}, 100)
	go func() {
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
			if strings.Contains(s.Text(), "DB connection success") { // the last thing it does
				close(ready)
			}
			if strings.Contains(s.Text(), "refreshed") && strings.Contains(s.Text(), "lifetime=0") {
				ends <- struct{}{}
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	select {
	case <-ready:
	case <-done:
		t.Fatal("coturn ended")
	case <-time.After(20 * time.Second):
		t.Fatal("coturn does not start")
	}
	return port, tlsPort, ends
}

// freePort is a port on which nobody listens at the moment.
func freePort(t *testing.T, ip string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
