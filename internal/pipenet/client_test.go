package pipenet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/pipenet"
)

// link is a connection of a client to a server.
type link struct {
	t            *testing.T
	near, server net.Conn
}

// dialler is a Net or a Client.
type dialler interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

func listen(t *testing.T, n *pipenet.Net, addr string) net.Listener {
	t.Helper()
	l, err := n.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dial(t *testing.T, from dialler, l net.Listener) *link {
	t.Helper()
	near, err := from.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return &link{t, near, server}
}

// flows says whether a byte arrives within a minute in both directions. If not,
// it is on the way still, in both.
func (l *link) flows() bool {
	l.t.Helper()
	ways := 0
	for _, ends := range [][2]net.Conn{{l.near, l.server}, {l.server, l.near}} {
		io.WriteString(ends[0], "x")
		ends[1].SetReadDeadline(time.Now().Add(time.Minute))
		_, err := io.ReadFull(ends[1], make([]byte, 1))
		ends[1].SetReadDeadline(time.Time{})
		switch {
		case err == nil:
			ways++
		case !errors.Is(err, os.ErrDeadlineExceeded):
			l.t.Fatalf("neither here nor late: %v", err)
		}
	}
	if ways == 1 {
		l.t.Error("one direction flows and the other does not")
	}
	return ways == 2
}

// broken fails unless both ends were reset.
func (l *link) broken(want bool) {
	l.t.Helper()
	for _, end := range []net.Conn{l.near, l.server} {
		end.SetReadDeadline(time.Now())
		_, err := end.Read(make([]byte, 1))
		if got := errors.Is(err, syscall.ECONNRESET); got != want {
			l.t.Errorf("%v: reset: %v (%v), want %v", end.LocalAddr(), got, err, want)
		}
	}
}

// TestClientStall: which connections flow after each step.
func TestClientStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipenet.New()
		x, y := listen(t, n, "x"), listen(t, n, "y:90")
		a, b := n.Client("a"), n.Client("b")
		links := []*link{dial(t, a, x), dial(t, a, y), dial(t, b, x), dial(t, n, x)}
		for _, step := range []struct {
			name string
			do   func()
			want string // a-x, a-y, b-x, others-x: + flows, - does not
		}{
			{"at first", func() {}, "++++"},
			{"a stalls x", func() { a.Stall("x") }, "-+++"},
			{"the network stalls x too", func() { n.Stall("x") }, "-+--"},
			{"a resumes x", func() { a.Resume("x:80") }, "-+--"},
			{"the network resumes x", func() { n.Resume("x") }, "++++"},
			{"both stall x", func() { n.Stall("x"); a.Stall("x") }, "-+--"},
			{"the network resumes x, a does not", func() { n.Resume("x") }, "-+++"},
			{"a stalls all", func() { a.Stall(); a.Stall() }, "--++"},
			{"a resumes y", func() { a.Resume("y:90") }, "-+++"},
			{"a stalls all again", func() { a.Stall() }, "--++"},
			{"a resumes all", func() { a.Resume() }, "++++"},
			{"b stalls two", func() { b.Stall("x", "y:90") }, "++-+"},
			{"a resuming does not help b", func() { a.Resume() }, "++-+"},
			{"b resumes two", func() { b.Resume("x", "y:90") }, "++++"},
		} {
			step.do()
			var got strings.Builder
			for _, l := range links {
				if l.flows() {
					got.WriteString("+")
				} else {
					got.WriteString("-")
				}
			}
			if got.String() != step.want {
				t.Errorf("%s: %s, want %s", step.name, got.String(), step.want)
			}
		}
	})
}

// TestClientStallLosesNothing: bytes and the end of file arrive when it ends.
func TestClientStallLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipenet.Net{Delay: time.Millisecond}
		a := n.Client("a")
		l := dial(t, a, listen(t, n, "x"))
		io.WriteString(l.near, "under way")
		a.Stall()
		io.WriteString(l.near, ", later")
		l.near.Close()
		go func() { time.Sleep(time.Hour); a.Resume() }()
		start := time.Now()
		got, err := io.ReadAll(l.server)
		if string(got) != "under way, later" || err != nil || time.Since(start) != time.Hour {
			t.Errorf("read %q, %v after %v", got, err, time.Since(start))
		}
	})
}

// TestClientStallHoldsDials, also to addresses it has never heard of, and no one
// else's.
func TestClientStallHoldsDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipenet.New()
		a := n.Client("a")
		x := listen(t, n, "x")
		a.Stall()
		dial(t, n.Client("a"), x) // of the same name
		for _, addr := range []string{"x", "nobody"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := a.DialContext(ctx, "tcp", addr); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("dial to %s: %v", addr, err)
			}
		}
		n.Stall("x")
		go func() {
			time.Sleep(time.Hour)
			a.Resume() // which is not enough
			time.Sleep(time.Hour)
			n.Resume("x")
		}()
		start := time.Now()
		l := dial(t, a, x)
		if got := time.Since(start); got != 2*time.Hour {
			t.Errorf("the dial took %v", got)
		}
		if !l.flows() {
			t.Error("and nothing flows")
		}
	})
}

// TestClientReset breaks what it is told to.
func TestClientReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipenet.New()
		x, y := listen(t, n, "x"), listen(t, n, "y")
		a, b := n.Client("a"), n.Client("b")
		ax, ay, bx := dial(t, a, x), dial(t, a, y), dial(t, b, x)
		check := func(wantAX, wantAY, wantBX bool) {
			t.Helper()
			ax.broken(wantAX)
			ay.broken(wantAY)
			bx.broken(wantBX)
		}
		a.Reset("elsewhere")
		check(false, false, false)
		a.Reset("x")
		check(true, false, false)
		a.Stall("y")
		a.Reset()
		check(true, true, false)
		if !dial(t, a, x).flows() {
			t.Error("a new connection does not flow")
		}
	})
}

// TestClientDelay: both directions, exact, from then on, in order.
func TestClientDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipenet.Net{Delay: 5 * time.Millisecond}
		x := listen(t, n, "x")
		a, b := n.Client("a"), n.Client("b")
		a.SetDelay(20 * time.Millisecond)
		start := time.Now()
		took := func(what string, want time.Duration) {
			t.Helper()
			if got := time.Since(start); got != want {
				t.Errorf("%s took %v, want %v", what, got, want)
			}
			start = time.Now()
		}
		la := dial(t, a, x)
		took("the slow dial", 50*time.Millisecond)
		lb := dial(t, b, x)
		took("the other's dial", 10*time.Millisecond)
		la.flows()
		took("there and back, slow", 50*time.Millisecond)
		lb.flows()
		took("there and back, the other", 10*time.Millisecond)

		io.WriteString(la.server, "one ")
		a.SetDelay(0)
		io.WriteString(la.server, "two")
		la.server.Close()
		b16 := make([]byte, 16)
		k, err := la.near.Read(b16)
		if string(b16[:k]) != "one two" || err != nil {
			t.Errorf("read %q, %v", b16[:k], err)
		}
		took("what was sent before the delay was lowered", 25*time.Millisecond)
		if _, err := la.near.Read(b16); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
		took("end of file", 0)
	})
}

func TestNegativeDelayPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	pipenet.New().Client("a").SetDelay(-1)
}

// TestClientHTTP: the client of HTTP has the client's faults and name.
func TestClientHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipenet.Net{Delay: time.Millisecond}
		l := listen(t, n, "web")
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.RemoteAddr)
		})}
		done := make(chan error)
		go func() { done <- srv.Serve(l) }()
		a := n.Client("a")
		get := func(addr string) (string, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := a.HTTPClient().Do(req)
			if err != nil {
				return "", err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			return string(body), err
		}
		a.SetDelay(9 * time.Millisecond)
		start := time.Now()
		body, err := get("web")
		if got := time.Since(start); err != nil || !strings.HasPrefix(body, "a:") || got != 40*time.Millisecond {
			t.Errorf("got %q, %v after %v", body, err, got)
		}
		if _, err := get("nobody"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("without listener: %v", err)
		}
		a.Stall()
		for _, addr := range []string{"web", "nobody"} {
			if _, err := get(addr); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("stalled %s: %v", addr, err)
			}
		}
		time.AfterFunc(time.Second, func() { a.Resume() })
		start = time.Now()
		if _, err := get("web"); err != nil || time.Since(start) != time.Second+10*time.Millisecond { // the way back
			t.Errorf("over the end of the stall: %v after %v", err, time.Since(start))
		}
		a.Stall()
		time.AfterFunc(time.Second, func() { a.Resume() })
		if _, err := get("nobody"); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("nobody, over the end of the stall: %v", err)
		}
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// TestClientAbandon: what was open leads nowhere for good, whatever resumes, and
// neither end learns of it; what is dialled afterwards flows.
func TestClientAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipenet.Net{Delay: time.Millisecond}
		l := listen(t, n, "s1")
		c, other := n.Client("moved"), n.Client("other")
		old, untouched := dial(t, c, l), dial(t, other, l)
		c.Abandon()
		fresh := dial(t, c, l)
		if old.flows() {
			t.Error("an abandoned connection flows")
		}
		if !fresh.flows() || !untouched.flows() {
			t.Error("a connection that was not abandoned does not flow")
		}
		c.Stall()
		c.Resume()
		n.Stall("s1")
		n.Resume("s1")
		if old.flows() || !fresh.flows() {
			t.Error("resuming brings back what was abandoned, or not what was stalled")
		}
		old.broken(false)
		c.Reset()
		old.broken(true)
		fresh.broken(true)
	})
}
