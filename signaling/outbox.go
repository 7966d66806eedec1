package signaling

import (
	"sync"

	"github.com/infrafabric/agentmesh/keys"
)

// outbox is the bounded queue of what a server sends to one client. Changes of
// presence are joined into batches while they wait, so that a mesh which fills
// at once does not fill the queues of all its members.
type outbox struct {
	maxItems int

	mu       sync.Mutex
	items    []outItem
	bytes    int
	senders  map[keys.PublicKey]int // envelopes waiting, by author
	finished bool
	wake     chan struct{} // holds a token when there is something new
	room     chan struct{} // closed when there may be room for an envelope; nil while nobody waits
}

// outItem is an encoded message, or presence when agents is not empty.
type outItem struct {
	msg    []byte
	sender keys.PublicKey // of an envelope
	change uint64
	agents []presentAgent
}

func newOutbox(maxItems int) *outbox {
	return &outbox{maxItems: maxItems, senders: make(map[keys.PublicKey]int), wake: make(chan struct{}, 1)}
}

// push appends a message. It reports false when the queue is full. A finished queue
// takes nothing and is not full: that is nobody's fault.
func (o *outbox) push(msg []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.add(outItem{msg: msg}, len(msg))
}

// pushEnvelope appends an envelope message unless the queue, or its author's
// share of it, is full; half of the queue stays free for what the server itself
// has to say. If it reports false, room is closed when another attempt may
// succeed, and nil when none ever will.
func (o *outbox) pushEnvelope(msg []byte, sender keys.PublicKey) (ok bool, room <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.finished {
		return false, nil
	}
	if o.senders[sender] >= max(1, o.maxItems/senderShare) || len(o.items) >= (o.maxItems+1)/2 ||
		o.bytes+len(msg) > outboxBytes/2 {
		if o.room == nil {
			o.room = make(chan struct{})
		}
		return false, o.room
	}
	o.add(outItem{msg: msg, sender: sender}, len(msg))
	o.senders[sender]++
	return true, nil
}

// pushPresence appends a change of presence; it reports what push does.
func (o *outbox) pushPresence(change uint64, a presentAgent) bool {
	size := len(a.Agent) + len(a.Key) + 8
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.items); n > 0 && !o.finished {
		last := &o.items[n-1]
		if last.change == change && len(last.agents) < MaxPresenceBatch && o.bytes+size <= outboxBytes {
			last.agents = append(last.agents, a)
			o.bytes += size
			return true
		}
	}
	return o.add(outItem{change: change, agents: []presentAgent{a}}, size)
}

// finish takes nothing more; last, if not nil, is still sent although the queue
// may be full.
func (o *outbox) finish(last []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.finished {
		return
	}
	if last != nil {
		o.items = append(o.items, outItem{msg: last})
		o.bytes += len(last)
	}
	o.finished = true
	o.signal()
	o.makeRoom()
}

// makeRoom wakes who waits for room; o.mu is held.
func (o *outbox) makeRoom() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// next removes the first message. Without one it returns nil and whether the
// queue is finished.
func (o *outbox) next() (msg []byte, finished bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.items) == 0 {
		return nil, o.finished
	}
	defer o.makeRoom()
	it := o.items[0]
	o.items[0] = outItem{}
	o.items = o.items[1:]
	if len(it.agents) > 0 {
		for _, a := range it.agents {
			o.bytes -= len(a.Agent) + len(a.Key) + 8
		}
		return encode(&presenceMsg{Version: version, Type: typePresence, Change: it.change, Agents: it.agents}), false
	}
	o.bytes -= len(it.msg)
	if !it.sender.IsZero() {
		if o.senders[it.sender]--; o.senders[it.sender] == 0 {
			delete(o.senders, it.sender)
		}
	}
	return it.msg, false
}

// add appends an item if there is room; o.mu is held.
func (o *outbox) add(it outItem, size int) bool {
	switch {
	case o.finished:
		return true
	case len(o.items) >= o.maxItems || o.bytes+size > outboxBytes:
		return false
	}
	o.items = append(o.items, it)
	o.bytes += size
	o.signal()
	return true
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}
