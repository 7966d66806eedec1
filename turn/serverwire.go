package turn

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// errFrame is what ends a TCP connection that does not speak the protocol.
var errFrame = errors.New("neither STUN nor a channel's data")

const (
	stunHeader    = 20 // RFC 8489 §5
	channelHeader = 4  // RFC 8656 §12.4
	magicCookie   = 0x2112a442
	typeData      = 0x0017 // Data indication, RFC 8656 §17
	attrIntegrity = 0x0008 // MESSAGE-INTEGRITY, RFC 8489 §14.5
	attrChannel   = 0x000c // CHANNEL-NUMBER, RFC 8656 §18.1
	attrData      = 0x0013 // DATA, RFC 8656 §18.4
)

// readFrame reads one message from a stream (RFC 8656 §12.5) into p and returns
// its size. Reading whole messages, and no more than fits, keeps what a client
// can make the server hold to one message.
func readFrame(r *bufio.Reader, p []byte) (int, error) {
	head, err := r.Peek(channelHeader)
	if err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	switch {
	case head[0]&0xf0 == 0x40: // channels 0x4000 to 0x4fff, padded to 4
		n = channelHeader + (n+3)&^3
	case head[0]&0xc0 == 0 && n%4 == 0:
		if head, err = r.Peek(8); err != nil {
			return 0, err
		}
		if binary.BigEndian.Uint32(head[4:]) != magicCookie {
			return 0, errFrame
		}
		n += stunHeader
	default:
		return 0, errFrame
	}
	if n >= len(p) {
		return 0, fmt.Errorf("%w: a message of %d bytes", errFrame, n)
	}
	_, err = io.ReadFull(r, p[:n])
	return n, err
}

// payload returns the size of the payload of a message that relays a peer's
// datagram to a client: a channel's data or a Data indication.
func payload(p []byte) (int, bool) {
	if len(p) < channelHeader {
		return 0, false
	}
	if p[0]&0xf0 == 0x40 {
		return min(int(binary.BigEndian.Uint16(p[2:])), len(p)-channelHeader), true
	}
	if binary.BigEndian.Uint16(p) != typeData || len(p) < stunHeader {
		return 0, false
	}
	data, _ := attribute(p, attrData)
	return len(data), true
}

// attribute returns the value of the first attribute of a type in a STUN message
// (RFC 8489 §14), cut off where the message is.
func attribute(p []byte, typ uint16) ([]byte, bool) {
	for p = p[min(stunHeader, len(p)):]; len(p) >= 4; {
		n := int(binary.BigEndian.Uint16(p[2:]))
		if binary.BigEndian.Uint16(p) == typ {
			return p[4:min(4+n, len(p))], true
		}
		p = p[min(4+(n+3)&^3, len(p)):]
	}
	return nil, false
}

// bare reports whether a message is a STUN request without MESSAGE-INTEGRITY.
func bare(p []byte) bool {
	if p[0]&0xc0 != 0 || binary.BigEndian.Uint16(p)&0x0110 != 0 { // the class, RFC 8489 §5
		return false
	}
	_, signed := attribute(p, attrIntegrity)
	return !signed
}
