package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// suite is the tests of one directory, with what each of them reaches in the
// package that is changed.
type suite struct {
	dir   string // relative to the root
	tests []test
	// blocks are all stretches of code that coverage knows, by the name of the file.
	blocks map[string][]block
}

// test is one test, example or fuzz target, which runs with its seeds.
type test struct {
	name    string
	lasts   time.Duration
	reaches map[string][]block
}

// block is a stretch of code, from and to "line, column".
type block struct{ from, to position }

type position struct{ line, column int }

func (p position) before(q position) bool {
	return p.line < q.line || p.line == q.line && p.column < q.column
}

// bench runs commands of the module.
type bench struct {
	root string
	work string // for binaries and profiles
	jobs int
	// patience is what tests may take beyond five times of what they take.
	patience time.Duration
}

// build compiles the tests of dir into the named file.
func (b *bench) build(ctx context.Context, dir, binary string, flags ...string) error {
	args := append([]string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", binary}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./"+dir)...)
	cmd.Dir = b.root
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if brokenTest.Match(out) {
		err = errCompile
	}
	return fmt.Errorf("%s does not build: %w\n%s", dir, err, out)
}

// errCompile says that a test file does not compile.
var errCompile = errors.New("a test does not compile")

var brokenTest = regexp.MustCompile(`(?m)^\S+_test\.go:\d+:\d+: `)

// errLong says that a run took longer than it may.
var errLong = errors.New("it takes too long")

// maxMemory is what the tests of a changed program may take, in KiB of address
// space. One that takes more fails.
const maxMemory = 6 << 20

// run runs a test binary in dir, for so long and with so much memory at most. The shell sets the limit,
// and timeout ends the processes that the tests started as well.
func (b *bench) run(ctx context.Context, dir, binary string, most time.Duration, args ...string) ([]byte, error) {
	const script = `ulimit -v "$1"; shift; exec timeout -k 1 "$@"`
	seconds := strconv.FormatFloat(most.Seconds(), 'f', 1, 64)
	line := []string{"-c", script, "sh", strconv.Itoa(maxMemory), seconds, binary, "-test.timeout=0"}
	cmd := exec.CommandContext(ctx, "sh", append(line, args...)...)
	cmd.Dir = filepath.Join(b.root, dir)
	cmd.Env = append(os.Environ(), "GOCOVERDIR="+b.work) // for programs that tests start, which complain otherwise
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && slices.Contains([]int{124, 137}, exit.ExitCode()) {
		err = errLong
	}
	return out, err
}

// measure runs each test of dir alone and says what it reaches in the package.
func (b *bench) measure(ctx context.Context, dir string, s *source) (*suite, error) {
	binary := filepath.Join(b.work, strings.ReplaceAll(dir, "/", "-")+".cover")
	if err := b.build(ctx, dir, binary, "-cover", "-covermode=set", "-coverpkg="+s.path); err != nil {
		return nil, err
	}
	out, err := b.run(ctx, dir, binary, time.Minute, "-test.list=.")
	if err != nil {
		return nil, fmt.Errorf("%s: list of tests: %w\n%s", dir, err, out)
	}
	u := &suite{dir: dir, blocks: map[string][]block{}}
	for _, name := range strings.Fields(string(out)) {
		if !strings.HasPrefix(name, "Benchmark") {
			u.tests = append(u.tests, test{name: name})
		}
	}
	all := make([]map[string][]block, len(u.tests))
	err = each(b.jobs, len(u.tests), func(i int) error {
		t := &u.tests[i]
		profile := fmt.Sprintf("%s.%d", binary, i)
		defer os.Remove(profile)
		// A machine that is busy gets a second chance.
		for attempt := 0; ; attempt++ {
			start := time.Now()
			out, err := b.run(ctx, dir, binary, 5*time.Minute, only(t.name), "-test.coverprofile="+profile)
			t.lasts = time.Since(start)
			if err == nil {
				break
			}
			if attempt > 0 || ctx.Err() != nil {
				return fmt.Errorf("%s fails without any change: %w\n%s", t.name, err, out)
			}
		}
		text, err := os.ReadFile(profile)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		all[i], t.reaches, err = parseProfile(text, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(all) > 0 {
		u.blocks = all[0] // those of every profile
	}
	slices.SortStableFunc(u.tests, func(a, b test) int { return int(a.lasts - b.lasts) })
	return u, nil
}

// only is the flag with which the named tests run and no others.
func only(names ...string) string {
	return "-test.run=^(" + strings.Join(names, "|") + ")$"
}

// profileLine is one of a coverage profile: file, from, to, statements, count.
var profileLine = regexp.MustCompile(`^(.+):(\d+)\.(\d+),(\d+)\.(\d+) \d+ (\d+)$`)

// parseProfile returns all blocks of a profile and those that ran.
func parseProfile(text []byte, s *source) (all, ran map[string][]block, err error) {
	all, ran = map[string][]block{}, map[string][]block{}
	for i, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		if i == 0 {
			continue // the mode
		}
		m := profileLine.FindSubmatch(line)
		if m == nil {
			return nil, nil, fmt.Errorf("coverage profile, line %d: %q", i+1, line)
		}
		n := make([]int, 4)
		for j := range n {
			if n[j], err = strconv.Atoi(string(m[2+j])); err != nil {
				return nil, nil, err
			}
		}
		name := s.short() + "/" + filepath.Base(string(m[1]))
		b := block{position{n[0], n[1]}, position{n[2], n[3]}}
		all[name] = append(all[name], b)
		if string(m[6]) != "0" {
			ran[name] = append(ran[name], b)
		}
	}
	return all, ran, nil
}

// reaching are the tests that run the place of the change, quick ones first. Code
// outside of functions has no coverage; all tests reach it.
func (u *suite) reaching(m mutant) []test {
	b, known := u.block(m)
	if !known {
		return u.tests
	}
	var reach []test
	for _, t := range u.tests {
		if slices.Contains(t.reaches[m.file.name], b) {
			reach = append(reach, t)
		}
	}
	return reach
}

// block is the stretch of code with the change: the last that begins before its statement
// does.
func (u *suite) block(m mutant) (last block, known bool) {
	for _, b := range u.blocks[m.file.name] {
		if m.inside && !m.runs.before(b.from) && (!known || !b.from.before(last.from)) {
			last, known = b, true
		}
	}
	return last, known
}

// batches cuts the tests into runs of growing length, so that most changes are
// noticed by a short one.
func batches(tests []test) [][]test {
	var runs [][]test
	most, sum := 200*time.Millisecond, time.Duration(0)
	for i, t := range tests {
		if i == 0 || sum > most {
			if i > 0 {
				most *= 4
			}
			runs, sum = append(runs, nil), 0
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], t)
		sum += t.lasts
	}
	return runs
}
