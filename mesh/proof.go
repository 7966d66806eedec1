package mesh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
)

// batchDomain separates batch signatures from every other one.
const batchDomain = "agentmesh/v1 batch"

// signatureAlgorithm is the constant of a signature's JSON form.
const signatureAlgorithm = "Ed25519"

// signedFields is the constant list of the JSON form: everything is covered,
// there is nothing to choose, and a list that says otherwise is refused
// (stripping names from it would make a verifier that believed it blind).
var signedFields = []string{
	"id", "timestamp", "level", "source", "destination", "version", "payload", "performative",
	"conversation_id", "sequence_num", "citation_ids", "traceId", "*",
}

// Signature is the proof that an agent wrote a message: an Ed25519 signature
// over a Merkle tree (RFC 6962 §2.1) of the messages that left together, and
// the message's place in it. Its fields are fixed once it was received. Message.UnmarshalJSON
// has its JSON form. The statement that is signed names no recipient (To is ""): each
// record names its own.
type Signature struct {
	Key      keys.PublicKey     // the author's key
	Mesh     string             // the mesh it was written in
	Instance signaling.Instance // the author's Node
	TreeSize int                // leaves of the tree, 1 to 1024
	Index    int                // this message's leaf, from 0
	Bytes    []byte             // Ed25519 signature, 64 bytes

	path   []tlog.Hash // set when read from JSON
	leaves []tlog.Hash // set when received; shared by the batch
}

// Path returns the hashes from the message's leaf to the signed root
// (RFC 6962 §2.1.1), nearest first; empty in a tree of one.
func (s *Signature) Path() []tlog.Hash {
	if s.leaves != nil {
		return merklePath(s.Index, s.leaves)
	}
	return slices.Clone(s.path)
}

// batchStatement is what a batch signature is over.
func batchStatement(mesh, source string, instance signaling.Instance, size int, root tlog.Hash) keys.Statement {
	body := make([]byte, 0, len(instance)+4+len(root))
	body = append(body, instance[:]...)
	body = binary.BigEndian.AppendUint32(body, uint32(size))
	body = append(body, root[:]...)
	return keys.Statement{Domain: batchDomain, Mesh: mesh, From: source, Body: body}
}

// merkleRoot is MTH of RFC 6962 §2.1 over leaf hashes; there is at least one.
func merkleRoot(leaves []tlog.Hash) tlog.Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := split(len(leaves))
	return nodeHash(merkleRoot(leaves[:k]), merkleRoot(leaves[k:]))
}

// merklePath is PATH of RFC 6962 §2.1.1.
func merklePath(i int, leaves []tlog.Hash) []tlog.Hash {
	if len(leaves) <= 1 {
		return nil
	}
	k := split(len(leaves))
	if i < k {
		return append(merklePath(i, leaves[:k]), merkleRoot(leaves[k:]))
	}
	return append(merklePath(i-k, leaves[k:]), merkleRoot(leaves[:k]))
}

// rootFromPath computes the root that a leaf, its index and its path lead to.
// A path that is too long or too short for the tree is an error.
func rootFromPath(leaf tlog.Hash, i, size int, path []tlog.Hash) (tlog.Hash, error) {
	if size == 1 {
		if len(path) != 0 {
			return tlog.Hash{}, errPath
		}
		return leaf, nil
	}
	if len(path) == 0 {
		return tlog.Hash{}, errPath
	}
	last, rest := path[len(path)-1], path[:len(path)-1]
	k := split(size)
	if i < k {
		left, err := rootFromPath(leaf, i, k, rest)
		return nodeHash(left, last), err
	}
	right, err := rootFromPath(leaf, i-k, size-k, rest)
	return nodeHash(last, right), err
}

var errPath = errors.New("path does not fit the tree")

// split is the largest power of two below n (RFC 6962 §2.1), for n > 1.
func split(n int) int {
	k := 1
	for k<<1 < n {
		k <<= 1
	}
	return k
}

// Verify reports whether the message was written, as it stands, by the agent
// it names as its source: the signature is valid for the given mesh and every
// field, and trust says yes to the signing key for that agent at the message's
// time. It works on received messages and on messages read back from JSON.
//
// The signature says who wrote it; trust says whether that key may. To judge
// an old message pass the trust of its time. Whether the message was meant for
// the caller is in Destination, which the signature covers.
//
// Errors match keys.ErrBadSignature, ErrUnsigned, ErrWrongMesh or
// ErrUntrusted, or are a *MessageError for a message that breaks the format.
func (m *Message) Verify(ctx context.Context, mesh string, trust keys.Trust) error {
	if err := m.verifySignature(mesh); err != nil {
		return fmt.Errorf("mesh: verify message: %w", err)
	}
	claim := keys.Claim{ID: m.Source, Key: m.Signature.Key, Time: m.Timestamp}
	if err := checkTrust(ctx, trust, claim); err != nil {
		return fmt.Errorf("mesh: verify message: %w", err)
	}
	return nil
}

// verifySignature checks everything about a message but the trust in its key.
func (m *Message) verifySignature(mesh string) error {
	s := m.Signature
	if s == nil {
		return ErrUnsigned
	}
	if s.Mesh != mesh {
		return fmt.Errorf("%w: signed for %q, not %q", ErrWrongMesh, safeText(s.Mesh), safeText(mesh))
	}
	if err := s.checkPlace(); err != nil {
		return err
	}
	if err := m.checkFields(); err != nil {
		return err
	}
	c := *m
	if err := c.compact(); err != nil {
		return err
	}
	path := s.Path()
	root, err := rootFromPath(leafHash(encodeRecord(&c)), s.Index, s.TreeSize, path)
	if err != nil {
		return &MessageError{Field: "signature.path", Reason: fmt.Sprintf("has %d hashes, which do not fit place %d in a tree of %d", len(path), s.Index, s.TreeSize)}
	}
	return s.Key.Verify(batchStatement(s.Mesh, m.Source, s.Instance, s.TreeSize, root), s.Bytes)
}

// checkTrust asks the policy and turns anything but yes into an error.
func checkTrust(ctx context.Context, trust keys.Trust, claim keys.Claim) error {
	v, err := keys.Check(ctx, trust, claim)
	return untrusted(claim, v, err)
}

// untrusted words a verdict that is not yes.
func untrusted(claim keys.Claim, v keys.Verdict, err error) error {
	if v.Decision == keys.Yes && err == nil {
		return nil
	}
	if err == nil {
		return fmt.Errorf("%w: %s with key %s: %s", ErrUntrusted, claim.ID, claim.Key.Fingerprint(), v.Decision)
	}
	return fmt.Errorf("%w: %s with key %s: %w", ErrUntrusted, claim.ID, claim.Key.Fingerprint(), err)
}
