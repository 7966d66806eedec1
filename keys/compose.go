package keys

import (
	"context"
	"slices"
)

// Compose combines policies into one:
//
//   - refused wins over yes, and yes over unknown; the first refusal in order gives the reason;
//   - a member that lists or remembers a key for another agent refuses it, so that one key has one name in all together;
//   - the roles of a yes are the union of those that its directories grant;
//   - a yes ends when the first of the yeses that make it up ends;
//   - each member is asked as [Check] asks: an error, an ended yes or a nil member is a refusal.
//
// Without members everything is unknown. The result is a [Learner] that passes what it learns to each
// member that learns, and a [Finder] of the keys of all members; the functions [Learn] and [Find] say
// truly whether a member did. It is an [Announcer] only when every member is and at most one of them has
// a channel when Compose is called: then that channel tells everything there is to tell. Otherwise it is
// asked at intervals, as a member that does not announce has to be anyway.
func Compose(policies ...Trust) Trust {
	c := &composition{slices.Clone(policies)}
	var changing Announcer
	for _, p := range c.policies {
		a, ok := p.(Announcer)
		if !ok {
			return c
		}
		if a.Changed() == nil {
			continue
		}
		if changing != nil {
			return c
		}
		changing = a
	}
	return announcing{c, changing}
}

type composition struct{ policies []Trust }

func (c *composition) members() []Trust { return c.policies }

func (c *composition) Check(ctx context.Context, claim Claim) (Verdict, error) {
	var sum Verdict
	for _, p := range c.policies {
		v, err := check(ctx, p, claim)
		if err != nil { // a refusal is one
			return Verdict{Decision: Refused}, err
		}
		if v.Decision != Yes {
			continue
		}
		sum.Decision = Yes
		sum.Roles = append(sum.Roles, v.Roles...)
		if sum.Until.IsZero() || !v.Until.IsZero() && v.Until.Before(sum.Until) {
			sum.Until = v.Until
		}
	}
	sum.Roles = sortedSet(sum.Roles)
	return sum, nil
}

func (c *composition) Learn(ctx context.Context, claim Claim) error {
	_, err := Learn(ctx, c, claim)
	return err
}

func (c *composition) Find(ctx context.Context, id string) ([]PublicKey, error) {
	var all []PublicKey
	for _, p := range c.policies {
		found, err := Find(ctx, p, id)
		if err != nil {
			return nil, err
		}
		for _, k := range found {
			if !slices.Contains(all, k) {
				all = append(all, k)
			}
		}
	}
	return all, nil
}

// announcing is a composition of which at most one member can change.
type announcing struct {
	*composition
	changing Announcer // nil when none can
}

func (a announcing) Changed() <-chan struct{} {
	if a.changing == nil {
		return nil
	}
	return a.changing.Changed()
}
