package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0123456789abcdef"

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// certificate writes a self-signed one and returns its files and what trusts it.
func certificate(t *testing.T, dir string) (certFile, keyFile string, trust *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	check(t, os.WriteFile(certFile, certPEM, 0o600))
	check(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"stun.turn"}}
}

// connect opens what a URL of the relay names.
func connect(t *testing.T, url string, trust *tls.Config) (net.PacketConn, string) {
	t.Helper()
	u, err := stun.ParseURI(url)
	check(t, err)
	addr := net.JoinHostPort("127.0.0.1", url[strings.LastIndex(url, ":")+1:strings.Index(url, "?")])
	var conn net.PacketConn
	switch {
	case u.Scheme == stun.SchemeTypeTURNS:
		c, err := tls.Dial("tcp", addr, trust)
		check(t, err)
		conn = turn.NewSTUNConn(c)
	case u.Proto == stun.ProtoTypeTCP:
		c, err := net.Dial("tcp", addr)
		check(t, err)
		conn = turn.NewSTUNConn(c)
	default:
		conn, err = net.ListenPacket("udp", "127.0.0.1:0")
		check(t, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, addr
}

// throughRelay allocates and sends a datagram to a peer and back.
func throughRelay(t *testing.T, url string, trust *tls.Config, peer net.PacketConn) {
	t.Helper()
	conn, addr := connect(t, url, trust)
	user, password, err := turn.GenerateLongTermTURNRESTCredentials(secret, "agent", time.Minute)
	check(t, err)
	client, err := turn.NewClient(&turn.ClientConfig{Conn: conn, TURNServerAddr: addr, Username: user, Password: password})
	check(t, err)
	defer client.Close()
	check(t, client.Listen())
	relay, err := client.Allocate()
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	defer relay.Close()
	_, err = relay.WriteTo([]byte("there and back"), peer.LocalAddr())
	check(t, err)
	buf := make([]byte, 100)
	check(t, peer.SetReadDeadline(time.Now().Add(5*time.Second)))
	n, from, err := peer.ReadFrom(buf)
	check(t, err)
	if from.String() != relay.LocalAddr().String() {
		t.Errorf("%s: it came from %v, not from %v", url, from, relay.LocalAddr())
	}
	_, err = peer.WriteTo(buf[:n], from)
	check(t, err)
	check(t, relay.SetReadDeadline(time.Now().Add(5*time.Second)))
	if n, _, err = relay.ReadFrom(buf); err != nil || string(buf[:n]) != "there and back" {
		t.Errorf("%s: got %q, %v", url, buf[:n], err)
	}
}

// The real program: built, started, used by each of its URLs, ended by SIGTERM.
func TestProcess(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "turn-relay")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	secrets := filepath.Join(dir, "secret.txt")
	check(t, os.WriteFile(secrets, []byte("# the next one\nfedcba9876543210\n\n"+secret+"\n"), 0o600))
	certFile, keyFile, trust := certificate(t, dir)
	cmd := exec.CommandContext(t.Context(), bin, "-udp", "127.0.0.1:0", "-tcp", "127.0.0.1:0", "-tls", "127.0.0.1:0",
		"-tls-cert", certFile, "-tls-key", keyFile, "-name", "localhost", "-secret-file", secrets,
		"-allow", "127.0.0.0/8", "-log-format", "json", "-drain", "10s", "-http", "127.0.0.1:0")
	logs, err := cmd.StderrPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	var logged bytes.Buffer
	logReader := bufio.NewReader(io.TeeReader(logs, &logged))

	var urls []string
	for lines := bufio.NewReader(stdout); ; {
		line, err := lines.ReadString('\n')
		check(t, err)
		if line = strings.TrimSpace(line); line == "ready" {
			break
		}
		urls = append(urls, line)
	}
	if len(urls) != 3 || !strings.HasPrefix(urls[0], "turn:localhost:") || !strings.HasPrefix(urls[2], "turns:localhost:") {
		t.Fatalf("printed %q", urls)
	}
	peer, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(t, err)
	defer peer.Close()
	for _, url := range urls {
		throughRelay(t, url, trust, peer)
	}
	web := webAddress(t, logReader)
	if body := get(t, "http://"+web+"/health"); body != "{\"status\":\"ok\"}\n" {
		t.Errorf("/health: %s", body)
	}
	if body := get(t, "http://"+web+"/stats"); !strings.Contains(body, `"allocated":3,`) {
		t.Errorf("/stats: %s", body)
	}
	check(t, cmd.Process.Signal(syscall.SIGTERM))
	_, err = io.Copy(io.Discard, logReader)
	check(t, err)
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	for line := range strings.Lines(logged.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("log line is no JSON: %s", line)
		}
	}
	if !strings.Contains(logged.String(), `"msg":"stopped"`) || strings.Contains(logged.String(), secret) {
		t.Errorf("logs: %s", logged.String())
	}
}

// webAddress reads the log until it says where /health is.
func webAddress(t *testing.T, logs *bufio.Reader) string {
	t.Helper()
	for {
		line, err := logs.ReadBytes('\n')
		check(t, err)
		var entry struct{ Msg, Address string }
		check(t, json.Unmarshal(line, &entry))
		if entry.Msg == "serving /health and /stats" {
			return entry.Address
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(url)
	check(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	check(t, err)
	return string(b)
}

// TestDrainLimit: an allocation that stays is cut off in the end.
func TestDrainLimit(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, stdout := io.Pipe()
	var errs bytes.Buffer
	code := make(chan int)
	go func() {
		code <- run(ctx, []string{"-udp", "127.0.0.1:0", "-drain", "0s"}, secret, stdout, &errs)
		stdout.Close()
	}()
	lines := bufio.NewReader(out)
	url, err := lines.ReadString('\n')
	check(t, err)
	_, err = lines.ReadString('\n')
	check(t, err)
	conn, addr := connect(t, strings.TrimSpace(url), nil)
	user, password, err := turn.GenerateLongTermTURNRESTCredentials(secret, "agent", time.Minute)
	check(t, err)
	client, err := turn.NewClient(&turn.ClientConfig{Conn: conn, TURNServerAddr: addr, Username: user, Password: password})
	check(t, err)
	defer client.Close()
	check(t, client.Listen())
	relay, err := client.Allocate()
	check(t, err)
	cancel()
	if c := <-code; c != 0 || !strings.Contains(errs.String(), "not every allocation ended in time") {
		t.Errorf("exit %d:\n%s", c, errs.String())
	}
	conn.Close() // nobody answers the end of the allocation
	relay.Close()
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	empty, short := filepath.Join(dir, "empty.txt"), filepath.Join(dir, "short.txt")
	check(t, os.WriteFile(empty, []byte("# nothing\n"), 0o600))
	check(t, os.WriteFile(short, []byte("s3cret\n"), 0o600))
	none := filepath.Join(dir, "none")
	done, cancel := context.WithCancel(t.Context())
	cancel()
	local := []string{"-udp", "127.0.0.1:0"}
	for _, c := range []struct {
		code   int
		says   string
		secret string
		args   []string
	}{
		{0, "-secret-file", "", []string{"-h"}},
		{0, "stopped", secret, local},
		{0, "stopped", secret, append([]string{"-udp", "[::1]:0", "-tcp", "127.0.0.1:0", "-ports", "50000-50100"}, local...)},
		{2, "unexpected argument", secret, []string{"x"}},
		{2, "not defined", secret, []string{"-x"}},
		{2, "no secret", "", local},
		{2, "no secret in it", secret, []string{"-secret-file", empty}},
		{2, "no such file", "", []string{"-secret-file", none}},
		{2, "go together", secret, []string{"-tls-cert", "x"}},
		{2, "go together", secret, []string{"-tls", "127.0.0.1:0"}},
		{2, "neither text nor json", secret, []string{"-log-format", "xml"}},
		{2, "negative", secret, []string{"-drain", "-1s"}},
		{2, "-public-ip is needed", secret, []string{"-udp", ":0"}},
		{2, "not FIRST-LAST", secret, []string{"-ports", "1"}},
		{2, "invalid value", secret, []string{"-allow", "10.0.0.0"}},
		{2, "invalid value", secret, []string{"-public-ip", "relay.example"}},
		{1, "Secrets[0]: is shorter", "", append([]string{"-secret-file", short}, local...)},
		{1, "Secrets[0]: is shorter", "s3cret", local},
		{1, "RelayIPs[1]: is the second", secret, append([]string{"-public-ip", "1.1.1.1", "-public-ip", "2.2.2.2"}, local...)},
		{1, "MaxAllocations", secret, append([]string{"-max-allocations", "-1"}, local...)},
		{1, "no such file", secret, append([]string{"-tls", "127.0.0.1:0", "-tls-cert", none, "-tls-key", none}, local...)},
		{1, "listen", secret, []string{"-udp", "127.0.0.1:0", "-http", "256.0.0.1:0"}},
		{1, "listen", secret, []string{"-public-ip", "1.1.1.1", "-tcp", "256.0.0.1:0"}},
	} {
		var out, errs bytes.Buffer
		if code := run(done, c.args, c.secret, &out, &errs); code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%q: exit %d, want %d and %q:\n%s", c.args, code, c.code, c.says, errs.String())
		}
		if strings.Contains(out.String()+errs.String(), "s3cret") || strings.Contains(out.String()+errs.String(), secret) {
			t.Errorf("%q: shows a secret", c.args)
		}
	}
}
