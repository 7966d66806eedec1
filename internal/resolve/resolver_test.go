package resolve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a name server of one name.
type server struct {
	mu    sync.Mutex
	four  []netip.Addr
	six   []netip.Addr
	err   error
	after map[string]time.Duration // by network; negative means never
	asked int                      // for IPv4
}

// lookup is its Lookup.
//
// bubble: it sleeps.
func (s *server) lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	s.mu.Lock()
	addrs, err, after := s.four, s.err, s.after[network]
	if network == "ip6" {
		addrs = s.six
	} else {
		s.asked++
	}
	s.mu.Unlock()
	if after < 0 {
		<-ctx.Done()
		return nil, &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
	}
	time.Sleep(after)
	return addrs, err
}

func (s *server) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *server) dead() { s.set(func() { s.after = map[string]time.Duration{"ip4": -1, "ip6": -1} }) }

func (s *server) alive() { s.set(func() { s.after = nil }) }

func addrs(texts ...string) (out []netip.Addr) {
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

// inBubble runs f with a Resolver and its name server, and returns what was logged.
func inBubble(t *testing.T, f func(t *testing.T, s *server, r *Resolver)) string {
	t.Helper()
	var logged bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		s := &server{four: addrs("192.0.2.1", "192.0.2.2"), six: addrs("2001:db8::1")}
		r := New(Config{Lookup: s.lookup, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		defer func() {
			began := time.Now()
			if err := r.Close(); err != nil || time.Since(began) > 0 {
				t.Errorf("Close: %v after %v", err, time.Since(began))
			}
		}()
		f(t, s, r)
	})
	return logged.String()
}

// want resolves and checks the answer and how long it takes.
func want(t *testing.T, r *Resolver, within time.Duration, texts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	got, err := r.Resolve(ctx, "a.example")
	if took := time.Since(began); took > within {
		t.Errorf("took %v", took)
	}
	var e *Error
	switch {
	case len(texts) > 0 && (err != nil || !slices.Equal(got, addrs(texts...))):
		t.Errorf("%v, %v; want %v", got, err, texts)
	case len(texts) == 0 && (!errors.As(err, &e) || e.Host != "a.example" || got != nil):
		t.Errorf("%v, %v; want an *Error", got, err)
	}
}

func TestResolve(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, r *Resolver) {
		all := []string{"192.0.2.1", "2001:db8::1", "192.0.2.2"}
		var wg sync.WaitGroup
		s.set(func() { s.after = map[string]time.Duration{"ip4": time.Millisecond} })
		for range 50 {
			wg.Go(func() { want(t, r, time.Millisecond, all...) })
		}
		wg.Wait()
		time.Sleep(freshFor - time.Second)
		want(t, r, 0, all...)
		if s.asked != 1 {
			t.Errorf("asked %d times", s.asked)
		}
		s.set(func() { s.four, s.six = addrs("192.0.2.3", "::ffff:192.0.2.3"), nil })
		time.Sleep(2 * time.Second)
		want(t, r, time.Millisecond, "192.0.2.3")
		for _, literal := range []string{"192.0.2.9", "::ffff:192.0.2.9"} {
			if got, err := r.Resolve(t.Context(), literal); err != nil || got[0] != netip.MustParseAddr("192.0.2.9") {
				t.Errorf("%s: %v, %v", literal, got, err)
			}
		}
	})
}

// TestDeadNameServer: who asks waits as long as his context says and no longer, and
// once it is known hardly at all; what was known serves on for a day.
func TestDeadNameServer(t *testing.T) {
	logged := inBubble(t, func(t *testing.T, s *server, r *Resolver) {
		s.dead()
		want(t, r, time.Second)
		time.Sleep(lookupTimeout)
		for range 20 {
			want(t, r, againWait)
			time.Sleep(failedFor)
		}
		s.alive()
		time.Sleep(lookupTimeout + failedFor)
		want(t, r, 0, "192.0.2.1", "2001:db8::1", "192.0.2.2")
		s.dead()
		for range 23 {
			time.Sleep(time.Hour)
			want(t, r, againWait, "192.0.2.1", "2001:db8::1", "192.0.2.2")
			time.Sleep(lookupTimeout)
			want(t, r, 0, "192.0.2.1", "2001:db8::1", "192.0.2.2")
		}
		time.Sleep(time.Hour)
		want(t, r, againWait)
		s.alive()
		time.Sleep(lookupTimeout + failedFor)
		want(t, r, 0, "192.0.2.1", "2001:db8::1", "192.0.2.2")
		s.set(func() { s.err = &net.DNSError{Err: "no such host", IsNotFound: true} })
		time.Sleep(freshFor + 1)
		want(t, r, 0) // that is an answer
	})
	for _, text := range []string{"its addresses of before", "can be looked up again", `"a name cannot be looked up"`} {
		if !strings.Contains(logged, text) {
			t.Errorf("not logged: %s", text)
		}
	}
	if n := strings.Count(logged, "\n"); n > 6 {
		t.Errorf("%d lines are logged:\n%s", n, logged)
	}
}

// TestOneFamily: a name server that never answers for IPv6 costs a moment, and one
// that is slow to is heard all the same.
func TestOneFamily(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, r *Resolver) {
		s.set(func() { s.after = map[string]time.Duration{"ip6": -1} })
		want(t, r, graceFor, "192.0.2.1", "192.0.2.2")
		time.Sleep(lookupTimeout + freshFor)
		s.set(func() { s.after = map[string]time.Duration{"ip6": 2 * graceFor} })
		want(t, r, graceFor, "192.0.2.1", "192.0.2.2")
		time.Sleep(2 * graceFor)
		want(t, r, 0, "192.0.2.1", "2001:db8::1", "192.0.2.2")
		time.Sleep(freshFor + 1)
		s.set(func() { s.four, s.after = nil, nil })
		want(t, r, 0, "2001:db8::1")
	})
}

func TestPrefetch(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, r *Resolver) {
		s.set(func() { s.after = map[string]time.Duration{"ip4": 20 * time.Millisecond, "ip6": 20 * time.Millisecond} })
		r.Prefetch("a.example", "192.0.2.1")
		time.Sleep(30 * time.Millisecond)
		want(t, r, 0, "192.0.2.1", "2001:db8::1", "192.0.2.2")
		if s.asked != 1 {
			t.Errorf("asked %d times", s.asked)
		}
	})
}

func TestLimits(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, r *Resolver) {
		for i := range 20 {
			s.four = append(s.four, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
		}
		if got, err := r.Resolve(t.Context(), "a.example"); err != nil || len(got) != maxAddresses {
			t.Errorf("%v, %v", got, err)
		}
		s.dead()
		for i := range maxNames {
			r.Prefetch(fmt.Sprint(i, ".example"))
		}
		synctest.Wait()
		if _, err := r.Resolve(t.Context(), "one.more"); !errors.Is(err, ErrTooMany) {
			t.Errorf("%v", err)
		}
		s.alive()
		time.Sleep(lookupTimeout)
		want(t, r, 0, "192.0.2.1", "2001:db8::1", "192.0.2.2", "198.51.100.0", "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4")
		if len(r.names) != maxNames {
			t.Errorf("%d names", len(r.names))
		}
	})
}

func TestClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, r *Resolver) {
		s.dead()
		done := make(chan error, 1)
		go func() {
			_, err := r.Resolve(t.Context(), "a.example")
			done <- err
		}()
		synctest.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Error("a look-up outlived Close")
		}
		if _, err := r.Resolve(t.Context(), "b.example"); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

type ownNames struct{}

func (ownNames) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return addrs("192.0.2.7"), nil
}

func TestOf(t *testing.T) {
	if got, err := Of(ownNames{})(t.Context(), "ip4", "x"); err != nil || got[0] != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := Of(nil)(t.Context(), "ip4", "127.0.0.1"); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}
