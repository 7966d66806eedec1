package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
)

// verdict is what became of a change.
type verdict struct {
	mutant  mutant
	noticed string // by which test, or how; "" when it survived
	reached int    // how many tests ran it
	unbuilt bool   // the tests do not compile with it: it is no change that anybody could make
}

// try runs the tests of the suites against one change, until one fails. id tells
// its files from those of others.
func (b *bench) try(ctx context.Context, m mutant, suites []*suite, id int) (verdict, error) {
	dir := filepath.Join(b.work, fmt.Sprint(id))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return verdict{}, err
	}
	defer os.RemoveAll(dir)
	overlay, err := writeOverlay(dir, m)
	if err != nil {
		return verdict{}, err
	}
	v := verdict{mutant: m}
	for _, u := range suites {
		tests := u.reaching(m)
		if len(tests) == 0 {
			continue
		}
		v.reached += len(tests)
		binary := filepath.Join(dir, "test")
		switch err := b.build(ctx, u.dir, binary, "-overlay="+overlay); {
		case errors.Is(err, errCompile):
			v.unbuilt = true
			return v, nil
		case err != nil:
			return verdict{}, fmt.Errorf("%s: %w", m, err)
		}
		for _, batch := range batches(tests) {
			var names []string
			most := b.patience
			for _, t := range batch {
				names = append(names, t.name)
				most += 5 * t.lasts
			}
			out, err := b.run(ctx, u.dir, binary, most, only(names...), "-test.failfast")
			if ctx.Err() != nil {
				return verdict{}, ctx.Err()
			}
			if err != nil {
				v.noticed = notice(out, err)
				return v, nil
			}
		}
	}
	return v, nil
}

// writeOverlay writes the changed file and what tells the go command about it.
func writeOverlay(dir string, m mutant) (string, error) {
	changed := filepath.Join(dir, filepath.Base(m.file.path))
	if err := os.WriteFile(changed, m.text(), 0o600); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {m.file.path: changed}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

var failedTest = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// notice says how a failing run noticed.
func notice(out []byte, err error) string {
	if errors.Is(err, errLong) {
		return "time"
	}
	if m := failedTest.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return "the end of the tests" // a panic elsewhere, a leak
}

// each calls f with 0 to n-1, so many at once, and stops at the first error.
func each(jobs, n int, f func(int) error) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		next  int
		first error
	)
	for range jobs {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= n || first != nil
				mu.Unlock()
				if stop {
					return
				}
				if err := f(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}
