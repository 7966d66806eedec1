package mesh

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/infrafabric/agentmesh/keys"
)

// signatureFields are the members of a signature's JSON form.
var signatureFields = []string{
	"algorithm", "public_key", "signature_bytes", "signed_fields", "mesh", "instance", "tree_size", "index", "path",
}

func (s *Signature) appendJSON(dst []byte) []byte {
	w := objectWriter{b: append(dst, '{')}
	w.text("algorithm", signatureAlgorithm)
	w.text("public_key", s.Key.String())
	w.text("signature_bytes", base64.StdEncoding.EncodeToString(s.Bytes))
	w.texts("signed_fields", signedFields)
	w.text("mesh", s.Mesh)
	w.text("instance", hex.EncodeToString(s.Instance[:]))
	w.raw("tree_size", strconv.AppendInt(nil, int64(s.TreeSize), 10))
	w.raw("index", strconv.AppendInt(nil, int64(s.Index), 10))
	path := s.Path()
	hashes := make([]string, len(path))
	for i, h := range path {
		hashes[i] = base64.StdEncoding.EncodeToString(h[:])
	}
	w.texts("path", hashes)
	return append(w.b, '}')
}

// parseSignature is strict about fields: nothing covers a signature's own
// members, so an unknown one could say anything.
func parseSignature(b []byte) (*Signature, error) {
	s := &Signature{}
	seen := 0
	err := eachField(b, "signature", func(name string, v []byte) error {
		seen++
		field := "signature." + name
		var t string
		switch name {
		case "algorithm":
			if err := text(field, v, &t); err != nil {
				return err
			}
			if t != signatureAlgorithm {
				return &MessageError{Field: field, Reason: "is " + quoted(t) + ", not " + signatureAlgorithm}
			}
			return nil
		case "public_key":
			if err := text(field, v, &t); err != nil {
				return err
			}
			k, err := keys.ParsePublicKey(t)
			if err != nil {
				return &MessageError{Field: field, Reason: "is not a public key: " + err.Error()}
			}
			s.Key = k
			return nil
		case "signature_bytes":
			if err := text(field, v, &t); err != nil {
				return err
			}
			raw, ok := decodeBase64(t, ed25519.SignatureSize)
			if !ok {
				return &MessageError{Field: field, Reason: fmt.Sprintf("is not padded base64 of %d bytes in one line", ed25519.SignatureSize)}
			}
			s.Bytes = raw
			return nil
		case "signed_fields":
			var names []string
			if err := texts(field, v, &names); err != nil {
				return err
			}
			if !slices.Equal(names, signedFields) {
				return &MessageError{Field: field, Reason: "is not the list of all fields"}
			}
			return nil
		case "mesh":
			return text(field, v, &s.Mesh)
		case "instance":
			if err := text(field, v, &t); err != nil {
				return err
			}
			raw, err := hex.DecodeString(t)
			if err != nil || len(raw) != len(s.Instance) || hex.EncodeToString(raw) != t {
				return &MessageError{Field: field, Reason: "is not 32 lower-case hex digits"}
			}
			copy(s.Instance[:], raw)
			return nil
		case "tree_size":
			return integer(field, v, &s.TreeSize)
		case "index":
			return integer(field, v, &s.Index)
		case "path":
			var hashes []string
			if err := texts(field, v, &hashes); err != nil {
				return err
			}
			if n := len(hashes); n > maxPath {
				return &MessageError{Field: field, Reason: "has too many entries", Size: n, Limit: maxPath}
			}
			for i, h := range hashes {
				raw, ok := decodeBase64(h, tlog.HashSize)
				if !ok {
					return &MessageError{Field: field, Reason: fmt.Sprintf("has in place %d what is not padded base64 of %d bytes in one line", i, tlog.HashSize)}
				}
				s.path = append(s.path, tlog.Hash(raw))
			}
			return nil
		}
		return &MessageError{Field: field, Reason: "is a field that nothing covers"}
	})
	if err == nil && seen != len(signatureFields) {
		err = &MessageError{Field: "signature", Reason: "has not all of its fields, " + strings.Join(signatureFields, ", ")}
	}
	if err == nil {
		err = s.check()
	}
	return s, err
}

// check reports what a signature says that no reader would take.
func (s *Signature) check() error {
	if s.Key.IsZero() {
		return &MessageError{Field: "signature.public_key", Reason: "is missing"}
	}
	if err := checkText("signature.mesh", s.Mesh, keys.MaxNameSize); err != nil {
		return err
	}
	if n := len(s.Bytes); n != ed25519.SignatureSize {
		return &MessageError{Field: "signature.signature_bytes", Reason: fmt.Sprintf("has %d bytes, not %d", n, ed25519.SignatureSize)}
	}
	return s.checkPlace()
}

// checkPlace reports a place that no tree has.
func (s *Signature) checkPlace() error {
	if s.TreeSize < 1 || s.TreeSize > maxTree {
		return &MessageError{Field: "signature.tree_size", Reason: fmt.Sprintf("is %d, not 1 to %d", s.TreeSize, maxTree)}
	}
	if s.Index < 0 || s.Index >= s.TreeSize {
		return &MessageError{Field: "signature.index", Reason: fmt.Sprintf("is %d in a tree of %d", s.Index, s.TreeSize)}
	}
	return nil
}
