//go:build unix

package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// proc is a running process.
type proc struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	tail  *tail
	// condemned is set before it is killed or told to leave: its end is no fault.
	condemned atomic.Bool
	gone      chan struct{} // closed when it has ended and its output is read
	err       error         // how; valid then
}

// start runs the test binary as a process of its own. lines gets its standard
// output, one by one; unexpected is called when it ends without having been asked.
func start(t *testing.T, cfg processConfig, last *tail, lines func(string), unexpected func(error)) *proc {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &proc{cmd: exec.Command(os.Args[0]), tail: last, gone: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), processEnv+"="+string(text))
	p.cmd.Stdout, p.cmd.Stderr = &splitter{to: lines}, &splitter{to: last.add}
	p.cmd.SysProcAttr = procAttr()
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.gone)
		p.err = p.cmd.Wait() // after all output is read
		if !p.condemned.Load() {
			unexpected(p.err)
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// kill is SIGKILL, which also ends a process that is stopped. It returns when the
// process is gone and all its lines have been taken. Killing it again does nothing.
func (p *proc) kill() {
	p.condemned.Store(true)
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.gone
}

// stop is SIGSTOP.
func (p *proc) stop() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// resume is SIGCONT.
func (p *proc) resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// order writes a line to standard input.
func (p *proc) order(line string) error {
	_, err := io.WriteString(p.stdin, line+"\n")
	return err
}

// leave closes the process's standard input and waits until it has ended by
// itself.
func (p *proc) leave(limit time.Duration) error {
	p.condemned.Store(true)
	if err := p.stdin.Close(); err != nil {
		return err
	}
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	select {
	case <-p.gone:
		return p.err
	case <-deadline.C:
		return errors.New("it does not end")
	}
}

// splitter makes lines of what is written to it.
type splitter struct {
	to   func(line string)
	rest []byte
}

func (s *splitter) Write(b []byte) (int, error) {
	s.rest = append(s.rest, b...)
	for {
		line, rest, found := bytes.Cut(s.rest, []byte("\n"))
		if !found {
			return len(b), nil
		}
		s.to(string(line))
		s.rest = rest
	}
}

// maxTail is how many lines are kept of what the processes of one name say; the
// oldest give way.
const maxTail = 150

// tail is what the processes of one name said last.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (l *tail) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf("%s %s", time.Now().Format("15:04:05.000"), line))
	if n := len(l.lines) - maxTail; n > 0 {
		l.lines = append(l.lines[:0], l.lines[n:]...)
	}
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}
