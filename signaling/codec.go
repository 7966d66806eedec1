package signaling

import (
	"crypto/ed25519"

	"github.com/infrafabric/agentmesh/internal/cbor"
	"github.com/infrafabric/agentmesh/keys"
)

// version is the version of the protocol and of the envelope.
const version = 1

// wired is a type with a wire form. Its method lists the fields in their order,
// for both directions.
type wired interface{ wire(c *coder) }

// coder writes or reads the fields of a value.
type coder struct {
	out []byte       // what was written
	in  *cbor.Reader // nil when writing
}

func (c *coder) array(n int) {
	if c.in != nil {
		c.in.Array(n)
		return
	}
	c.out = cbor.AppendArray(c.out, n)
}

func (c *coder) uint(v *uint64) {
	if c.in != nil {
		*v = c.in.Uint()
		return
	}
	c.out = cbor.AppendUint(c.out, *v)
}

func (c *coder) text(v *string, most int) {
	if c.in != nil {
		*v = c.in.Text(most)
		return
	}
	c.out = cbor.AppendText(c.out, *v)
}

// bytes reads a byte string that aliases the input.
func (c *coder) bytes(v *[]byte, most int) {
	if c.in != nil {
		*v = c.in.Bytes(most)
		return
	}
	c.out = cbor.AppendBytes(c.out, *v)
}

func (c *coder) fixed(v []byte) {
	if c.in != nil {
		c.in.Fixed(v)
		return
	}
	c.out = cbor.AppendBytes(c.out, v)
}

// encode returns the one encoding of v.
func encode(v wired) []byte {
	var c coder
	v.wire(&c)
	return c.out
}

// decode reads b into v. It refuses whatever encode(v) would not write, so
// that no value has two encodings: otherwise a relay could change an envelope's
// hash without breaking its signature.
func decode(what string, b []byte, v wired) error {
	c := coder{in: cbor.NewReader(b)}
	v.wire(&c)
	if err := c.in.Done(); err != nil {
		return &FormatError{What: what, Reason: "CBOR", Err: err}
	}
	return nil
}

// decodeKey reads a public key; the empty string is the zero key.
func decodeKey(what string, b []byte) (keys.PublicKey, error) {
	if len(b) == 0 {
		return keys.PublicKey{}, nil
	}
	k, err := keys.PublicKeyFrom(ed25519.PublicKey(b))
	if err != nil {
		return keys.PublicKey{}, &FormatError{What: what, Reason: "public key", Err: err}
	}
	return k, nil
}

// encodeKey is the reverse of decodeKey.
func encodeKey(k keys.PublicKey) []byte {
	if k.IsZero() {
		return nil
	}
	return k.Bytes()
}
