package mesh

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/pion/transport/v5"

	"github.com/infrafabric/agentmesh/signaling"
)

// TestParseCandidate: what the library would take, what it would stumble over, and
// what the two must agree on.
func TestParseCandidate(t *testing.T) {
	for value, want := range map[string]string{
		"candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host":                                  "udp 192.0.2.1:5000 host",
		"candidate:1 1 UDP 1 192.0.2.1 5000 typ srflx raddr 0.0.0.0 rport 9":                    "udp 192.0.2.1:5000 srflx",
		"candidate:1 1 udp 1 2001:db8::1 5000 typ relay raddr :: rport 9 generation 0":          "udp [2001:db8::1]:5000 relay",
		"candidate:1 1 udp 1 fe80::1%eth0 5000 typ host":                                        "udp [fe80::1]:5000 host",
		"candidate:1 1 udp 1 ::ffff:192.0.2.1 5000 typ host":                                    "udp 192.0.2.1:5000 host",
		"candidate:1 1 tcp 1 192.0.2.1 443 typ host tcptype passive":                            "tcp passive 192.0.2.1:443 host",
		"candidate:1 1 udp 1 0b9e3c2a-3d5f-4b8e-9c1d-1a2b3c4d5e6f.local 5000 typ host":          "",
		"candidate:1 1 udp 1 relay.example 5000 typ relay":                                      "",
		"candidate:1 1 udp 1 0.0.0.0 5000 typ host":                                             "",
		"candidate:1 1 udp 1 224.0.0.251 5000 typ host":                                         "",
		"candidate:1 1 udp 1 192.0.2.1 65536 typ host":                                          "",
		"candidate:1 1 udp 1 192.0.2.1 -1 typ host":                                             "",
		"candidate:1 1 udp 4294967296 192.0.2.1 5000 typ host":                                  "",
		"candidate:1 0 udp 1 192.0.2.1 5000 typ host":                                           "",
		"candidate:1 1 sctp 1 192.0.2.1 5000 typ host":                                          "",
		"candidate:1 1 udp 1 192.0.2.1 5000 typ guess":                                          "",
		"candidate:1 1 udp 1 192.0.2.1 5000 host":                                               "",
		"candidate:1 1 udp 1 192.0.2.1":                                                         "",
		"candidate:":                                                                            "",
		"":                                                                                      "",
		"candidate:1 1 udp 1 192.0.2.1 5000 typ host" + strings.Repeat(" x y", maxCandidateLen): "",
	} {
		c, component, err := parseCandidate(value)
		var ce *candidateError
		switch {
		case want == "":
			if !errors.As(err, &ce) || len(err.Error()) > 300 {
				t.Errorf("%.80q: %v", value, err)
			}
		case err != nil || component != 1:
			t.Errorf("%q: component %d, %v", value, component, err)
		default:
			if got := fmt.Sprint(c.transport, " ", c.at, " ", c.typ); got != want {
				t.Errorf("%q is %s, want %s", value, got, want)
			}
		}
	}
}

func hostLine(i, component int) string {
	return fmt.Sprintf("candidate:1 %d udp %d 10.0.%d.%d 5000 typ host", component, 100-component, i/256, i%256)
}

// TestRemoteCandidates: the first 32 distinct ones are used, those of a description
// and those that follow it together; a bad one takes no place, and hides nowhere.
func TestRemoteCandidates(t *testing.T) {
	var sdp strings.Builder
	sdp.WriteString("v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=candidate:rubbish\r\n")
	for i := range 20 {
		fmt.Fprintf(&sdp, "a=%s\r\na=%s\r\n", hostLine(i, 1), hostLine(i, 2))
	}
	fmt.Fprintf(&sdp, "a=x\ra=%s\ra=candidate:1 1 udp 1 name.local 9 typ host\r\na=end-of-candidates\r\n", hostLine(20, 1))
	var r remoteCandidates
	got, ignored := r.description(sdp.String())
	if n := strings.Count(got, "a=candidate:"); n != 21 || strings.Contains(got, "rubbish") || strings.Contains(got, ".local") {
		t.Errorf("%d candidates are used of\n%s", n, got)
	}
	if strings.Contains(strings.ReplaceAll(got, "\r\n", ""), "\r") {
		t.Errorf("a CR is left in %q", got)
	}
	if len(ignored) != 2 {
		t.Errorf("ignored %v", ignored)
	}
	for i := range 100 {
		ok, err := r.place(hostLine(i, 1))
		var ce *candidateError
		switch {
		case ok != (i > 20 && i < maxRemoteCandidates):
			t.Errorf("candidate %d is used: %v", i, ok)
		case (err != nil) != (i >= maxRemoteCandidates) || err != nil && !errors.As(err, &ce):
			t.Errorf("candidate %d: %v", i, err)
		}
	}
}

// TestLocalCandidates: each kind has its places, whatever comes first, and all of them
// are places at the other side.
func TestLocalCandidates(t *testing.T) {
	if n := maxHostAddresses + maxTCPCandidates + maxReflexiveCandidates + maxRelayCandidates; n > maxRemoteCandidates {
		t.Fatalf("%d candidates are told, %d are taken", n, maxRemoteCandidates)
	}
	var sdp strings.Builder
	for i := range 40 {
		fmt.Fprintf(&sdp, "a=%s\r\na=%s\r\na=%s tcptype passive\r\n", hostLine(i, 1), hostLine(i, 2), strings.Replace(hostLine(i, 1), "udp", "tcp", 1))
	}
	l := newLocalCandidates()
	got := l.description(sdp.String())
	if n := strings.Count(got, "udp"); n != maxHostAddresses {
		t.Errorf("%d host candidates", n)
	}
	if n := strings.Count(got, "tcp "); n != maxTCPCandidates {
		t.Errorf("%d TCP candidates", n)
	}
	if !strings.Contains(got, hostLine(0, 1)) || strings.Contains(got, hostLine(0, 2)) {
		t.Error("the first is not told of, or twice")
	}
	if tell, known := l.place(hostLine(0, 1)); !tell || !known {
		t.Errorf("one of the description: told %v, known %v", tell, known)
	}
	for typ, places := range map[string]int{"srflx": maxReflexiveCandidates, "relay": maxRelayCandidates} {
		n := 0
		for i := range 20 {
			if tell, known := l.place(fmt.Sprintf("candidate:1 1 udp 1 192.0.2.1 %d typ %s raddr 0.0.0.0 rport 9", 5000+i, typ)); tell && !known {
				n++
			}
		}
		if n != places {
			t.Errorf("%d candidates of type %s, want %d", n, typ, places)
		}
	}
}

// TestRankAddresses: the order is the same whatever the system's is, and both families
// are there.
func TestRankAddresses(t *testing.T) {
	many := func(name, format string, n int) (h hardware) {
		h = hardware{name: name, flags: isUp}
		for i := range n {
			h.addrs = append(h.addrs, fmt.Sprintf(format, 1+i))
		}
		return h
	}
	for _, c := range []struct {
		name   string
		ifs    []hardware
		routes []string
		want   []string
	}{
		{"a laptop with containers", []hardware{{"docker0", isIdle, []string{"172.17.0.1/16"}}, {"br-1", isUp, []string{"172.18.0.1/16", "fd00:1::1/64"}},
			{"wlan0", isUp, []string{"192.168.1.5/24", "2001:db8::5/64", "2001:db8::99/64", "fe80::5/64"}}, {"tailscale0", isUp, []string{"100.64.1.2/32"}}},
			[]string{"192.168.1.5", "2001:db8::99"},
			[]string{"192.168.1.5", "2001:db8::99", "100.64.1.2", "2001:db8::5", "172.18.0.1", "fd00:1::1", "172.17.0.1"}},
		{"containers without end", []hardware{many("br-1", "172.18.0.%d/16", 40), many("eth0", "2001:db8::%x/64", 20), {"eth1", isUp, []string{"10.0.0.2/8"}}}, nil,
			[]string{"10.0.0.2", "2001:db8::1", "172.18.0.1", "2001:db8::2", "172.18.0.2", "2001:db8::3", "172.18.0.3", "2001:db8::4",
				"172.18.0.4", "2001:db8::5", "172.18.0.5", "2001:db8::6"}},
		{"one family without end", []hardware{many("eth0", "198.51.100.%d/24", 40)}, []string{"198.51.100.17"},
			[]string{"198.51.100.17", "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5", "198.51.100.6",
				"198.51.100.7", "198.51.100.8", "198.51.100.9", "198.51.100.10", "198.51.100.11"}},
		{"a link beside a network", []hardware{{"eth0", isUp, []string{"169.254.1.1/16", "10.0.0.2/8", "fe80::2/64"}}, loopbackHardware}, nil,
			[]string{"10.0.0.2", "169.254.1.1"}},
		{"nothing but a link", []hardware{{"eth0", isUp, []string{"fe80::2/64"}}, loopbackHardware}, nil, []string{"127.0.0.1", "fe80::2", "::1"}},
	} {
		for range 10 {
			rand.Shuffle(len(c.ifs), func(i, j int) { c.ifs[i], c.ifs[j] = c.ifs[j], c.ifs[i] })
			for _, h := range c.ifs {
				rand.Shuffle(len(h.addrs), func(i, j int) { h.addrs[i], h.addrs[j] = h.addrs[j], h.addrs[i] })
			}
			m := newMachineNet(c.ifs...)
			for _, r := range c.routes {
				m.route = append(m.route, netip.MustParseAddr(r))
			}
			var got []string
			for _, a := range addressesOf(t, gatherNet{bufferedNet{Net: m}}) {
				got = append(got, strings.Split(a, "/")[0])
			}
			if !slices.Equal(got, c.want) {
				t.Fatalf("%s:\n%v, want\n%v", c.name, got, c.want)
			}
		}
	}
}

// crowded is a network with many addresses on its loopback interface, of which only
// the first need exist.
type crowded struct {
	transport.Net
	addresses int
}

func (n crowded) Interfaces() ([]*transport.Interface, error) {
	lo := hardware{name: "lo", flags: isLo}
	for i := range n.addresses {
		lo.addrs = append(lo.addrs, fmt.Sprintf("127.0.0.%d/8", 1+i))
	}
	return interfaces(lo), nil
}

// TestManyAddresses: machines with many addresses meet, and tell each other of as many
// as the other takes.
func TestManyAddresses(t *testing.T) {
	for _, c := range []struct{ dialler, other int }{{17, 1}, {1, 17}, {200, 200}} {
		t.Run(fmt.Sprintf("%d and %d", c.dialler, c.other), func(t *testing.T) {
			h := newHub(0)
			a, b := newIdentity(t, "agent-a"), newIdentity(t, "agent-b")
			trust := newBook(a, b)
			listen := func(cfg Config, addresses int) *Node {
				lo, err := LoopbackNet()
				if err != nil {
					t.Fatal(err)
				}
				cfg.Net, cfg.Trust = crowded{lo, addresses}, trust
				n := startNode(t, h, nil, cfg)
				t.Cleanup(func() { n.Close() })
				return n
			}
			x, y := listen(Config{Identity: a}, c.dialler), listen(Config{Identity: b}, c.other)
			p, q := meet(t, x, y)
			tell(t, p, "from one of many addresses")
			hear(t, q, "from one of many addresses")
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, e := range h.seen {
				if e.Kind != signaling.Offer && e.Kind != signaling.Answer {
					continue
				}
				d, err := decodeDescription(e.Body)
				if err != nil {
					t.Fatal(err)
				}
				if n := strings.Count(d.SDP, "a=candidate:"); n > maxHostAddresses || n == 0 {
					t.Errorf("%d candidate lines in a description", n)
				}
			}
		})
	}
}

// TestLongLists: an envelope that lists more candidates than are used, and one that is
// too long, is read all the same.
func TestLongLists(t *testing.T) {
	list := []string{"candidate:1 1 udp 1 192.0.2.1 9 typ host" + strings.Repeat(" x y", maxCandidateLen)}
	for i := range 2 * maxRemoteCandidates {
		list = append(list, hostLine(i, 1))
	}
	b, err := decodeCandidates((&candidateBody{list}).encode())
	if err != nil || !slices.Equal(b.Candidates, list) {
		t.Fatalf("%d candidates, %v", len(b.Candidates), err)
	}
	var r remoteCandidates
	for _, c := range b.Candidates {
		_, _ = r.place(c)
	}
	if len(r.used) != maxRemoteCandidates {
		t.Errorf("%d candidates are used", len(r.used))
	}
}
