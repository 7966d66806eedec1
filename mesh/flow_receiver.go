package mesh

// receiver is the receiving half of a flow: which record comes next, what was
// delivered, how much may come. It is pure, like sender; it counts records and
// does not hold them.
//
// A receiver has no state until the first record or skip. Then records are
// contiguous: a repeated one is dropped, a gap is the sender's error. Only an
// explicit skip moves on, and only forward: the sender has reported what it
// passes over, or a former instance of this agent has delivered it.
type receiver struct {
	flow    uint64
	window  uint64
	reserve uint64 // bytes of the window that what came in another flow's place still takes
	granted bool   // some of them have become free

	known        bool   // a record or a skip has come
	received     uint64 // every number up to it has come or was passed over
	receivedEnd  uint64 // bytes of all records up to received
	delivered    uint64
	deliveredEnd uint64
	credit       uint64 // bytes granted

	marks []mark // received and not delivered, in order
}

// mark is a place between received and delivered: a record that waits for the
// application, or a skip that waits for the records before it.
type mark struct {
	number, end uint64
	skip        bool
}

// newReceiver makes one that shares its window with reserve bytes of a former
// one.
func newReceiver(flow, window, reserve uint64) receiver {
	reserve = min(reserve, window)
	return receiver{flow: flow, window: window, reserve: reserve, credit: window - reserve}
}

// release frees bytes of the reserve.
func (r *receiver) release(n uint64) {
	r.reserve -= min(n, r.reserve)
	r.grant()
}

// grant raises the credit to what the window allows.
func (r *receiver) grant() {
	if c := r.deliveredEnd + r.window - r.reserve; c > r.credit {
		r.credit, r.granted = c, true
	}
}

// retract takes back that anything was received that was not delivered: it
// shall come again.
func (r *receiver) retract() {
	r.received, r.receivedEnd, r.marks = r.delivered, r.deliveredEnd, nil
}

// record judges the record with that number and length. It reports whether
// the record is new; a repeated one is not.
func (r *receiver) record(number uint64, data []byte) (fresh bool, err error) {
	switch {
	case number == 0:
		return false, protocolErrorf("flow %d: record 0", r.flow)
	case number <= r.received:
		return false, nil
	case number != r.received+1:
		return false, protocolErrorf("flow %d: record %d after %d", r.flow, number, r.received)
	}
	end := r.receivedEnd + recordSize(data)
	if end > r.credit {
		return false, protocolErrorf("flow %d: record %d exceeds the credit by %d bytes", r.flow, number, end-r.credit)
	}
	r.known = true
	r.received, r.receivedEnd = number, end
	r.marks = append(r.marks, mark{number: number, end: end})
	return true, nil
}

// skipTo moves to just before number, whose predecessors count offset bytes.
// Records received before stay to be delivered.
func (r *receiver) skipTo(number, offset uint64) error {
	if number == 0 {
		return protocolErrorf("flow %d: skip to record 0", r.flow)
	}
	if number <= r.received+1 {
		return nil // nothing is passed over
	}
	if offset < r.receivedEnd || offset > maxOffset {
		return protocolErrorf("flow %d: skip to byte %d from %d", r.flow, offset, r.receivedEnd)
	}
	r.known = true
	r.received, r.receivedEnd = number-1, offset
	m := mark{number: number - 1, end: offset, skip: true}
	if n := len(r.marks); n > 0 && r.marks[n-1].skip {
		r.marks[n-1] = m // skips cost no credit: a row of them counts as one
	} else {
		r.marks = append(r.marks, m)
	}
	r.settle()
	return nil
}

// deliver notes that the application has taken the record with that number.
// Records are delivered in order.
func (r *receiver) deliver(number uint64) {
	for len(r.marks) > 0 && r.marks[0].number <= number {
		r.advance()
	}
	r.settle()
}

// settle delivers the skips that stand first: no application waits for them.
func (r *receiver) settle() {
	for len(r.marks) > 0 && r.marks[0].skip {
		r.advance()
	}
}

func (r *receiver) advance() {
	m := r.marks[0]
	r.marks = r.marks[1:]
	r.delivered, r.deliveredEnd = m.number, m.end
	r.grant()
}

// position is what the sender is told; ok is false when there is nothing that a
// hello does not say.
func (r *receiver) position() (p position, ok bool) {
	return position{Flow: r.flow, Received: r.received, Delivered: r.delivered, Credit: r.credit}, r.known || r.granted
}
