package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

var (
	// ErrRefused is matched by every error of [Check]: the key must not speak for the agent ID.
	ErrRefused = errors.New("refused")

	// ErrBadClaim means that a [Claim] is not one: its key or its time is missing, or its evidence
	// is beyond the limits. An ID that is none is a [*NameError].
	ErrBadClaim = errors.New("not a valid claim")

	// ErrNoTrust means that a trust policy is nil. There is no default: an open door must be asked
	// for by name.
	ErrNoTrust = errors.New("no trust policy")
)

// Decision is what a trust policy says to a claim. The zero value is not yes.
type Decision uint8

const (
	// Unknown means that the policy knows nothing about the agent.
	Unknown Decision = iota
	// Yes means that the key may speak for the agent.
	Yes
	// Refused means that it must not, whatever other policies say.
	Refused
)

// String returns "unknown", "yes" or "refused".
func (d Decision) String() string {
	switch d {
	case Unknown:
		return "unknown"
	case Yes:
		return "yes"
	case Refused:
		return "refused"
	}
	return fmt.Sprintf("Decision(%d)", uint8(d))
}

// Claim is the question to a trust policy: may Key speak for agent ID at Time? That the other side holds
// the private key of Key is shown elsewhere, by a signature.
type Claim struct {
	ID       string
	Key      PublicKey
	Evidence [][]byte  // what the other side showed, such as a certificate chain in DER; not to be changed
	Time     time.Time // the moment that is asked about, by the world's clock; never zero
}

func (c Claim) check() error {
	if err := CheckAgentID(c.ID); err != nil {
		return err
	}
	if c.Key.IsZero() {
		return fmt.Errorf("%w: it has no key", ErrBadClaim)
	}
	if c.Time.IsZero() {
		// At the zero time nothing would ever have ended.
		return fmt.Errorf("%w: it has no time", ErrBadClaim)
	}
	if len(c.Evidence) > MaxEvidence {
		return fmt.Errorf("%w: %d items of evidence, more than %d", ErrBadClaim, len(c.Evidence), MaxEvidence)
	}
	size := 0
	for _, e := range c.Evidence {
		size += len(e)
	}
	if size > MaxEvidenceSize {
		return fmt.Errorf("%w: %d bytes of evidence, more than %d", ErrBadClaim, size, MaxEvidenceSize)
	}
	return nil
}

// Verdict is the answer of a trust policy.
type Verdict struct {
	Decision Decision
	Roles    []string  // what the agent may do beyond talking, sorted; only with Yes
	Until    time.Time // the verdict does not hold from here on, by the world's clock; zero is no end; only with Yes
}

// Trust is a policy that says which public key may speak for which agent ID. Implementations are safe for
// concurrent use.
//
// Check may block as long as ctx lets it. An error with decision Refused says why; an error with any
// other decision means that the policy could not decide, and counts as refused: a policy that cannot read its
// data must not open the door. Importers do not call it but the function [Check], which checks both the
// claim and the verdict.
type Trust interface {
	Check(ctx context.Context, c Claim) (Verdict, error)
}

// Check asks a policy. It is the one way to ask, since it holds what no policy may get wrong:
//
//   - the claim has an agent ID, a key and a time, or it is refused without asking;
//   - nil is not a policy, and neither is one whose context has ended;
//   - an error, or a decision that does not exist, is a refusal;
//   - a yes that ended before or at c.Time is a refusal that matches [ErrExpired]; both are times of the world, and
//     readings of the process's clock, which stands still while a machine sleeps, are taken off;
//   - roles are taken from a [Directory] only, alone or within [Compose], and dropped from every other policy.
//
// The error is nil for Yes and Unknown. For Refused it is never nil, and matches [ErrRefused] as well as
// the policy's reason, such as a [*KeyMismatchError] or a [*KeyChangedError].
func Check(ctx context.Context, t Trust, c Claim) (Verdict, error) {
	v, err := check(ctx, t, c)
	if err == nil {
		return v, nil
	}
	if err == ErrRefused {
		return v, wrap("trust", fmt.Errorf("%w: agent %q with key %s", ErrRefused, shown(c.ID), c.Key.Fingerprint()))
	}
	return v, wrap("trust", &refusal{c.ID, err})
}

// check is Check without the wrapping; what it returns beside Refused is the bare reason.
func check(ctx context.Context, t Trust, c Claim) (Verdict, error) {
	refused := Verdict{Decision: Refused}
	if t == nil {
		return refused, ErrNoTrust
	}
	if err := c.check(); err != nil {
		return refused, err
	}
	if err := context.Cause(ctx); err != nil {
		return refused, err
	}
	// Two times with monotonic readings would be compared by those.
	c.Time = c.Time.Round(0)
	return ask(ctx, t, c)
}

// ask asks one policy with a claim that was checked.
func ask(ctx context.Context, t Trust, c Claim) (Verdict, error) {
	v, err := t.Check(ctx, c)
	if err != nil {
		return Verdict{Decision: Refused}, err
	}
	switch v.Decision {
	case Unknown:
		return Verdict{}, nil
	case Yes:
	case Refused:
		return Verdict{Decision: Refused}, ErrRefused
	default:
		return Verdict{Decision: Refused}, fmt.Errorf("policy %T answered %v", t, v.Decision)
	}
	v.Until = v.Until.Round(0)
	if !v.Until.IsZero() && !c.Time.Before(v.Until) {
		return Verdict{Decision: Refused}, fmt.Errorf("trust ended at %s: %w", stamp(v.Until), ErrExpired)
	}
	if !grantsRoles(t) {
		v.Roles = nil
	}
	v.Roles = sortedSet(v.Roles)
	return v, nil
}

// grantsRoles lists the policies whose roles count. It names types instead of asking for a method, because
// a method would be inherited by whoever embeds one of them.
func grantsRoles(t Trust) bool {
	switch t.(type) {
	case *Directory, *composition, announcing:
		return true
	}
	return false
}

// sortedSet returns a sorted copy without duplicates; nil for nothing.
func sortedSet(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}

// refusal is a reason that also matches ErrRefused.
type refusal struct {
	id  string
	err error
}

func (e *refusal) Error() string { return "keys: " + e.text() }

func (e *refusal) text() string {
	return fmt.Sprintf("agent %q refused: %s", shown(e.id), plain(e.err))
}

func (e *refusal) Unwrap() []error { return []error{ErrRefused, e.err} }

// shown is a name of any length, cut for an error.
func shown(name string) string { return name[:min(len(name), MaxNameSize)] }
