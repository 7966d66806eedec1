package keys

import "context"

// Learner is what a policy also is when it remembers agents that were met. Learn is called for an agent that
// was dialled, after its handshake is complete, while the verdict was Unknown: an agent that merely calls
// must not be able to fill the memory or to take a name before its owner. It is called through the function [Learn].
// An error means that the agent stays unknown; whoever dialled it gives up and says why. A Learner whose memory fails
// does not try to write again at each call.
type Learner interface {
	Learn(ctx context.Context, c Claim) error
}

// Learn tells t that agent c.ID was dialled and proved to hold c.Key. It reports whether t, or a member
// of a composition, remembered it: false, without an error, when none learns or when the verdict is Yes
// already. A claim that [Check] refuses is not learned, and the error is that of Check.
func Learn(ctx context.Context, t Trust, c Claim) (learned bool, err error) {
	v, err := Check(ctx, t, c)
	if err != nil || v.Decision != Unknown {
		return false, err
	}
	learned, err = learn(ctx, t, c)
	return learned, wrap("learn", err)
}

func learn(ctx context.Context, t Trust, c Claim) (bool, error) {
	if m, ok := t.(interface{ members() []Trust }); ok {
		learned := false
		for _, t := range m.members() {
			l, err := learn(ctx, t, c)
			if err != nil {
				return learned, err
			}
			learned = learned || l
		}
		return learned, nil
	}
	l, ok := t.(Learner)
	if !ok {
		return false, nil
	}
	err := l.Learn(ctx, c)
	return err == nil, err
}

// Announcer is what a policy also is when it tells that its verdicts may have changed. Changed returns a
// channel that is closed at the next change; call it again, before asking for verdicts, to hear of the one
// after. A nil channel means that the verdicts never change. A policy that is no Announcer is asked again
// at intervals.
type Announcer interface {
	Changed() <-chan struct{}
}

// Finder is what a policy also is when it can list the keys it would say yes to, so that an offer can be
// addressed to a key and not only to a name. What it returns is a hint: each key still has to pass [Check].
// It returns no key and no error for an agent it does not know.
type Finder interface {
	Find(ctx context.Context, id string) ([]PublicKey, error)
}

// Find returns the keys that t, or the members of a composition, hold for an agent, without duplicates, in the
// order of the members; none when t is no [Finder]. The error is that of the first member that failed, or a
// [*NameError].
func Find(ctx context.Context, t Trust, id string) ([]PublicKey, error) {
	const op = "find keys"
	if t == nil {
		return nil, wrap(op, ErrNoTrust)
	}
	if err := CheckAgentID(id); err != nil {
		return nil, wrap(op, err)
	}
	f, ok := t.(Finder)
	if !ok {
		return nil, nil
	}
	found, err := f.Find(ctx, id)
	return found, wrap(op, err)
}

// Lists reports whether t is a [Finder], and so is every member of a composition: whether an agent of
// which [Find] returns no key can be none that t says yes to.
func Lists(t Trust) bool {
	if m, ok := t.(interface{ members() []Trust }); ok {
		for _, t := range m.members() {
			if !Lists(t) {
				return false
			}
		}
		return true
	}
	_, ok := t.(Finder)
	return ok
}
