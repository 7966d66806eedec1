package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// candidate is what a candidate-attribute (RFC 8839 §5.1) says that matters here:
//
//	candidate:FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ TYPE …
//
// Two with equal values are one, whatever else they say.
type candidate struct {
	transport string         // "udp", or "tcp" with its tcptype
	at        netip.AddrPort // without a zone, which means nothing elsewhere
	typ       string         // "host", "srflx", "prflx" or "relay"
}

// candidateError says why a candidate is not used.
type candidateError struct {
	reason string
	value  string
}

func (e *candidateError) Error() string { return fmt.Sprintf("candidate %s: %q", e.reason, e.value) }

// parseCandidate reads a candidate-attribute, with its name and without "a=". Those of
// the second component are not for this product, which multiplexes all on the first.
func parseCandidate(value string) (c candidate, component int, err error) {
	bad := func(reason string) (candidate, int, error) {
		return candidate{}, 0, &candidateError{reason, safeText(value)}
	}
	if len(value) > maxCandidateLen {
		return candidate{}, 0, &candidateError{fmt.Sprintf("of %d bytes, more than %d", len(value), maxCandidateLen), ""}
	}
	rest, ok := strings.CutPrefix(value, "candidate:")
	f := strings.Fields(rest)
	if !ok || len(f) < 8 || f[6] != "typ" {
		return bad("without the parts that one has")
	}
	component, err = strconv.Atoi(f[1])
	if err != nil || component < 1 || component > 256 {
		return bad("with a component that is none")
	}
	if _, err := strconv.ParseUint(f[3], 10, 32); err != nil {
		return bad("with a priority that is none")
	}
	port, err := strconv.ParseUint(f[5], 10, 16)
	if err != nil {
		return bad("with a port that is none")
	}
	if strings.HasSuffix(f[4], ".local") {
		return bad("with a name of multicast DNS, which is not asked")
	}
	addr, err := netip.ParseAddr(f[4])
	if err != nil {
		return bad("with an address that is none")
	}
	if addr = addr.Unmap(); addr.IsUnspecified() || addr.IsMulticast() {
		return bad("with an address that nobody has")
	}
	c = candidate{transport: strings.ToLower(f[2]), at: netip.AddrPortFrom(addr.WithZone(""), uint16(port)), typ: f[7]}
	if !slices.Contains([]string{"host", "srflx", "prflx", "relay"}, c.typ) {
		return bad("of an unknown type")
	}
	switch c.transport {
	case "udp":
	case "tcp":
		kind := ""
		for i := 8; i+1 < len(f); i += 2 {
			if f[i] == "tcptype" {
				kind = f[i+1]
			}
		}
		c.transport += " " + kind
	default:
		return bad("of an unknown transport")
	}
	return c, component, nil
}

// remoteCandidates are those of the other side that one session uses: the first
// maxRemoteCandidates distinct ones. What is beyond, or makes no sense, is ignored;
// an offer is not refused for it, because the others may do.
type remoteCandidates struct {
	used map[candidate]bool
}

// place reports whether to use a candidate, and if not, why; nil and false for one
// that is known already.
func (r *remoteCandidates) place(value string) (bool, error) {
	c, component, err := parseCandidate(value)
	switch {
	case err != nil:
		return false, err
	case component != 1 || r.used[c]:
		return false, nil
	case len(r.used) >= maxRemoteCandidates:
		return false, &candidateError{fmt.Sprintf("beyond %d", maxRemoteCandidates), safeText(value)}
	}
	if r.used == nil {
		r.used = map[candidate]bool{}
	}
	r.used[c] = true
	return true, nil
}

// description returns a description with the candidates to use, and why others are
// not.
func (r *remoteCandidates) description(sdp string) (string, []error) {
	var ignored []error
	return eachCandidate(sdp, func(value string) bool {
		ok, err := r.place(value)
		if err != nil {
			ignored = append(ignored, err)
		}
		return ok
	}), ignored
}

// localCandidates decides which candidates of this side the other is told of, so that
// those that matter find their places: each kind has some, and who comes first has
// one. Host candidates come in the order of rankAddresses.
type localCandidates struct {
	told   map[candidate]bool // whether; of those that were seen
	places map[string]int     // left, by kind
}

func newLocalCandidates() *localCandidates {
	return &localCandidates{told: map[candidate]bool{}, places: map[string]int{
		"host": maxHostAddresses, "tcp": maxTCPCandidates, "srflx": maxReflexiveCandidates, "relay": maxRelayCandidates}}
}

// place reports whether to tell of a candidate, and whether it was asked before.
func (l *localCandidates) place(value string) (tell, known bool) {
	c, component, err := parseCandidate(value)
	if err != nil || component != 1 {
		return false, false
	}
	if tell, known = l.told[c]; known {
		return tell, known
	}
	kind := c.typ
	if kind == "host" && c.transport != "udp" {
		kind = "tcp"
	}
	tell = l.places[kind] > 0
	if tell {
		l.places[kind]--
	}
	// What is not told of is not remembered for ever: a machine has so many addresses.
	if tell || len(l.told) < 4*maxRemoteCandidates {
		l.told[c] = tell
	}
	return tell, false
}

// description returns a description with the candidates to tell of, once each: the
// library lists all of them, and each for a second component that is not used.
func (l *localCandidates) description(sdp string) string {
	return eachCandidate(sdp, func(value string) bool {
		tell, _ := l.place(value)
		return tell
	})
}

// linkCandidates are host candidates at IPv6 addresses of a link, as lines of a
// description. The zone, which says by which interface, is this machine's own matter;
// the other side has its own.
func linkCandidates(list []netip.AddrPort) string {
	const priority = 126<<24 | 65535<<8 | 255 // RFC 8445 §5.1.2.1
	var b strings.Builder
	for i, a := range list {
		fmt.Fprintf(&b, "a=candidate:link%d 1 udp %d %s %d typ host\r\n", i, priority, a.Addr().WithZone(""), a.Port())
	}
	return b.String()
}

// eachCandidate returns a description with the candidate lines that keep chooses. Lines
// end at each CR and LF, as the library's parser has it: what is written "\r" must not
// escape who looks.
func eachCandidate(sdp string, keep func(value string) bool) string {
	var b strings.Builder
	for line := range sdpLines(sdp) {
		value, ok := strings.CutPrefix(line, "a=")
		if ok && strings.HasPrefix(value, "candidate:") && !keep(value) {
			continue
		}
		b.WriteString(line)
		b.WriteString("\r\n")
	}
	return b.String()
}

// sdpLines yields the lines of a description that are not empty.
func sdpLines(sdp string) func(yield func(string) bool) {
	return strings.FieldsFuncSeq(sdp, func(r rune) bool { return r == '\r' || r == '\n' })
}
