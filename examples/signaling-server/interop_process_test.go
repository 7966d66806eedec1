//go:build interop

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// endLimit is how long a process may take to end.
const endLimit = 20 * time.Second

// until waits for a condition, which it looks at every 20 ms, and returns how
// long it took.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		<-tick.C
	}
	return time.Since(start)
}

// freeAddrs returns loopback addresses that nobody listens on. Their ports lie
// below those that the kernel gives to outgoing connections (32768 on Linux), so
// that none of these takes the place of a server while it is dead.
func freeAddrs(t *testing.T, n int) []string {
	t.Helper()
	var addrs []string
	for port := 20000 + rand.IntN(10000); len(addrs) < n; port++ {
		if port >= 32768 {
			t.Fatal("no free ports")
		}
		addr := fmt.Sprint("127.0.0.1:", port)
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// proc is a process in a process group of its own.
type proc struct {
	t    *testing.T
	cmd  *exec.Cmd
	logs safeBuffer
	done chan struct{} // closed when it and whoever shares its output have ended
	err  error         // how; valid then
}

func startProc(t *testing.T, name string, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.logs, &p.logs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		if p.running() { // the test has failed
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			<-p.done
		}
		if t.Failed() {
			t.Logf("%v said:\n%s", p.cmd.Args, p.logs.String())
		}
	})
	return p
}

func (p *proc) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill is SIGKILL. It returns when the process is gone.
func (p *proc) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	<-p.done
}

// stop asks the process to end, and checks that it does, with all its children
// and exit code 0.
func (p *proc) stop(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%v: %v", p.cmd.Args, err)
	}
	until(p.t, endLimit, fmt.Sprint(p.cmd.Args, " ends"), func() bool { return !p.running() })
	if p.err != nil {
		p.t.Errorf("%v: %v", p.cmd.Args, p.err)
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, 0); err != syscall.ESRCH {
		p.t.Errorf("%v left processes behind: %v", p.cmd.Args, err)
	}
}

// server is one signaling server.
type server struct {
	addr string
	proc *proc
	down bool // taken out of service in nginx's configuration
}

func (s *server) String() string { return s.addr }

// agents are those that are registered.
func (s *server) agents(t *testing.T) []string {
	t.Helper()
	status, body := get(t, "http://"+s.addr+"/stats", "")
	var stats struct {
		Agents []string `json:"agents"`
	}
	if err := json.Unmarshal([]byte(body), &stats); err != nil || status != 200 {
		t.Fatalf("%v: /stats: %d %v: %s", s, status, err, body)
	}
	return stats.Agents
}

// nginx is a running one, with everything it writes in one directory.
type nginx struct {
	t    *testing.T
	bin  string
	dir  string
	addr string
	proc *proc
}

func startNginx(t *testing.T, addr string, servers []*server) *nginx {
	t.Helper()
	n := &nginx{t: t, dir: t.TempDir(), addr: addr}
	var err error
	if n.bin, err = exec.LookPath("nginx"); err != nil {
		// Debian has it where only root's PATH leads.
		if n.bin, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Fatal("this test needs nginx: apt-get install nginx")
		}
	}
	n.configure(servers)
	n.proc = startProc(t, n.bin, n.args("-g", "daemon off;")...)
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"error.log", "access.log"} {
				b, err := os.ReadFile(filepath.Join(n.dir, name))
				t.Logf("nginx's %s: %v\n%s", name, err, b)
			}
		}
	})
	until(t, interopDial, "nginx listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return n
}

func (n *nginx) args(more ...string) []string {
	return append([]string{"-p", n.dir, "-e", "error.log", "-c", "nginx.conf"}, more...)
}

// configure writes the configuration and has nginx check it.
func (n *nginx) configure(servers []*server) {
	n.t.Helper()
	type line struct {
		Addr string
		Down bool
	}
	values := struct {
		Listen  string
		Servers []line
	}{Listen: n.addr}
	for _, s := range servers {
		values.Servers = append(values.Servers, line{s.addr, s.down})
	}
	conf, err := template.ParseFiles(filepath.Join("testdata", "nginx.conf.tmpl"))
	if err != nil {
		n.t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(n.dir, "nginx.conf"))
	if err != nil {
		n.t.Fatal(err)
	}
	if err := conf.Execute(f, values); err != nil {
		n.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		n.t.Fatal(err)
	}
	n.run("-t")
}

// reload makes nginx use another configuration. It returns when new agents go by
// it; those that are there stay with the old workers until these close.
func (n *nginx) reload(servers []*server) {
	n.t.Helper()
	n.configure(servers)
	workers := n.logged("start worker process ")
	n.run("-s", "reload")
	until(n.t, endLimit, "old workers accept nobody", func() bool { return n.logged("gracefully shutting down") == workers })
}

// logged counts a text in nginx's log.
func (n *nginx) logged(text string) int {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "error.log"))
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Count(string(b), text)
}

// run runs nginx for a moment, as an operator does.
func (n *nginx) run(args ...string) {
	n.t.Helper()
	if out, err := exec.CommandContext(n.t.Context(), n.bin, n.args(args...)...).CombinedOutput(); err != nil {
		n.t.Fatalf("nginx %v: %v\n%s", args, err, out)
	}
}
