package chaos

import (
	"fmt"
	"strings"
	"testing"
)

// TestAccount: the account finds what is wrong in journals, and nothing in those
// that are right. A case has one line per entry: "a.1 sent b 1", "b.1 got a.1>b#1";
// processes named after "dead" in the last line were killed.
func TestAccount(t *testing.T) {
	for _, c := range []struct {
		name    string
		journal string
		want    string // sent, delivered, again, lost, duplicated, out of order
		problem string // part of the first; empty is none
	}{
		{"in order", "a.1 sent b 1, b.1 got a.1>b#1, a.1 sent b 2, b.1 got a.1>b#2", "2 2 0 0 0 0", ""},
		{"got is read before sent", "b.1 got a.1>b#1, a.1 sent b 1", "1 1 0 0 0 0", ""},
		{"both directions", "a.1 sent b 1, b.1 sent a 1, a.1 got b.1>a#1, b.1 got a.1>b#1", "2 2 0 0 0 0", ""},
		{"repeated", "a.1 sent b 1, b.1 got a.1>b#1, b.1 got a.1>b#1", "1 1 0 0 1 0", "a.1>b#1 again"},
		{"dropped in between", "a.1 sent b 1, a.1 sent b 2, b.1 got a.1>b#2", "2 1 0 1 0 0", "a.1>b#2 after number 0"},
		{"exchanged", "a.1 sent b 1, a.1 sent b 2, b.1 got a.1>b#2, b.1 got a.1>b#1", "2 1 0 1 1 0", "a.1>b#2 after number 0"},
		{"dropped at the end", "a.1 sent b 1, a.1 sent b 2, b.1 got a.1>b#1", "2 1 0 1 0 0", "a.1 sent 2 to b, which got 1"},
		{"all dropped", "a.1 sent b 1", "1 0 0 1 0 0", "a.1 sent 1 to b, which got 0"},
		{"the author was killed", "a.1 sent b 1, a.1 sent b 2, b.1 got a.1>b#1, dead a.1", "2 1 0 0 0 0", ""},
		{"killed between Send and its line", "b.1 got a.1>b#1, dead a.1", "0 1 0 0 0 0", ""},
		{"nobody sent it", "b.1 got a.1>b#1, b.1 got a.1>b#2, dead a.1", "0 2 0 0 0 0", "a.1 sent 0 to b, which got number 2"},
		{"the living did not send it", "a.1 sent b 1, b.1 got a.1>b#1, b.1 got a.1>b#2", "1 2 0 0 0 0", "which got number 2"},
		{"seen again after a restart",
			"a.1 sent b 1, a.1 sent b 2, a.1 sent b 3, b.1 got a.1>b#1, b.1 got a.1>b#2, b.2 got a.1>b#2, b.2 got a.1>b#3",
			"3 3 1 0 0 0", ""},
		{"a restart goes on", "a.1 sent b 1, a.1 sent b 2, b.1 got a.1>b#1, b.2 got a.1>b#2", "2 2 0 0 0 0", ""},
		{"a restart misses one", "a.1 sent b 1, a.1 sent b 2, a.1 sent b 3, b.1 got a.1>b#1, b.2 got a.1>b#3",
			"3 2 0 1 0 0", "b.2 got a.1>b#3 after number 1"},
		{"two restarts, the one between saw less",
			"a.1 sent b 1, a.1 sent b 2, a.1 sent b 3, b.1 got a.1>b#1, b.1 got a.1>b#2, b.2 got a.1>b#1, b.3 got a.1>b#3",
			"3 3 1 0 0 0", ""},
		{"a gap after a restart",
			"a.1 sent b 1, a.1 sent b 2, a.1 sent b 3, b.1 got a.1>b#1, b.1 got a.1>b#2, b.2 got a.1>b#1, b.2 got a.1>b#3",
			"3 3 1 1 0 0", "b.2 got a.1>b#3 after number 1"},
		{"twice after a restart", "a.1 sent b 1, b.1 got a.1>b#1, b.2 got a.1>b#1, b.2 got a.1>b#1",
			"1 1 1 0 1 0", "b.2 got a.1>b#1 again"},
		{"a restarted author counts anew", "a.1 sent b 1, b.1 got a.1>b#1, a.2 sent b 1, b.1 got a.2>b#1, dead a.1", "2 2 0 0 0 0", ""},
		{"the first of a restarted author is missing", "a.2 sent b 1, a.2 sent b 2, b.1 got a.2>b#2", "2 1 0 1 0 0", "a.2>b#2 after number 0"},
		{"a former process after a later", "a.1 sent b 1, a.2 sent b 1, b.1 got a.2>b#1, b.1 got a.1>b#1, dead a.1",
			"2 1 0 0 0 1", "a.1>b#1 after messages of a.2"},
		{"also for a new receiver", "a.1 sent b 1, a.2 sent b 1, b.1 got a.2>b#1, b.2 got a.1>b#1, dead a.1",
			"2 1 0 0 0 1", "a.1>b#1 after messages of a.2"},
		{"for somebody else", "a.1 sent b 1, c.1 got a.1>b#1, b.1 got a.1>b#1", "1 1 0 0 0 0", "not for it"},
		{"no ID", "b.1 got a1", "0 0 0 0 0 0", "not for it"},
		{"a journal with a hole", "a.1 sent b 2, dead a.1", "1 0 0 0 0 0", "sent 2 to b after 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAccount()
			dead := map[string]bool{}
			for _, line := range strings.Split(c.journal, ", ") {
				f := strings.Fields(line)
				if f[0] == "dead" {
					dead[f[1]] = true
					continue
				}
				name, incarnation, _ := strings.Cut(f[0], ".")
				p := process{name: name}
				if _, err := fmt.Sscan(incarnation, &p.incarnation); err != nil {
					t.Fatal(err)
				}
				if f[1] == "got" {
					a.enterGot(p, f[2])
					continue
				}
				var n uint64
				if _, err := fmt.Sscan(f[3], &n); err != nil {
					t.Fatal(err)
				}
				a.enterSent(p, f[2], n)
			}
			a.settle(func(p process) bool { return !dead[p.String()] })
			if got := fmt.Sprint(a.sent, a.delivered, a.again, a.lost, a.duplicated, a.reordered); got != c.want {
				t.Errorf("the account is %s (%v), want %s", got, a, c.want)
			}
			switch {
			case c.problem == "" && len(a.problems) > 0:
				t.Errorf("problems: %q", a.problems)
			case c.problem != "" && (len(a.problems) == 0 || !strings.Contains(a.problems[0], c.problem)):
				t.Errorf("problems %q, want %q first", a.problems, c.problem)
			}
		})
	}
}
