package mesh

import (
	"slices"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// wished is an offer or an ask of the other side, as the loop gets it.
func wished(kind signaling.Kind, why Reason, generation uint64, instance byte) verified {
	body := (&askBody{Reason: why}).encode()
	if kind == signaling.Offer {
		body = (&descriptionBody{SDP: "v=0\r\na=fingerprint:sha-256 " + keys.Fingerprint{}.String() + "\r\n", Reason: why}).encode()
	}
	return verified{Sealed: &signaling.Sealed{Envelope: signaling.Envelope{Kind: kind, From: "agent-b", Generation: generation,
		Instance: signaling.Instance{instance}, Body: body}}}
}

// refusedWith returns the codes of the refusals that wait to be sent.
func refusedWith(n *Node) (codes []rejectCode) {
	for len(n.refusals) > 0 {
		codes = append(codes, (<-n.refusals).body.Code)
	}
	return codes
}

// metPeer is a Peer without a loop that has a session of the other side's instance 1.
func metPeer(t *testing.T, generation uint64) (*Peer, *session) {
	t.Helper()
	p := stillPeer(t)
	s := deadSession(p, generation, 1)
	if err := p.attach(newAttempt(p, s.order, true), s, helloOf(s)); err != nil {
		t.Fatal(err)
	}
	return p, s
}

// TestOffered: which offers are answered, put aside, refused or passed over.
func TestOffered(t *testing.T) {
	const aside, answered, over, refused = "put aside", "answered", "passed over", "refused"
	for name, c := range map[string]struct {
		generation uint64
		instance   byte
		why        Reason
		change     func(p *Peer)
		want       string
		code       rejectCode
	}{
		"newer than the session":            {6, 1, ReasonSilence, nil, answered, 0},
		"as old as the session":             {5, 1, ReasonSilence, nil, over, 0},
		"older than the session":            {4, 1, ReasonSilence, nil, over, 0},
		"of another process, older":         {4, 2, ReasonDial, nil, answered, 0},
		"of a process that was replaced":    {9, 3, ReasonDial, func(p *Peer) { p.led.refused = append(p.led.refused, signaling.Instance{3}) }, refused, rejectReplaced},
		"too many lately":                   {6, 1, ReasonSilence, func(p *Peer) { p.theirs.SetLimit(0); p.theirs.SetBurst(0) }, refused, rejectBusy},
		"too many at once":                  {6, 1, ReasonSilence, fill, refused, rejectBusy},
		"beside an offer, with a session":   {6, 1, ReasonSilence, func(p *Peer) { under(p, ReasonSilence, 7) }, answered, 0},
		"beside an offer, without, greater": {6, 1, ReasonDial, func(p *Peer) { alone(p); under(p, ReasonDial, 7); greater(p, true) }, aside, 0},
		"beside an offer, without, lesser":  {6, 1, ReasonDial, func(p *Peer) { alone(p); under(p, ReasonDial, 7); greater(p, false) }, answered, 0},
		"beside nothing, without, greater":  {6, 1, ReasonDial, func(p *Peer) { alone(p); greater(p, true) }, answered, 0},
	} {
		p, _ := metPeer(t, 5)
		refusedWith(p.node)
		if c.change != nil {
			c.change(p)
		}
		before := len(p.attempts)
		v := wished(signaling.Offer, c.why, c.generation, c.instance)
		v.Key = p.Key()
		p.offered(v)
		got := over
		codes := refusedWith(p.node)
		switch {
		case p.deferred != nil:
			got = aside
		case len(p.attempts) > before: // whatever becomes of it
			got = answered
		case len(codes) > 0:
			got = refused
		}
		if got != c.want || got == refused && (len(codes) != 1 || codes[0] != c.code) {
			t.Errorf("%s: %s with %v", name, got, codes)
		}
		if got == answered {
			a := p.attempts[len(p.attempts)-1]
			if a.offerer || a.answers != v.Sealed || a.order != (order{c.generation, v.Key}) || a.known != v.Hash() {
				t.Errorf("%s: %+v", name, a.order)
			}
		}
		if p.lastGen < c.generation {
			t.Errorf("%s: the generation was not noted", name)
		}
		if got == aside && !p.deferred.at.After(time.Now()) {
			t.Errorf("%s: until %v", name, p.deferred.at)
		}
		p.deferred, p.sessions = nil, nil
		p.setTop()
	}
}

// fill has as many attempts under way as there may be, above whatever comes.
func fill(p *Peer) {
	for i := range maxAttempts {
		under(p, ReasonSilence, uint64(100+i))
	}
}

// alone takes the sessions away.
func alone(p *Peer) {
	p.sessions = nil
	p.setTop()
	p.machine.met = false
}

// greater makes the other side's key lesser or greater than this side's.
func greater(p *Peer, is bool) {
	own := p.node.cfg.Identity.PublicKey()
	for {
		k := p.key
		if !k.IsZero() && own.Compare(k) > 0 == is && own.Compare(k) != 0 {
			return
		}
		p.key = keyOfNobody()
	}
}

// TestOfferEndsAttempts: an offer makes what its author began before pointless, but not
// what has opened, nor a standby for a try of a direct path.
func TestOfferEndsAttempts(t *testing.T) {
	for name, c := range map[string]struct {
		why    Reason // of the offer, of generation 6
		change func(a *attempt)
		gone   bool
	}{
		"an answer to an older offer":        {ReasonSilence, func(*attempt) {}, true},
		"an answer that has opened":          {ReasonSilence, func(a *attempt) { a.opened.Store(true) }, false},
		"an answer to a newer offer":         {ReasonSilence, func(a *attempt) { a.order.generation = 7 }, false},
		"an answer to another process":       {ReasonSilence, func(a *attempt) { a.answers.Instance = signaling.Instance{9} }, false},
		"an answer to another key":           {ReasonSilence, func(a *attempt) { a.answers.Key = keyOfNobody() }, false},
		"an ask":                             {ReasonSilence, func(a *attempt) { a.asks, a.answers = true, nil }, true},
		"an offer of one's own":              {ReasonSilence, func(a *attempt) { a.offerer, a.answers = true, nil }, false},
		"an answer, for a standby":           {ReasonStandby, func(*attempt) {}, false},
		"a standby, for a standby":           {ReasonStandby, func(a *attempt) { a.why = ReasonStandby }, true},
		"a standby, for a direct path":       {ReasonDirectPath, func(a *attempt) { a.why = ReasonStandby }, false},
		"an answer, for a direct path":       {ReasonDirectPath, func(*attempt) {}, true},
		"a standby, for something else":      {ReasonSilence, func(a *attempt) { a.why = ReasonStandby }, true},
		"a standby that is about to be used": {ReasonStandby, func(a *attempt) { a.why, a.taking = ReasonStandby, true }, false},
	} {
		p, _ := metPeer(t, 3)
		a, gone := under(p, ReasonSilence, 5)
		v := wished(signaling.Offer, c.why, 6, 1)
		v.Key = p.Key()
		older := *v.Sealed
		a.offerer, a.answers, a.order.offerer = false, &older, v.Key
		c.change(a)
		refusedWith(p.node)
		p.offered(v)
		if gone() != c.gone {
			t.Errorf("%s: given up %v", name, gone())
		}
		codes := refusedWith(p.node)
		if told := slices.Contains(codes, rejectBusy); told != (c.gone && a.why == ReasonStandby) {
			t.Errorf("%s: told with %v", name, codes)
		}
		p.sessions = nil
		p.setTop()
	}
}

// TestAsked: what an ask for an offer above generation 5 leads to.
func TestAsked(t *testing.T) {
	const offers, repeats, over, refused = "offers", "repeats", "passed over", "refused"
	for name, c := range map[string]struct {
		why    Reason
		inst   byte
		change func(p *Peer)
		want   string
		code   rejectCode
		as     Reason
	}{
		"greater":                          {ReasonSilence, 1, func(p *Peer) { greater(p, true) }, offers, 0, ReasonSilence},
		"lesser":                           {ReasonSilence, 1, func(p *Peer) { greater(p, false) }, over, 0, 0},
		"there is a session above":         {ReasonSilence, 1, func(p *Peer) { greater(p, true); p.sessions[0].order.generation = 6 }, over, 0, 0},
		"of another process":               {ReasonSilence, 2, func(p *Peer) { greater(p, true); p.sessions[0].order.generation = 6 }, offers, 0, ReasonSilence},
		"of a process that was replaced":   {ReasonSilence, 3, func(p *Peer) { p.led.refused = append(p.led.refused, signaling.Instance{3}) }, refused, rejectReplaced, 0},
		"an offer above is under way":      {ReasonSilence, 1, func(p *Peer) { greater(p, true); under(p, ReasonLost, 6) }, repeats, 0, 0},
		"an offer not above is under way":  {ReasonSilence, 1, func(p *Peer) { greater(p, true); under(p, ReasonLost, 5) }, offers, 0, ReasonSilence},
		"a standby is under way":           {ReasonSilence, 1, func(p *Peer) { greater(p, true); under(p, ReasonStandby, 6) }, offers, 0, ReasonSilence},
		"a direct path is tried":           {ReasonSilence, 1, func(p *Peer) { greater(p, true); under(p, ReasonDirectPath, 6) }, offers, 0, ReasonSilence},
		"a direct path is tried and asked": {ReasonDirectPath, 1, func(p *Peer) { greater(p, true); under(p, ReasonDirectPath, 6) }, repeats, 0, 0},
		"too many lately":                  {ReasonSilence, 1, func(p *Peer) { greater(p, true); p.theirs.SetLimit(0); p.theirs.SetBurst(0) }, refused, rejectBusy, 0},
		"a direct path, relays only":       {ReasonDirectPath, 1, func(p *Peer) { greater(p, true); p.node.cfg.Paths.RelayOnly = true }, refused, rejectBusy, 0},
		"for a standby":                    {ReasonStandby, 1, func(p *Peer) { greater(p, true) }, offers, 0, ReasonRequested},
		"because it answers":               {ReasonAnswers, 1, func(p *Peer) { greater(p, true) }, offers, 0, ReasonRequested},
		"because it ended":                 {ReasonEnded, 1, func(p *Peer) { greater(p, true) }, offers, 0, ReasonRequested},
		"because it failed":                {ReasonFailed, 1, func(p *Peer) { greater(p, true) }, offers, 0, ReasonRequested},
		"nothing known of before":          {ReasonLost, 1, func(p *Peer) { alone(p); greater(p, false) }, offers, 0, ReasonLost},
		"that, and too many at once":       {ReasonLost, 1, func(p *Peer) { alone(p); fillBelow(p) }, over, 0, 0},
	} {
		p, _ := metPeer(t, 5)
		c.change(p)
		var was []*attempt
		was = append(was, p.attempts...)
		refusedWith(p.node)
		v := wished(signaling.Ask, c.why, 5, c.inst)
		v.Key = p.Key()
		p.asked(v)
		codes := refusedWith(p.node)
		got := over
		var made *attempt
		for _, a := range p.attempts {
			known := false
			for _, w := range was {
				known = known || w == a
			}
			if !known && a.offerer {
				made = a
			}
		}
		switch {
		case made != nil:
			got = offers
		case len(codes) > 0:
			got = refused
		case len(was) > 0 && len(was[0].nudge) > 0:
			got = repeats
		}
		if got != c.want || got == refused && codes[0] != c.code || got == offers && (made.why != c.as || made.order.generation <= 5) {
			t.Errorf("%s: %s with %v", name, got, codes)
		}
		p.giveUp(func(*attempt) bool { return true })
		p.sessions = nil
		p.setTop()
	}
	// What is no ask is none, and ends a Peer that only it made.
	for _, met := range []bool{true, false} {
		p := stillPeer(t)
		p.machine.met = met
		v := wished(signaling.Ask, ReasonLost, 5, 1)
		v.Body = []byte{0xff}
		if p.asked(v); len(p.attempts) != 0 || (p.ctx.Err() == nil) != met {
			t.Errorf("met %v: %d attempts, %v", met, len(p.attempts), p.ctx.Err())
		}
	}
}

// fillBelow has as many attempts under way as there may be, none of them an offer above 5.
func fillBelow(p *Peer) {
	for i := range maxAttempts {
		a, _ := under(p, ReasonSilence, uint64(i))
		a.offerer = false
	}
}
