package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// options are the flags.
type options struct {
	packages string
	n        int
	seed     uint64
	jobs     int
	least    float64
	list     bool
	at       string
	patience time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	flag.StringVar(&o.packages, "packages", "keys,signaling,turn,mesh", "what is changed: directories below the root")
	flag.IntVar(&o.n, "n", 200, "how many changes; 0 means all there are")
	flag.Uint64Var(&o.seed, "seed", rand.Uint64()>>32, "draws the sample; random when it is not given")
	flag.IntVar(&o.jobs, "jobs", 2, "how many run at once")
	flag.Float64Var(&o.least, "least", 90, "fail when fewer percent are noticed")
	flag.BoolVar(&o.list, "list", false, "print the sample and run nothing")
	flag.StringVar(&o.at, "at", "", "of the sample only those at file:line, or file:line:column")
	flag.DurationVar(&o.patience, "patience", 10*time.Second, "how long tests may take beyond five times of what they take")
	flag.Parse()
	root, err := os.Getwd()
	if err == nil {
		err = mutate(ctx, os.Stdout, root, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		stop()
		os.Exit(1)
	}
}

// alsoTested are directories whose tests are tests of another package.
var alsoTested = map[string][]string{"mesh": {"mesh/meshtest"}, "signaling": {"signaling/signalingtest"}}

// errTooFew says that the tests notice less than they should.
var errTooFew = errors.New("too few changes are noticed")

// mutate draws the sample, tries it and reports.
func mutate(ctx context.Context, w io.Writer, root string, o options) error {
	if o.n < 0 || o.jobs < 1 || o.least < 0 || o.least > 100 {
		return fmt.Errorf("-n %d, -jobs %d, -least %g: want 0 or more, 1 or more, 0 to 100", o.n, o.jobs, o.least)
	}
	fmt.Fprintf(w, "seed %d\n", o.seed)
	sources, err := load(root, strings.Split(o.packages, ","))
	if err != nil {
		return err
	}
	drawn := chosen(sources, o)
	if o.list {
		for _, m := range drawn {
			fmt.Fprintln(w, m)
		}
		return nil
	}
	if len(drawn) == 0 {
		return errors.New("there is nothing to change")
	}
	work, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &bench{root: root, work: work, jobs: o.jobs, patience: o.patience}
	suites, err := b.suites(ctx, w, drawn)
	if err != nil {
		return err
	}
	verdicts := make([]verdict, len(drawn))
	var mu sync.Mutex
	err = each(o.jobs, len(drawn), func(i int) error {
		v, err := b.try(ctx, drawn[i], suites[drawn[i].source], i)
		mu.Lock()
		defer mu.Unlock()
		verdicts[i] = v
		switch {
		case err != nil:
			return err
		case v.unbuilt:
			fmt.Fprintf(w, "LEFT OUT %s: the tests do not compile with it\n", v.mutant)
		case v.noticed == "":
			fmt.Fprintf(w, "SURVIVED %s (%d tests run it)\n", v.mutant, v.reached)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return report(w, verdicts, o.least)
}

// chosen is the sample, or what -at leaves of it.
func chosen(sources []*source, o options) []mutant {
	n := o.n
	if n == 0 {
		for _, s := range sources {
			n += 1000 * s.lines()
		}
	}
	var kept []mutant
	for _, m := range sample(sources, n, o.seed) {
		at := fmt.Sprintf("%s:%d:%d:", m.file.name, m.line, m.column)
		if o.at == "" || strings.HasPrefix(at, strings.TrimSuffix(o.at, ":")+":") {
			kept = append(kept, m)
		}
	}
	return kept
}

// suites are the tests of each package that is changed, measured.
func (b *bench) suites(ctx context.Context, w io.Writer, drawn []mutant) (map[*source][]*suite, error) {
	suites := map[*source][]*suite{}
	for _, m := range drawn {
		s := m.source
		if suites[s] != nil {
			continue
		}
		for _, dir := range append([]string{s.short()}, alsoTested[s.short()]...) {
			if _, err := os.Stat(filepath.Join(b.root, dir)); err != nil {
				return nil, err
			}
			start := time.Now()
			u, err := b.measure(ctx, dir, s)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(w, "%s: %d tests, measured in %.0f s\n", dir, len(u.tests), time.Since(start).Seconds())
			suites[s] = append(suites[s], u)
		}
	}
	return suites, nil
}

// report prints the share that was noticed, in all and by package.
func report(w io.Writer, verdicts []verdict, least float64) error {
	type count struct{ all, noticed int }
	var total count
	var order []string
	counts := map[string]*count{}
	for _, v := range verdicts {
		if v.unbuilt {
			continue
		}
		name := v.mutant.source.short()
		c := counts[name]
		if c == nil {
			c = &count{}
			counts[name], order = c, append(order, name)
		}
		c.all++
		total.all++
		if v.noticed != "" {
			c.noticed++
			total.noticed++
		}
	}
	if total.all == 0 {
		return errors.New("the tests compile with none of the changes")
	}
	share := func(c count) float64 { return 100 * float64(c.noticed) / float64(c.all) }
	for _, name := range order {
		fmt.Fprintf(w, "%s: %d mutants, %d noticed (%.0f %%)\n", name, counts[name].all, counts[name].noticed, share(*counts[name]))
	}
	fmt.Fprintf(w, "%d mutants, %d noticed (%.1f %%)\n", total.all, total.noticed, share(total))
	if share(total) < least {
		return fmt.Errorf("%w: %.1f %% of %d, at least %g %% are wanted", errTooFew, share(total), total.all, least)
	}
	return nil
}
