package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newIdentity(t *testing.T, id string) *keys.Identity {
	t.Helper()
	i, err := keys.Generate(id)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newClient(t *testing.T, id *keys.Identity, addr string) *signaling.Client {
	t.Helper()
	c, err := signaling.NewClient(signaling.ClientConfig{Identity: id, Mesh: "m", URLs: []string{"ws://" + addr + "/"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// get returns status and body of a request.
func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// The real program: built, started, used, drained by SIGTERM.
func TestProcess(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "signaling-server")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	known, stranger := newIdentity(t, "agent-a"), newIdentity(t, "agent-b")
	trust := filepath.Join(dir, "agents.txt")
	if err := os.WriteFile(trust, []byte(keys.Entry{ID: known.ID(), Key: known.PublicKey()}.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(dir, "tokens.txt")
	if err := os.WriteFile(tokens, []byte("# for scrapers\n\nm=0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "-addr", "127.0.0.1:0", "-trust", trust, "-token-file", tokens, "-log-format", "json")
	var logs bytes.Buffer
	cmd.Stderr = &logs
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(strings.TrimPrefix(line, "listening on "))

	a, b := newClient(t, known, addr), newClient(t, stranger, addr)
	if err := a.WaitReady(t.Context()); err != nil {
		t.Errorf("the known agent: %v", err)
	}
	if err := b.WaitReady(t.Context()); err == nil {
		t.Error("the stranger was admitted")
	}
	if status, body := get(t, "http://"+addr+"/stats", "0123456789abcdef"); status != 200 || !strings.Contains(body, `"agents":["agent-a"]`) {
		t.Errorf("/stats: %d %s", status, body)
	}
	if status, _ := get(t, "http://"+addr+"/stats", "wrong"); status != 401 {
		t.Errorf("/stats with a wrong token: %d", status)
	}
	if status, body := get(t, "http://"+addr+"/metrics", ""); status != 200 || !strings.Contains(body, "\nwebrtc_signaling_agents 1\n") {
		t.Errorf("/metrics: %d %s", status, body)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	for {
		e, err := a.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == signaling.EventNotice {
			if e.Notice.Code != signaling.CodeDraining {
				t.Errorf("the agent was told %v", e.Notice)
			}
			break
		}
	}
	for line := range strings.Lines(logs.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("log line is no JSON: %s", line)
		}
	}
	if !strings.Contains(logs.String(), `"msg":"stopped"`) {
		t.Errorf("logs: %s", logs.String())
	}
}

// safeBuffer may be written while it is read.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "tokens.txt")
	if err := os.WriteFile(bad, []byte("m=0123456789abcdef\ns3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none")
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{0, "-token-file", []string{"-h"}},
		{0, "stopped", []string{"-addr", "127.0.0.1:0", "-name", "s1.example"}},
		{2, "unexpected argument", []string{"x"}},
		{2, "not defined", []string{"-x"}},
		{2, "go together", []string{"-tls-cert", "x"}},
		{2, "neither text nor json", []string{"-log-format", "xml"}},
		{2, "negative", []string{"-drain", "-1s"}},
		{2, "not mesh=TOKEN", []string{"-token", "x"}},
		{2, "also that of", []string{"-token", "a=0123456789abcdef", "-token", "b=0123456789abcdef"}},
		{2, "tokens.txt:2: not mesh=TOKEN", []string{"-token-file", bad}},
		{2, "no such file", []string{"-token-file", none}},
		{1, "no such file", []string{"-addr", "127.0.0.1:0", "-trust", none}},
		{1, "no such file", []string{"-addr", "127.0.0.1:0", "-tls-cert", none, "-tls-key", none}},
		{1, "shorter than", []string{"-addr", "127.0.0.1:0", "-token", "m=short"}},
		{1, "listen", []string{"-addr", "256.0.0.1:0"}},
		{1, "-name must say", []string{"-addr", ":0"}},
	} {
		var out, errs safeBuffer
		if code := run(done, c.args, &out, &errs); code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%q: exit %d, want %d and %q:\n%s", c.args, code, c.code, c.says, errs.String())
		}
		if strings.Contains(errs.String(), "s3cret") {
			t.Errorf("%q: shows a secret", c.args)
		}
	}
}
