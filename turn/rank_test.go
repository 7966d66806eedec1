package turn

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestReorder(t *testing.T) {
	for _, c := range []struct{ in, want []int }{
		{[]int{}, []int{}},
		{[]int{50}, []int{50}},
		{[]int{50, 45}, []int{50, 45}},           // by a tenth
		{[]int{50, 41}, []int{50, 41}},           // by less than a fifth
		{[]int{50, 40}, []int{40, 50}},           // by a fifth
		{[]int{10, 6}, []int{10, 6}},             // by less than 5 ms
		{[]int{10, 5}, []int{5, 10}},             // by 5 ms
		{[]int{100, 85, 70}, []int{70, 100, 85}}, // over one that it does not beat
		{[]int{100, 85, 70, 20}, []int{20, 70, 100, 85}},
		{[]int{300, 200, 100}, []int{100, 200, 300}},
	} {
		got := reorder(c.in, milliseconds)
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
}

func milliseconds(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// TestReorderSettles: nobody stands before somebody clearly faster, nobody is lost,
// and a second time changes nothing.
func TestReorderSettles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		in := make([]int, r.IntN(MaxEndpoints))
		for i := range in {
			in[i] = r.IntN(200)
		}
		before := slices.Clone(in)
		out := reorder(in, milliseconds)
		if !slices.Equal(in, before) {
			t.Fatal("it changes what it is given")
		}
		for i := range out {
			for j := i + 1; j < len(out); j++ {
				if faster(milliseconds(out[j]), milliseconds(out[i])) {
					t.Fatalf("%v: %d before %d", out, out[i], out[j])
				}
			}
		}
		if again := reorder(out, milliseconds); !slices.Equal(again, out) {
			t.Fatalf("%v becomes %v", out, again)
		}
		slices.Sort(in)
		slices.Sort(out)
		if !slices.Equal(in, out) {
			t.Fatalf("%v becomes %v", in, out)
		}
	}
}

func TestCompareOthers(t *testing.T) {
	at := func(n int64) time.Time { return time.Unix(n, 0) }
	want := []standing{
		{health: Unprobed, serial: 8},
		{health: Unprobed, serial: 9},
		{health: Unhealthy, proven: true, since: at(20), serial: 7}, // the last to be healthy
		{health: Unhealthy, proven: true, since: at(10), serial: 1},
		{health: Unhealthy, since: at(30), serial: 2}, // never healthy
		{health: Unhealthy, since: at(31), serial: 3},
		{health: Unhealthy, proven: true, since: at(40), refused: true, serial: 4},
		{health: Unhealthy, refused: true, serial: 5},
	}
	for i := range 50 {
		got := slices.Clone(want)
		rand.New(rand.NewPCG(1, uint64(i))).Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		slices.SortFunc(got, compareOthers)
		if !slices.Equal(got, want) {
			t.Fatalf("%+v", got)
		}
	}
}

func TestSmooth(t *testing.T) {
	if got := smooth(0, 80); got != 80 {
		t.Errorf("the first: %d", got)
	}
	if got := smooth(80, 40); got != 70 {
		t.Errorf("the next: %d", got)
	}
}
