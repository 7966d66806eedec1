package signaling

import (
	"fmt"
	"net"
	"sync"

	"github.com/infrafabric/agentmesh/keys"
)

// Registration is an agent's key under its name in a mesh. An agent may be
// registered at several servers, and with several keys.
type Registration struct {
	Mesh  string
	Agent string
	Key   keys.PublicKey
}

// Broker shares presence and routing between servers: agents registered at one
// reach those at another. It carries opaque envelopes and is trusted no more
// than a server: it can delay and drop.
//
// The interface asks for what publish-subscribe systems have. Over NATS, for
// example, Announce subscribes to a subject made from a hash of the
// registration and tells a common subject, Forward publishes to the
// registration's subject, and members beat so that others notice their death.
type Broker interface {
	// Join adds a server. Until the member is closed, h is told what the other
	// members announce, beginning with what they have announced already.
	Join(h BrokerHandler) (BrokerMember, error)
}

// BrokerMember is a server's place in a [Broker]. All methods may be called
// concurrently. After Close they return an error that matches [net.ErrClosed].
type BrokerMember interface {
	// Announce says whether r is registered at this server. Calls for one
	// registration come one after the other, each with the opposite of the
	// last value, beginning with true. An implementation repeats it on its own
	// while its transport is down.
	Announce(r Registration, present bool) error
	// Forward passes an envelope to another member that announced r: to at
	// least one if there is one and the transport works, at most once to
	// each, never to this member. It does not wait for the delivery. It must
	// not keep envelope.
	Forward(r Registration, envelope []byte) error
	// Close withdraws what this member announced and waits until its handler
	// is no longer called. It is idempotent.
	Close() error
}

// BrokerHandler is what a [Broker] calls. Its functions return quickly, do not
// call the broker, and may be called while the broker holds a lock.
type BrokerHandler struct {
	// Presence is called with true when r is announced by the first of the
	// other members and with false when the last of them withdraws it or dies;
	// for one registration in order and one call at a time.
	Presence func(r Registration, present bool)
	// Envelope is called with an envelope for r, which this member announced.
	// The bytes must not be changed and may be kept.
	Envelope func(r Registration, envelope []byte)
}

// NewBroker returns a broker for servers in one process. Closing all members
// is all the cleaning up it needs.
func NewBroker() Broker {
	return &memoryBroker{
		members:   make(map[*memoryMember]struct{}),
		announced: make(map[Registration]map[*memoryMember]struct{}),
	}
}

// memoryBroker implements Broker. What servers announce is bounded by their
// connections. Handlers are called with mu held, which orders their calls.
type memoryBroker struct {
	mu        sync.Mutex
	members   map[*memoryMember]struct{}
	announced map[Registration]map[*memoryMember]struct{}
}

type memoryMember struct {
	b *memoryBroker
	h BrokerHandler
}

func (b *memoryBroker) Join(h BrokerHandler) (BrokerMember, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := &memoryMember{b: b, h: h}
	b.members[m] = struct{}{}
	for r := range b.announced {
		h.Presence(r, true)
	}
	return m, nil
}

func (m *memoryMember) Announce(r Registration, present bool) error {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	if err := m.check("announce"); err != nil {
		return err
	}
	m.b.set(m, r, present)
	return nil
}

// set changes what m announces; b.mu is held.
func (b *memoryBroker) set(m *memoryMember, r Registration, present bool) {
	who := b.announced[r]
	if _, is := who[m]; is == present {
		return
	}
	if present {
		if who == nil {
			who = make(map[*memoryMember]struct{})
			b.announced[r] = who
		}
		who[m] = struct{}{}
	} else {
		delete(who, m)
		if len(who) == 0 {
			delete(b.announced, r)
		}
	}
	// Who sees a change: all others if m is the only one, and if one member is
	// beside m, that one.
	for other := range b.members {
		if other == m {
			continue
		}
		beside := len(who)
		if _, is := who[other]; is {
			beside--
		}
		if present && beside == 1 || !present && beside == 0 {
			other.h.Presence(r, present)
		}
	}
}

func (m *memoryMember) Forward(r Registration, envelope []byte) error {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	if err := m.check("forward"); err != nil {
		return err
	}
	for other := range m.b.announced[r] {
		if other != m {
			other.h.Envelope(r, append([]byte(nil), envelope...))
			break
		}
	}
	return nil
}

func (m *memoryMember) Close() error {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	if _, is := m.b.members[m]; !is {
		return nil
	}
	for r, who := range m.b.announced {
		if _, is := who[m]; is {
			m.b.set(m, r, false)
		}
	}
	delete(m.b.members, m)
	return nil
}

// check reports whether m is still a member; b.mu is held.
func (m *memoryMember) check(verb string) error {
	if _, is := m.b.members[m]; !is {
		return fmt.Errorf("signaling: broker: %s: %w", verb, net.ErrClosed)
	}
	return nil
}
