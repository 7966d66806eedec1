package signaling

import (
	"cmp"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/infrafabric/agentmesh/keys"
)

// registry knows who is registered where. Its lock is a leaf: nothing else is
// locked, called or waited for under it but outboxes.
type registry struct {
	mu     sync.Mutex
	realms map[string]*realm
	remote int // entries with remote set
	local  int // entries with local set
}

// realm is one mesh.
type realm struct {
	agents map[string]map[keys.PublicKey]*entry
	conns  map[*conn]struct{} // who is told of changes
}

// entry is one registration; it is dropped when it is neither local nor remote.
type entry struct {
	local  *conn
	remote bool // at another server
}

func newRegistry() *registry { return &registry{realms: make(map[string]*realm)} }

// entry returns the entry of r, making it if it is missing.
func (g *registry) entry(r Registration) (*realm, *entry) {
	m := g.realms[r.Mesh]
	if m == nil {
		m = &realm{agents: make(map[string]map[keys.PublicKey]*entry), conns: make(map[*conn]struct{})}
		g.realms[r.Mesh] = m
	}
	byKey := m.agents[r.Agent]
	if byKey == nil {
		byKey = make(map[keys.PublicKey]*entry)
		m.agents[r.Agent] = byKey
	}
	e := byKey[r.Key]
	if e == nil {
		e = new(entry)
		byKey[r.Key] = e
	}
	return m, e
}

// drop removes the entry of r, and what it was the last of, if it is empty.
func (g *registry) drop(r Registration) {
	m := g.realms[r.Mesh]
	if e := m.agents[r.Agent][r.Key]; e != nil && e.local == nil && !e.remote {
		delete(m.agents[r.Agent], r.Key)
		if len(m.agents[r.Agent]) == 0 {
			delete(m.agents, r.Agent)
		}
	}
	if len(m.agents) == 0 && len(m.conns) == 0 {
		delete(g.realms, r.Mesh)
	}
}

// add registers c, gives it the snapshot of its mesh and tells the others. It
// returns the connection that c replaces, if there is one. It reports false, and
// has done nothing, when that is another instance's and c yields.
func (g *registry) add(c *conn) (replaced *conn, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, e := g.entry(c.reg)
	replaced = e.local
	if replaced != nil && c.yields && replaced.instance != c.instance {
		return nil, false
	}
	if replaced != nil {
		delete(m.conns, replaced)
	} else {
		g.local++
	}
	e.local = c
	m.snapshot(c)
	if replaced == nil && !e.remote {
		m.tell(joined, c.reg)
	}
	m.conns[c] = struct{}{}
	return replaced, true
}

// remove reports whether c was still the registered connection.
func (g *registry) remove(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, e := g.entry(c.reg)
	defer g.drop(c.reg)
	delete(m.conns, c)
	if e.local != c {
		return false
	}
	e.local = nil
	g.local--
	if !e.remote {
		m.tell(left, c.reg)
	}
	return true
}

// setRemote notes what other servers announce. It reports false when there is
// no room.
func (g *registry) setRemote(r Registration, present bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if present && g.remote >= MaxRemote {
		return false
	}
	m, e := g.entry(r)
	defer g.drop(r)
	if e.remote == present {
		return true
	}
	e.remote = present
	if present {
		g.remote++
	} else {
		g.remote--
	}
	if e.local == nil {
		change := uint64(joined)
		if !present {
			change = left
		}
		m.tell(change, r)
	}
	return true
}

// isLocal reports whether r is registered at this server.
func (g *registry) isLocal(r Registration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.realms[r.Mesh]
	return m != nil && m.agents[r.Agent][r.Key] != nil && m.agents[r.Agent][r.Key].local != nil
}

// snapshot tells c who is there.
func (m *realm) snapshot(c *conn) {
	n := 0
	for agent, byKey := range m.agents {
		for key := range byKey {
			if agent == c.reg.Agent && key == c.reg.Key {
				continue
			}
			if n++; n > MaxPresenceSnapshot || !c.out.pushPresence(joined, presentAgent{Agent: agent, Key: key.Bytes()}) {
				return
			}
		}
	}
}

// tell sends a change to every connection of the mesh.
func (m *realm) tell(change uint64, r Registration) {
	a := presentAgent{Agent: r.Agent, Key: r.Key.Bytes()}
	for c := range m.conns {
		if !c.out.pushPresence(change, a) {
			c.slow()
		}
	}
}

// recipient is where an envelope goes: to a connection here or, if conn is
// nil, to another server.
type recipient struct {
	reg  Registration
	conn *conn
}

// find returns the recipients of an envelope to (mesh, agent, key), where the
// zero key stands for any, in random order and at most MaxRecipients.
func (g *registry) find(mesh, agent string, key keys.PublicKey) []recipient {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.realms[mesh]
	if m == nil {
		return nil
	}
	var out []recipient
	for k, e := range m.agents[agent] {
		if key.IsZero() || k == key {
			out = append(out, recipient{Registration{mesh, agent, k}, e.local})
		}
	}
	mathrand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(len(out), MaxRecipients)]
}

// listing is what /stats and /agents show.
type listing struct {
	conns  []*conn // by mesh, name and key, at most MaxListed
	total  int     // connections
	agents int     // names
}

// list returns the local connections of a mesh, or of all if mesh is empty.
func (g *registry) list(mesh string) listing {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out listing
	for name, m := range g.realms {
		if mesh != "" && name != mesh {
			continue
		}
		for _, byKey := range m.agents {
			before := len(out.conns)
			for _, e := range byKey {
				if e.local != nil {
					out.conns = append(out.conns, e.local)
				}
			}
			if len(out.conns) > before {
				out.agents++
			}
		}
	}
	slices.SortFunc(out.conns, func(a, b *conn) int {
		return cmp.Or(strings.Compare(a.reg.Mesh, b.reg.Mesh),
			strings.Compare(a.reg.Agent, b.reg.Agent), a.reg.Key.Compare(b.reg.Key))
	})
	out.total = len(out.conns)
	out.conns = out.conns[:min(out.total, MaxListed)]
	return out
}
