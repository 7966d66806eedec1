package meshtest

import (
	"fmt"
	"strings"
	"time"
)

// Event is one verb at its time. Which fields it uses depends on the verb.
type Event struct {
	At   time.Duration
	Verb Verb
	// Who is one name, for Partition the first group, for Heal nobody.
	Who []string
	// Whom is one name for OneWay, Replace, HangUp and what is done to a path, and the
	// other group for Partition.
	Whom []string
	// Extra is how long, for the verbs that take a time.
	Extra time.Duration
	// Part is how many in a hundred.
	Part int
	// Size is how many bytes, bytes a second, or for Choke datagrams; Queue is for
	// Throttle, in bytes.
	Size, Queue int
}

// Verb is what happens to whom; the package comment describes each.
type Verb string

// The verbs.
const (
	Kill       Verb = "kill"
	Restart    Verb = "restart"
	Stop       Verb = "stop"
	Continue   Verb = "continue"
	Partition  Verb = "partition"
	OneWay     Verb = "one-way"
	Heal       Verb = "heal"
	Move       Verb = "move"
	MoveUnseen Verb = "move unseen"
	Slow       Verb = "slow"
	Lose       Verb = "lose"
	Replace    Verb = "replace"

	Narrow       Verb = "narrow"
	NarrowPath   Verb = "narrow path"
	Choke        Verb = "choke"
	ChokePath    Verb = "choke path"
	Throttle     Verb = "throttle"
	Duplicate    Verb = "duplicate"
	Reorder      Verb = "reorder"
	LosePath     Verb = "lose path"
	Exhaust      Verb = "exhaust"
	Replenish    Verb = "replenish"
	HangNames    Verb = "hang names"
	AnswerNames  Verb = "answer names"
	Weigh        Verb = "weigh"
	Linger       Verb = "linger"
	SlowTrust    Verb = "slow trust"
	SlowRecorder Verb = "slow recorder"
	Window       Verb = "window"
	HangUp       Verb = "hang up"
	SetClock     Verb = "set clock"
	Sleep        Verb = "sleep"
	Wake         Verb = "wake"
	Muddle       Verb = "muddle"
)

func (e Event) String() string {
	s := stamp(e.At) + "  " + strings.TrimSpace(string(e.Verb)+" "+strings.Join(e.Who, " "))
	switch whom := strings.Join(e.Whom, " "); e.Verb {
	case Partition:
		s += " | " + whom
	case ChokePath:
		s += " ↔ " + whom
	default:
		if whom != "" {
			s += " → " + whom
		}
	}
	switch e.Verb {
	case Slow, Linger, SlowTrust, SlowRecorder:
		s += fmt.Sprintf(" by %v", e.Extra)
	case Lose, LosePath, Duplicate, Muddle:
		s += fmt.Sprintf(" %d %%", e.Part)
	case SetClock:
		s += fmt.Sprintf(" %v ahead", e.Extra)
	case Wake:
		s += fmt.Sprintf(" after %v", e.Extra)
	case Reorder:
		s += fmt.Sprintf(" %d %% by %v", e.Part, e.Extra)
	case Narrow, NarrowPath, Weigh, Window:
		s += fmt.Sprintf(" %d bytes", e.Size)
	case Choke, ChokePath:
		s += fmt.Sprintf(" after %d datagrams", e.Size)
	case Throttle:
		s += fmt.Sprintf(" to %d bytes a second, queue %d", e.Size, e.Queue)
	}
	return s
}

// Do does what an event says, now.
func (u *Universe) Do(e Event) {
	who := strings.Join(e.Who, " ")
	whom := strings.Join(e.Whom, " ")
	switch e.Verb {
	case Kill:
		u.Kill(who)
	case Restart:
		u.Restart(who)
	case Stop:
		u.Stop(who)
	case Continue:
		u.Continue(who)
	case Partition:
		u.Partition(e.Who, e.Whom)
	case OneWay:
		u.OneWay(who, whom)
	case Heal:
		u.Heal()
	case Move:
		u.Move(who)
	case MoveUnseen:
		u.MoveUnseen(who)
	case Slow:
		u.Slow(who, e.Extra)
	case Lose:
		u.Lose(who, e.Part)
	case Replace:
		u.Replace(who, whom)
	case HangUp:
		u.HangUp(who, whom)
	case Muddle:
		u.Muddle(who, e.Part)
	default:
		u.doMore(e, who, whom)
	}
}

// doMore is Do for what happens on the wire and in a process.
func (u *Universe) doMore(e Event, who, whom string) {
	switch e.Verb {
	case Narrow:
		u.Narrow(who, e.Size)
	case NarrowPath:
		u.NarrowPath(who, whom, e.Size)
	case Choke:
		u.Choke(who, e.Size)
	case ChokePath:
		u.ChokePath(who, whom, e.Size)
	case Throttle:
		u.Throttle(who, e.Size, e.Queue)
	case Duplicate:
		u.Duplicate(who, e.Part)
	case Reorder:
		u.Reorder(who, e.Part, e.Extra)
	case LosePath:
		u.LosePath(who, whom, e.Part)
	case Exhaust:
		u.Exhaust(who)
	case Replenish:
		u.Replenish(who)
	case HangNames:
		u.HangNames(who)
	case AnswerNames:
		u.AnswerNames(who)
	case Weigh:
		u.Weigh(who, e.Size)
	case Linger:
		u.Linger(who, e.Extra)
	case SlowTrust:
		u.SlowTrust(who, e.Extra)
	case SlowRecorder:
		u.SlowRecorder(who, e.Extra)
	case SetClock:
		u.SetClock(who, e.Extra)
	case Sleep:
		u.Sleep(who)
	case Wake:
		u.Wake(who, e.Extra)
	case Window:
		u.Window(who, uint64(max(e.Size, 0)))
	default:
		u.fatal("there is no verb %q", e.Verb)
	}
}
