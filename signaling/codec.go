package signaling

import (
	"bytes"
	"crypto/ed25519"

	"github.com/fxamacker/cbor/v2"

	"github.com/infrafabric/agentmesh/keys"
)

// version is the version of the protocol and of the envelope.
const version = 1

var encMode, decMode = modes()

// modes returns the encoder, which writes RFC 8949 §4.2.1, and the decoder,
// which reads as little else as it can be told to; decode refuses the rest.
func modes() (cbor.EncMode, cbor.DecMode) {
	enc := cbor.CoreDetEncOptions()
	enc.NilContainers = cbor.NilContainerAsEmpty // so that null is never the encoding of a byte string
	enc.TagsMd = cbor.TagsForbidden
	em, err := enc.EncMode()
	if err != nil {
		panic("signaling: encoder options: " + err.Error())
	}
	dm, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   4,
		MaxArrayElements:  maxArray,
		MaxMapPairs:       16,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		panic("signaling: decoder options: " + err.Error())
	}
	return em, dm
}

// encode returns the one encoding of v, which is a struct of this package.
func encode(v any) []byte {
	b, err := encMode.Marshal(v)
	if err != nil {
		panic("signaling: encode: " + err.Error()) // our own types always encode
	}
	return b
}

// decode reads b into v, a pointer to a struct of this package. It refuses
// whatever encode(v) would not write, so that no value has two encodings:
// otherwise a relay could change an envelope's hash without breaking its
// signature.
func decode(what string, b []byte, v any) error {
	if err := decMode.Unmarshal(b, v); err != nil {
		return &FormatError{What: what, Reason: "CBOR", Err: err}
	}
	if !bytes.Equal(encode(v), b) {
		return &FormatError{What: what, Reason: "not in deterministic encoding (RFC 8949 §4.2.1)"}
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
