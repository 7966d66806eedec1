package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// TestTogether sends the whole corpus between two agents of this process.
func TestTogether(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	if err := run(ctx, []string{filepath.Join("..", "..", "testdata", "incidents.jsonl")}, nil, &out, &errs); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	if got, want := lastLine(out.String()), "hello: 200 sent, 200 received, 200 verified, 0 lost, 0 duplicated"; got != want {
		t.Errorf("last line %q, want %q", got, want)
	}
}

func TestStandardInput(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	in := strings.NewReader("{\"n\": 1.0}\n\n  [9007199254740993]\n\"last, without a line end\"")
	if err := run(ctx, []string{"-"}, in, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got, want := lastLine(out.String()), "hello: 3 sent, 3 received, 3 verified, 0 lost, 0 duplicated"; got != want {
		t.Errorf("last line %q, want %q", got, want)
	}
	for _, want := range []string{`{"n":1.0}`, `[9007199254740993]`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s was not printed", want)
		}
	}
}

func TestBadInput(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, args := range map[string][]string{
		"two files":       {"a", "b"},
		"name alone":      {"-name", "x"},
		"server alone":    {"-server", "ws://127.0.0.1:1/"},
		"no such file":    {"does-not-exist"},
		"no such flag":    {"-x"},
		"bad server":      {"-server", "ftp://127.0.0.1/", "-name", "x"},
		"bad name":        {"-server", "ws://127.0.0.1:1/", "-name", "a b"},
		"server is down":  {"-server", "ws://127.0.0.1:1/", "-name", "x", "-timeout", "100ms"},
		"no trust file":   {"-server", "ws://127.0.0.1:1/", "-name", "x", "-trust", "does-not-exist"},
		"unreadable key":  {"-server", "ws://127.0.0.1:1/", "-name", "x", "-key", t.TempDir()},
		"message no JSON": {"-"},
	} {
		if err := run(ctx, args, strings.NewReader("no JSON\n"), io.Discard, io.Discard); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestProcesses runs the signaling server and two agents as processes, with
// keys and a directory of trusted agents on disk.
func TestProcesses(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"hello", "keytool", "signaling-server"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, name), "../"+name)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.CommandContext(ctx, filepath.Join(dir, name), args...)
		c.Dir = dir
		return c
	}
	agents := ""
	for _, id := range []string{"agent-a", "agent-b"} {
		if out, err := command("keytool", "create", "-id", id, "-key", id+".key").CombinedOutput(); err != nil {
			t.Fatalf("create %s: %v\n%s", id, err, out)
		}
		out, err := command("keytool", "show", "-id", id, "-key", id+".key").Output()
		if err != nil {
			t.Fatalf("show %s: %v", id, err)
		}
		agents += strings.SplitN(string(out), "\n", 2)[0] + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "agents"), []byte(agents), 0o600); err != nil {
		t.Fatal(err)
	}

	server := command("signaling-server", "-addr", "127.0.0.1:0", "-trust", "agents")
	url := "ws://" + strings.TrimPrefix(start(t, server, "listening on "), "listening on ") + "/"
	a := command("hello", "-server", url, "-name", "agent-a", "-key", "agent-a.key", "-trust", "agents")
	start(t, a, "agent-a waits")
	b := command("hello", "-server", url, "-name", "agent-b", "-key", "agent-b.key", "-trust", "agents", "-dial", "agent-a", "-")
	var input strings.Builder
	for i := range 50 {
		fmt.Fprintf(&input, "{\"incident\": %d}\n", i)
	}
	b.Stdin = strings.NewReader(input.String())
	b.Stderr = os.Stderr
	out, err := b.Output()
	if err != nil {
		t.Fatalf("agent-b: %v\n%s", err, out)
	}
	if got, want := lastLine(string(out)), "hello: 50 sent, 50 received, 50 verified, 0 lost, 0 duplicated"; got != want {
		t.Errorf("last line %q, want %q", got, want)
	}
	for _, c := range []*exec.Cmd{a, server} {
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("%s after SIGTERM: %v", filepath.Base(c.Path), err)
		}
	}
}

// start starts a process and returns the first line of its output that begins
// with the prefix; the rest is drained.
func start(t *testing.T, c *exec.Cmd, prefix string) string {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), prefix) {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return lines.Text()
		}
	}
	_ = c.Wait()
	t.Fatalf("%s ended without %q\n%s", c.Path, prefix, errs.String())
	return ""
}
