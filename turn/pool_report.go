package turn

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/witness"
)

// What changes the health of an endpoint, and who hears of it. All of it runs in
// the loop.

func (m *member) label() metric.MeasurementOption {
	return metric.WithAttributes(metrics.Server.String(m.address.url))
}

// appeared begins the measurements of m: 0 and not nothing.
func (p *Pool) appeared(m *member) {
	p.ins.TURNServerHealthy.Add(context.Background(), 0, m.label())
}

// vanished ends them.
func (p *Pool) vanished(m *member) {
	if m.breaker.health == Healthy {
		p.ins.TURNServerHealthy.Add(context.Background(), -1, m.label())
	}
}

// passed notes a probe that passed.
func (p *Pool) passed(now instant, m *member, at netip.Addr, latency time.Duration) {
	p.ins.TURNProbe.Record(context.Background(), float64(latency)/float64(time.Millisecond), m.label())
	m.err = nil
	moved := m.at != at
	if moved && m.at.IsValid() {
		p.cfg.Logger.Info("TURN server is used at another address", "server", m.URL, "from", m.at, "to", at)
	}
	m.at = at
	if m.breaker.pass(now.mono) {
		m.latency = latency
		p.loop.order = append(p.loop.order, m)
		p.ins.TURNServerHealthy.Add(context.Background(), 1, m.label())
		p.cfg.Logger.Info("TURN server is healthy", "server", m.URL, "latency", latency)
		p.record(witness.TURNServerHealthCheckSuccess, witness.Info, map[string]any{
			"url": m.URL, "latency_ms": float64(latency) / float64(time.Millisecond),
		}, "")
	} else if moved {
		m.latency = latency
	} else {
		m.latency = smooth(m.latency, latency)
	}
	p.loop.order = reorder(p.loop.order, func(m *member) time.Duration { return m.latency })
	p.chosen()
}

// failed notes a probe that failed, or that there is nothing to probe with.
func (p *Pool) failed(now instant, m *member, err error, atOnce bool) {
	m.err = err
	was := m.breaker.health
	if !m.breaker.fail(now.mono, p.cfg.Failures, atOnce) {
		p.cfg.Logger.Debug("TURN probe failed", "server", m.URL, "error", err)
		return
	}
	if was == Healthy {
		p.loop.order = slices.DeleteFunc(p.loop.order, func(o *member) bool { return o == m })
		p.ins.TURNServerHealthy.Add(context.Background(), -1, m.label())
	}
	p.cfg.Logger.Warn("TURN server is unhealthy", "server", m.URL, "error", err)
	p.record(witness.TURNServerMarkedUnhealthy, witness.Warning, map[string]any{"url": m.URL, "error": err.Error()}, "")
	p.chosen()
}

// chosen reports when another endpoint became the first choice because the one
// before it failed, and when none is usable.
func (p *Pool) chosen() {
	ranked := p.ranking(p.now())
	if len(ranked) == 0 || ranked[0].breaker.health == Unhealthy {
		n := len(p.loop.members)
		if p.loop.alone() && !p.loop.dark && n > 0 {
			p.cfg.Logger.Error("no TURN server is usable", "servers", n)
			p.record(witness.AllTURNServersUnhealthy, witness.Critical, map[string]any{"servers": n}, "")
		}
		p.loop.dark = p.loop.dark || p.loop.alone() && n > 0
		return
	}
	p.loop.dark = false
	from, to := p.loop.first, ranked[0]
	p.loop.first = to
	if from == nil || from == to || from.breaker.health != Unhealthy {
		return
	}
	id := make([]byte, 8)
	rand.Read(id) // never fails
	p.cfg.Logger.Warn("TURN failover", "from", from.URL, "to", to.URL)
	p.record(witness.TURNServerFailover, witness.Warning, map[string]any{"from": from.URL, "to": to.URL}, hex.EncodeToString(id))
}

// record queues an event for the Recorder: one that blocks, against its contract, must
// not hold up the loop.
func (p *Pool) record(name witness.Name, severity witness.Severity, meta map[string]any, failover string) {
	select {
	case p.events <- witness.Event{
		Name: name, Time: p.cfg.Time().Round(0), AgentID: p.cfg.AgentID, Severity: severity, Metadata: meta, FailoverID: failover,
	}:
	default:
		p.cfg.Logger.Warn("the Recorder is too slow, an event is lost", "event", name)
	}
}

// tell hands the events to the Recorder, in order, until the loop has ended; those
// that wait then, for a moment only.
func (p *Pool) tell() {
	var end time.Time
	for e := range p.events {
		if p.ctx.Err() != nil {
			if end.IsZero() {
				end = time.Now().Add(eventsWait)
			}
			if time.Now().After(end) {
				continue
			}
		}
		p.cfg.Recorder.Record(context.Background(), e)
	}
}

// ranking is what Rank answers.
func (p *Pool) ranking(now instant) []*member {
	var out, others []*member
	usable := func(m *member) bool { return m.renewal.usable(now) }
	for _, m := range p.loop.order {
		if usable(m) {
			out = append(out, m)
		}
	}
	for _, m := range p.loop.members {
		if m.breaker.health != Healthy && usable(m) {
			others = append(others, m)
		}
	}
	slices.SortFunc(others, func(a, b *member) int { return compareOthers(a.standing(), b.standing()) })
	return append(out, others...)
}

func (m *member) standing() standing {
	b := m.breaker
	return standing{
		health: b.health, since: b.since, proven: b.proven, serial: m.serial,
		refused: m.err != nil && !isSilence(m.err),
	}
}

// publish makes what Rank, Changed and Status answer.
func (p *Pool) publish(now instant) {
	ranked := p.ranking(now)
	relays := make([]Relay, len(ranked))
	for i, m := range ranked {
		relays[i] = m.relay()
	}
	settled, alone := true, p.loop.alone()
	urls := map[string]bool{}
	status := make([]Status, len(p.loop.members))
	for i, m := range p.loop.members {
		settled = settled && m.renewal.asked
		urls[m.address.url] = true
		status[i] = p.status(now, m, alone)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := settled != p.view.settled || !slices.EqualFunc(relays, p.view.relays, sameRelay)
	p.view.relays, p.view.status, p.view.urls, p.view.settled = relays, status, urls, settled
	if changed {
		close(p.view.changed)
		p.view.changed = make(chan struct{})
	}
}

func sameRelay(a, b Relay) bool {
	return a.URL == b.URL && a.Address == b.Address && a.Username == b.Username && a.Password == b.Password && a.Expires.Equal(b.Expires) && a.Down == b.Down && a.TLS == b.TLS
}

func (p *Pool) status(now instant, m *member, alone bool) Status {
	s := Status{
		URL: m.URL, Address: m.at, Health: m.breaker.health, Since: m.breaker.since, Latency: m.latency,
		Failures: m.breaker.failures, Err: m.err, Expires: m.renewal.cred.Expires,
	}
	if m.err != nil {
		s.Error = m.err.Error()
	}
	if m.cancel == nil && m.renewal.usable(now) {
		s.NextProbe = m.due(p.cfg.ProbeEvery, alone)
	}
	return s
}
