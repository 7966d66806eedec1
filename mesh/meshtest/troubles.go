package meshtest

import "time"

// smallWindow is the least that mesh.Config.Window may be.
const smallWindow = 64 << 10

// millis is a random time below so many milliseconds, and at least one.
func (w *writer) millis(most int) time.Duration {
	return time.Duration(1+w.r.IntN(most)) * time.Millisecond
}

// wireTrouble adds something that goes wrong with datagrams, and its end.
func (w *writer) wireTrouble() {
	r, add := w.r, w.add
	begin, end := w.when()
	a, b := w.two()
	agent, other := []string{a}, []string{b}
	hosts := w.hosts()
	host := []string{hosts[r.IntN(len(hosts))]}
	both := func(on, off Event) {
		on.Who, off.Who = host, host
		off.Verb = on.Verb
		add(begin, on)
		add(end, off)
	}
	switch r.IntN(9) {
	case 0:
		both(Event{Verb: Narrow, Size: 1100 + r.IntN(200)}, Event{})
	case 1: // between two only, so that a relay is wide
		size := 1100 + r.IntN(200)
		add(begin, Event{Verb: NarrowPath, Who: agent, Whom: other, Size: size})
		add(end, Event{Verb: NarrowPath, Who: agent, Whom: other})
		if r.IntN(2) == 0 {
			add(begin, Event{Verb: NarrowPath, Who: other, Whom: agent, Size: size})
			add(end, Event{Verb: NarrowPath, Who: other, Whom: agent})
		}
	case 2:
		both(Event{Verb: Choke, Size: 40 + r.IntN(400)}, Event{})
	case 3:
		add(begin, Event{Verb: ChokePath, Who: agent, Whom: other, Size: 40 + r.IntN(400)})
		add(end, Event{Verb: ChokePath, Who: agent, Whom: other})
	case 4:
		rate := 12000 << r.IntN(5)
		both(Event{Verb: Throttle, Size: rate, Queue: rate / (1 + r.IntN(8))}, Event{})
	case 5:
		both(Event{Verb: Duplicate, Part: 5 + r.IntN(50)}, Event{})
	case 6:
		both(Event{Verb: Reorder, Part: 5 + r.IntN(30), Extra: w.millis(200)}, Event{})
	case 7:
		add(begin, Event{Verb: LosePath, Who: agent, Whom: other, Part: 5 + r.IntN(60)})
		add(end, Event{Verb: LosePath, Who: agent, Whom: other})
	default: // all kinds of disorder at once
		both(Event{Verb: Duplicate, Part: 5 + r.IntN(20)}, Event{})
		both(Event{Verb: Reorder, Part: 5 + r.IntN(20), Extra: w.millis(50)}, Event{})
		both(Event{Verb: Lose, Part: 1 + r.IntN(10)}, Event{})
	}
}

// loadTrouble adds something that goes wrong in a process or at a server, and its end.
func (w *writer) loadTrouble() {
	r, add := w.r, w.add
	begin, end := w.when()
	a, b := w.two()
	agent, other := []string{a}, []string{b}
	both := func(on, off Event) {
		on.Who, off.Who = agent, agent
		if off.Verb == "" {
			off.Verb = on.Verb
		}
		add(begin, on)
		add(end, off)
	}
	switch r.IntN(13) {
	case 0:
		both(Event{Verb: Exhaust}, Event{Verb: Replenish})
	case 1:
		both(Event{Verb: Linger, Extra: w.millis(300)}, Event{})
	case 2:
		both(Event{Verb: SlowTrust, Extra: w.millis(500)}, Event{})
	case 3:
		both(Event{Verb: SlowRecorder, Extra: w.millis(20)}, Event{})
	case 4, 5: // large messages for a few seconds, some of them larger than a small window
		end = begin + w.millis(4000)
		both(Event{Verb: Weigh, Size: 1000 << r.IntN(7)}, Event{})
	case 6: // restarted with another window, with larger messages under way
		add(begin, Event{Verb: Weigh, Who: other, Size: 20000 + r.IntN(80000)})
		add(begin, Event{Verb: Window, Who: agent, Size: smallWindow << r.IntN(3)})
		begin += w.millis(4000)
		add(begin, Event{Verb: Kill, Who: agent})
		add(begin+w.millis(2000), Event{Verb: Weigh, Who: other})
		add(max(begin, end), Event{Verb: Restart, Who: agent})
	case 7:
		add(begin, Event{Verb: HangUp, Who: agent, Whom: other})
		if r.IntN(3) == 0 { // both at one instant
			add(begin, Event{Verb: HangUp, Who: other, Whom: agent})
		}
	case 8: // wrong by minutes, so that others take it, or by more than they take
		off := time.Duration(r.IntN(8*60)-4*60) * time.Second
		if r.IntN(3) == 0 {
			off *= 30
		}
		both(Event{Verb: SetClock, Extra: off}, Event{})
	case 9, 10: // asleep, and right afterwards or wrong
		slept := time.Duration(r.IntN(4*60)) * time.Second
		if r.IntN(3) > 0 {
			add(max(0, begin-20*time.Second), Event{Verb: SetClock, Who: agent, Extra: -slept})
		}
		both(Event{Verb: Sleep}, Event{Verb: Wake, Extra: slept})
		add(end+w.millis(20000), Event{Verb: SetClock, Who: agent})
	case 11: // without an effect where servers are known by addresses
		both(Event{Verb: HangNames}, Event{Verb: AnswerNames})
	default:
		servers := w.servers()
		server := []string{servers[r.IntN(len(servers))]}
		add(begin, Event{Verb: Muddle, Who: server, Part: 10 + r.IntN(40)})
		add(end, Event{Verb: Muddle, Who: server})
	}
}
