package virtual_test

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// recorder is a test whose failures can be looked at. Fatal ends its goroutine
// as the real one does.
type recorder struct {
	testing.TB
	fatal bool
}

func (r *recorder) Helper()      {}
func (r *recorder) Fatal(...any) { r.fatal = true; runtime.Goexit() }

func TestInvalidConfig(t *testing.T) {
	for _, rtt := range []time.Duration{-2, 3} {
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			virtual.New(r, virtual.Config{RTT: rtt})
		}()
		<-done
		if !r.fatal {
			t.Errorf("RTT %v was accepted", rtt)
		}
	}
}

func TestHostsAreDistinct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		reporter := newSocket(t, n, virtual.Open)
		private, public := map[string]bool{}, map[string]bool{}
		// More than 256, so that addresses carry into the next octet.
		for i := range 600 {
			s := newSocket(t, n, nats[i%len(nats)])
			private[s.addr().String()] = true
			public[s.seenBy(reporter).(*net.UDPAddr).IP.String()] = true
		}
		if len(private) != 600 || len(public) != 600 {
			t.Errorf("600 hosts have %d private and %d public addresses", len(private), len(public))
		}
	})
}

func TestUnknownNAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		_, err := n.Host(virtual.Symmetric + 1)
		var unknown *virtual.UnknownNATError
		if !errors.As(err, &unknown) || unknown.NAT != virtual.Symmetric+1 {
			t.Errorf("got %v", err)
		}
	})
}

func TestTooManyHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		for i := range virtual.MaxHosts {
			if _, err := n.Host(virtual.Open); err != nil {
				t.Fatalf("host %d: %v", i, err)
			}
		}
		if _, err := n.Host(virtual.Open); !errors.Is(err, virtual.ErrTooManyHosts) {
			t.Errorf("one host too many: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 2 * time.Second, STUN: true})
		a, b := newSocket(t, n, virtual.PortRestricted), newSocket(t, n, virtual.Open)
		a.send("under way", b.LocalAddr())
		time.Sleep(time.Second / 2)
		for range 2 {
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
		}
		b.expectNothing()
		if _, err := n.Host(virtual.Open); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Host after Close: %v", err)
		}
	})
}

func TestSTUN(t *testing.T) {
	for _, nat := range nats {
		t.Run(nat.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := virtual.New(t, virtual.Config{RTT: 40 * time.Millisecond, STUN: true})
				if got := n.STUNServer(); got != "stun:1.2.3.4:3478" {
					t.Fatalf("server is %q", got)
				}
				s, third := newSocket(t, n, nat), newSocket(t, n, virtual.Open)
				start := time.Now()
				mapped := bind(t, s)
				if got := time.Since(start); got != 40*time.Millisecond {
					t.Errorf("binding took %v, want one round trip of 40ms", got)
				}
				if seen := s.seenBy(third).String(); (seen == mapped) == (nat == virtual.Symmetric) {
					t.Errorf("the server says %s, a third host sees %s", mapped, seen)
				}
			})
		})
	}
}

// bind asks the STUN server for the address of s.
func bind(t *testing.T, s *socket) string {
	t.Helper()
	req := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
	s.send(string(req.Raw), &net.UDPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 3478})
	text, _ := s.next()
	res := &stun.Message{Raw: []byte(text)}
	var mapped stun.XORMappedAddress
	if err := errors.Join(res.Decode(), mapped.GetFrom(res)); err != nil {
		t.Fatal(err)
	}
	return mapped.String()
}

func TestNoSTUNUnlessAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		s := newSocket(t, n, virtual.Open)
		req := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
		s.send(string(req.Raw), &net.UDPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 3478})
		s.expectNothing()
	})
}

func TestLoss(t *testing.T) {
	const total = 900 // below what a socket holds unread
	run := func(percent int, seed int64) string {
		var arrived string
		synctest.Test(t, func(t *testing.T) {
			n := virtual.New(t, virtual.Config{RTT: 10 * time.Millisecond})
			a, b := newSocket(t, n, virtual.FullCone), newSocket(t, n, virtual.Open)
			if err := n.SetLoss(percent, seed); err != nil {
				t.Fatal(err)
			}
			for i := range total {
				a.send(fmt.Sprintf("%d,", i), b.LocalAddr())
			}
			synctest.Wait()
			time.Sleep(time.Second)
			if err := n.SetLoss(0, 0); err != nil {
				t.Fatal(err)
			}
			a.send("end", b.LocalAddr())
			for {
				text, _ := b.next()
				if text == "end" {
					return
				}
				arrived += text
			}
		})
		return arrived
	}
	count := func(s string) (n int) {
		for _, c := range s {
			if c == ',' {
				n++
			}
		}
		return n
	}

	if got := count(run(0, 1)); got != total {
		t.Errorf("without loss %d of %d arrived", got, total)
	}
	if got := count(run(100, 1)); got != 0 {
		t.Errorf("with all lost %d arrived", got)
	}
	ten := run(10, 1)
	// The standard deviation is 9.
	if got := count(ten); got < 810-45 || got > 810+45 {
		t.Errorf("with 10 %% lost %d of %d arrived", got, total)
	}
	if run(10, 1) != ten {
		t.Error("the same seed lost other datagrams")
	}
	if run(10, 2) == ten {
		t.Error("another seed lost the same datagrams")
	}
}

func TestLossOutOfRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{})
		for _, percent := range []int{-1, 101} {
			if err := n.SetLoss(percent, 0); err == nil {
				t.Errorf("%d %% was accepted", percent)
			}
		}
		a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		a.send("unharmed", b.LocalAddr())
		b.expect("unharmed")
	})
}
