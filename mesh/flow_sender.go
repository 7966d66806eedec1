package mesh

import "time"

// sender is the sending half of a flow: which numbers exist, which copies are
// kept, what may travel now. It is pure: no clock, no lock, no network. The
// ledger owns it.
//
// Numbers:    1 … delivered │ base … cursor-1 │ cursor … next-1 │ next
//
//	gone          on their way      waiting for      the next
//	              (copies held)     credit or a      record
//	                                session
type sender struct {
	flow   uint64
	window uint64 // most bytes of held copies
	theirs uint64 // the receiver's window
	known  bool   // it is

	next uint64 // number of the next record
	end  uint64 // bytes of all records before next

	held  []heldRecord // numbers base … next-1
	bytes uint64       // of held

	cursor uint64 // next number to travel
	high   uint64 // highest number that ever travelled to this receiver
	acked  uint64 // highest number that it says it has received
	credit uint64 // byte count the receiver allows
	skip   bool   // a skip must travel before the next record
}

// heldRecord is a record kept until the receiver has delivered it.
type heldRecord struct {
	id   string
	data []byte    // nil for one that was given up: a skip passes over its number
	end  uint64    // bytes of all records up to and with this one
	at   time.Time // when it was accepted; only measured, never decided on
}

// recordSize is what a record counts for in windows and credit.
func recordSize(data []byte) uint64 { return uint64(len(data)) + recordOverhead }

// newSender starts numbering after floor, and counting bytes there, so that
// numbers are never used twice even if an earlier sender was forgotten.
func newSender(flow, window, floor, floorBytes uint64) sender {
	return sender{flow: flow, window: window, next: floor + 1, end: floorBytes,
		cursor: floor + 1, high: floor, skip: floor > 0}
}

// base is the lowest number held, or next.
func (s *sender) base() uint64 { return s.next - uint64(len(s.held)) }

// baseBytes counts the bytes of all records before base.
func (s *sender) baseBytes() uint64 { return s.end - s.bytes }

// fits reports whether a record of that length may be accepted now, with room
// beside the window for that many bytes.
func (s *sender) fits(length int, room uint64) bool {
	return s.bytes+uint64(length)+recordOverhead <= s.window+room
}

// limit says by which limit a record of that length can never travel, nil if by
// none.
func (s *sender) limit(length int) error {
	size := uint64(length) + recordOverhead
	switch {
	case length > MaxMessage:
		return &TooLargeError{What: "MaxMessage", Size: uint64(length), Limit: MaxMessage}
	case size > s.window:
		return &TooLargeError{What: "this side's Window", Size: size, Limit: s.window}
	case s.known && size > s.theirs:
		return &TooLargeError{What: "the other side's Window", Size: size, Limit: s.theirs}
	}
	return nil
}

// push accepts the record with number next; fits said yes.
func (s *sender) push(id string, data []byte, at time.Time) {
	size := recordSize(data)
	s.end += size
	s.bytes += size
	s.held = append(s.held, heldRecord{id: id, data: data, end: s.end, at: at})
	s.next++
}

// resume moves to a new session. pos is what the receiver's hello says of this
// flow, nil when it holds no state; sameReceiver tells whether it is the
// instance that the sender spoke with before; credit is that of a flow without
// state. It returns the records that were delivered, as position does,
// and the IDs of those whose outcome can no longer be known: a receiver that
// forgot may have delivered them.
func (s *sender) resume(pos *position, sameReceiver bool, credit uint64) (delivered []heldRecord, unknown []string, err error) {
	if pos != nil {
		if !sameReceiver {
			return nil, nil, protocolErrorf("flow %d: a new receiver states a position", s.flow)
		}
		if delivered, err = s.position(*pos); err != nil {
			return nil, nil, err
		}
		s.cursor = max(pos.Received+1, s.base())
		s.skip = pos.Received+1 < s.base()
		s.acked = s.cursor - 1
		return delivered, nil, nil
	}
	if n := s.high + 1 - s.base(); sameReceiver && s.high >= s.base() {
		unknown = takeIDs(s.drop(int(n)))
	}
	s.cursor = s.base()
	s.high, s.acked = s.cursor-1, s.cursor-1
	s.credit = s.baseBytes() + credit
	s.skip = s.cursor > 1
	return nil, unknown, nil
}

// position merges what the receiver says and returns the records that were
// delivered, for the caller to look at and clear.
func (s *sender) position(p position) (delivered []heldRecord, err error) {
	switch {
	case p.Received > s.high:
		return nil, protocolErrorf("flow %d: received %d of %d sent", s.flow, p.Received, s.high)
	case p.Delivered > p.Received:
		return nil, protocolErrorf("flow %d: delivered %d of %d received", s.flow, p.Delivered, p.Received)
	}
	s.credit = max(s.credit, p.Credit)
	s.acked = max(s.acked, p.Received)
	if p.Delivered >= s.base() {
		delivered = s.drop(int(p.Delivered - s.base() + 1))
	}
	return delivered, nil
}

// receiver notes the receiver's window and gives up the held records that are
// larger. It returns their IDs.
func (s *sender) receiver(window uint64) (oversized []string) {
	s.theirs, s.known = window, true
	for i := range s.held {
		if r := &s.held[i]; r.data != nil && recordSize(r.data) > window {
			oversized = append(oversized, r.id)
			r.data = nil
		}
	}
	return oversized
}

// drop lets go of the first n held records and returns them; clearing them
// frees their memory before the array itself goes.
func (s *sender) drop(n int) []heldRecord {
	s.bytes = s.end - s.held[n-1].end
	gone := s.held[:n:n]
	s.held = s.held[n:]
	s.cursor = max(s.cursor, s.base())
	return gone
}

// travel returns the records that may be sent now, at most count and about
// size bytes (at least one record if any may go), and the skip that must
// precede them. A skip needs no credit: the bytes it passes over may be just
// what the credit is waiting for.
func (s *sender) travel(count, size int) (skip *skipFrame, recs [][]byte) {
	if len(s.held) == 0 {
		return nil, nil
	}
	for s.cursor < s.next && s.held[s.cursor-s.base()].data == nil {
		s.cursor++
		s.skip = true
	}
	if s.skip {
		s.skip = false
		s.high = max(s.high, s.cursor-1) // the receiver will state it
		skip = &skipFrame{Flow: s.flow, Number: s.cursor, Offset: s.cursorBytes()}
	}
	for total := 0; s.ready() && len(recs) < count; {
		data := s.held[s.cursor-s.base()].data
		total += len(data) + 4 // with the head of the byte string
		if data == nil || len(recs) > 0 && total > size {
			break
		}
		recs = append(recs, data)
		s.high = max(s.high, s.cursor)
		s.cursor++
	}
	return skip, recs
}

// cursorBytes counts the bytes of all records before the cursor.
func (s *sender) cursorBytes() uint64 {
	if i := s.cursor - s.base(); i > 0 {
		return s.held[i-1].end
	}
	return s.baseBytes()
}

// ready reports whether the record at the cursor exists and has credit, or
// is to be passed over.
func (s *sender) ready() bool {
	i := s.cursor - s.base()
	return i < uint64(len(s.held)) && (s.held[i].data == nil || s.held[i].end <= s.credit)
}

// outstanding reports whether records are on their way: they have travelled by
// the present session and are not acknowledged.
func (s *sender) outstanding() bool { return s.cursor > max(s.acked+1, s.base()) }

// waiting reports whether travel would return something.
func (s *sender) waiting() bool { return len(s.held) > 0 && (s.skip || s.ready()) }

// abandon gives up every held record and returns their IDs. Their numbers are
// not used again: the next session begins with a skip.
func (s *sender) abandon() []string {
	if len(s.held) == 0 {
		return nil
	}
	s.skip = true
	return takeIDs(s.drop(len(s.held)))
}

// takeIDs returns the records' IDs and clears them. Those that were given up
// before are not named again.
func takeIDs(gone []heldRecord) []string {
	ids := make([]string, 0, len(gone))
	for _, r := range gone {
		if r.data != nil {
			ids = append(ids, r.id)
		}
	}
	clear(gone)
	return ids
}
