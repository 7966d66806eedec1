package virtual_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestNames: a name is looked up in a round trip, by the host's own method and in IPv4
// only; while name servers hang nobody gets an answer, and then everybody does.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 40 * time.Millisecond
		n := virtual.New(t, virtual.Config{RTT: rtt})
		addr, other := netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("1.2.3.5")
		h, err := n.Host(virtual.Open)
		if err != nil {
			t.Fatal(err)
		}
		far, err := n.Host(virtual.Symmetric)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.SetName("stun.test", addr); err != nil {
			t.Fatal(err)
		}
		ask := func(h *virtual.Host, network, name string) (netip.Addr, error) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			got, err := h.LookupNetIP(ctx, network, name)
			if d := time.Since(began); d != rtt && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s %s took %v", network, name, d)
			}
			if err != nil {
				return netip.Addr{}, err
			}
			return got[0], nil
		}
		is := func(got netip.Addr, err error, want netip.Addr) {
			t.Helper()
			if err != nil || got != want {
				t.Errorf("%v, %v, want %v", got, err, want)
			}
		}
		for _, host := range []*virtual.Host{h, far} {
			for _, network := range []string{"ip4", "ip"} {
				got, err := ask(host, network, "STUN.test.")
				is(got, err, addr)
			}
		}
		var dns *net.DNSError
		for _, q := range [][2]string{{"ip6", "stun.test"}, {"ip4", "turn.test"}, {"ip4", ""}} {
			if _, err := ask(h, q[0], q[1]); !errors.As(err, &dns) || !dns.IsNotFound {
				t.Errorf("%s %q: %v", q[0], q[1], err)
			}
		}

		h.HangNames()
		h.HangNames()
		if _, err := ask(h, "ip4", "stun.test"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("of a name server that hangs: %v", err)
		}
		got, err := ask(far, "ip4", "stun.test")
		is(got, err, addr)
		answer := make(chan error, 1)
		go func() {
			got, err := h.LookupNetIP(t.Context(), "ip4", "stun.test")
			if err == nil && got[0] != other {
				err = errors.New("is " + got[0].String())
			}
			answer <- err
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-answer:
			t.Fatalf("answered: %v", err)
		default:
		}
		if err := n.SetName("stun.test", other); err != nil {
			t.Fatal(err)
		}
		h.AnswerNames()
		h.AnswerNames()
		if err := <-answer; err != nil {
			t.Error(err)
		}
		got, err = ask(h, "ip4", "stun.test")
		is(got, err, other)

		if n.SetName("", addr) == nil || n.SetName("x", netip.IPv6LinkLocalAllNodes()) == nil || n.SetName("x", netip.Addr{}) == nil {
			t.Error("wrong names are set")
		}
	})
}
