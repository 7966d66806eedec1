package mesh

import (
	"bytes"
	"encoding/json"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// detachAll makes the messages of one batch share no memory with it, nor with each
// other.
func detachAll(msgs []Message) {
	_, paths := merklePaths(msgs[0].Signature.leaves)
	for i := range msgs {
		m := &msgs[i]
		m.Payload = bytes.Clone(m.Payload)
		if m.Extra != nil {
			extra := make(map[string]json.RawMessage, len(m.Extra))
			for name, v := range m.Extra {
				extra[name] = bytes.Clone(v)
			}
			m.Extra = extra
		}
		s := *m.Signature
		s.Bytes, s.path, s.leaves = bytes.Clone(s.Bytes), paths[s.Index], nil
		m.Signature = &s
	}
}

// merklePaths returns the root and, for every leaf, what merklePath does; each
// inner hash is computed once. There is at least one leaf.
func merklePaths(leaves []tlog.Hash) (root tlog.Hash, paths [][]tlog.Hash) {
	if len(leaves) == 1 {
		return leaves[0], make([][]tlog.Hash, 1)
	}
	k := split(len(leaves))
	left, ofLeft := merklePaths(leaves[:k])
	right, ofRight := merklePaths(leaves[k:])
	for i := range ofLeft {
		ofLeft[i] = append(ofLeft[i], right)
	}
	for i := range ofRight {
		ofRight[i] = append(ofRight[i], left)
	}
	return nodeHash(left, right), slices.Concat(ofLeft, ofRight)
}
