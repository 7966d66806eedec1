package rules_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/internal/rules"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree makes a tree from files named in a text: lines "-- path --" begin one.
func tree(t *testing.T, text string) rules.Tree {
	t.Helper()
	fsys := fstest.MapFS{}
	var name string
	for line := range strings.Lines(text) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok {
			name = strings.TrimSuffix(p, " --")
			fsys[name] = &fstest.MapFile{}
			continue
		}
		if name != "" {
			fsys[name].Data = append(fsys[name].Data, line...)
		}
	}
	tr, err := rules.Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// check compares offences with what is wanted: parts of them, in order.
func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d offences, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("offence %q, want one with %q", got[i], want[i])
		}
	}
}

// importing is a file in dir that imports the paths; "/x" is in this module.
func importing(file, pkg string, paths ...string) string {
	var b strings.Builder
	b.WriteString("-- " + file + " --\npackage " + pkg + "\n")
	for _, p := range paths {
		if strings.HasPrefix(p, "/") {
			p = rules.Module + p
		}
		b.WriteString("import _ \"" + p + "\"\n")
	}
	return b.String()
}

func TestImports(t *testing.T) {
	allowed := []string{
		importing("keys/a.go", "keys", "crypto/ed25519", "net/http"),
		importing("keys/a_test.go", "keys_test", "/keys", "/mesh", "go.uber.org/goleak"),
		importing("witness/a.go", "witness", "/keys"),
		importing("metrics/a.go", "metrics", "go.opentelemetry.io/otel/metric/noop"),
		importing("metrics/promexport/a.go", "promexport", "/metrics", "github.com/prometheus/client_golang/prometheus", "go.opentelemetry.io/otel/sdk/metric"),
		importing("signaling/a.go", "signaling", "/keys", "/witness", "/metrics", "/internal/x", "github.com/coder/websocket"),
		importing("signaling/signalingtest/a.go", "signalingtest", "/signaling", "testing"),
		importing("mesh/a.go", "mesh", "/keys", "/witness", "/metrics", "/signaling", "/internal/x", "github.com/pion/webrtc/v4"),
		importing("mesh/a_test.go", "mesh", "/metrics/promexport"),
		importing("internal/x/a.go", "x", "/internal/y", "github.com/pion/turn/v5"),
		importing("internal/size/a.go", "main", "/keys", "/mesh"),
		importing("examples/hello/a.go", "main", "/mesh", "/metrics/promexport", "github.com/prometheus/client_golang/prometheus"),
	}
	for _, text := range allowed {
		check(t, tree(t, text).Imports())
	}
	refused := []string{
		importing("a.go", "agentmesh", "/keys"),
		importing("keys/a.go", "keys", "golang.org/x/sys/unix"),
		importing("keys/a.go", "keys", "/internal/x"),
		importing("keys/a.go", "keys", "/metrics"),
		importing("keys/sub/a.go", "sub", "/witness"),
		importing("witness/a.go", "witness", "/metrics"),
		importing("witness/a.go", "witness", "github.com/fxamacker/cbor/v2"),
		importing("metrics/a.go", "metrics", "/keys"),
		importing("metrics/a.go", "metrics", "go.opentelemetry.io/otel/sdk/metric"),
		importing("metrics/a.go", "metrics", "/metrics/promexport"),
		importing("signaling/a.go", "signaling", "/mesh"),
		importing("signaling/a.go", "signaling", "github.com/pion/webrtc/v4"),
		importing("mesh/a.go", "mesh", "/metrics/promexport"),
		importing("mesh/a.go", "mesh", "/examples/hello"),
		importing("mesh/a_test.go", "mesh", "/examples/hello"),
		importing("mesh/a.go", "mesh", "go.opentelemetry.io/otel/exporters/prometheus"),
		importing("mesh/a.go", "mesh", "modernc.org/sqlite"),
		importing("mesh/a.go", "mesh", ""+"/"),
		importing("internal/x/a.go", "x", "/mesh"),
		importing("internal/size/a.go", "main", "/metrics/promexport"),
		importing("examples/hello/a.go", "main", "/examples/other"),
		importing("newcomer/a.go", "newcomer"),
	}
	for _, text := range refused {
		if got := tree(t, text).Imports(); len(got) != 1 {
			t.Errorf("%d offences, want one:\n%s%s", len(got), text, strings.Join(got, "\n"))
		}
	}
}

func TestOneWebRTCFile(t *testing.T) {
	const lib = "github.com/pion/webrtc/v4"
	one := importing("mesh/a.go", "mesh", lib) + importing("mesh/a_test.go", "mesh", lib) + importing("mesh/b.go", "mesh")
	check(t, tree(t, one).OneWebRTCFile())
	check(t, tree(t, importing("keys/a.go", "keys")).OneWebRTCFile())
	check(t, tree(t, importing("mesh/b.go", "mesh")).OneWebRTCFile(), "no file")
	check(t, tree(t, one+importing("mesh/c.go", "mesh", lib)).OneWebRTCFile(), "mesh/a.go, mesh/c.go")
	check(t, tree(t, one+importing("mesh/sub/c.go", "sub", lib+"/pkg/media")).OneWebRTCFile(), "mesh/sub/c.go")
}

func TestPackageComments(t *testing.T) {
	check(t, tree(t, `
-- a/doc.go --
// Package a is fine.
package a
-- a/a.go --
package a
-- a/a_test.go --
// Package a_test may say something too.
package a_test
-- cmd/tool/main.go --
//go:build linux

// Command tool is fine.
package main
-- cmd/gofmt/main.go --
// Gofmt formats.
package main
-- only/only_test.go --
package only_test
`).PackageComments())
	check(t, tree(t, `
-- a/a.go --
package a
-- b/doc.go --
// Package b is fine.
package b
-- b/b.go --
// Package b is explained twice.
package b
-- c/doc.go --
// Package cc is another.
package c
-- cmd/tool/main.go --
// Package main says nothing.
package main
-- d/d.go --
//go:build linux

package d
`).PackageComments(),
		"a: no package comment", "b/b.go and b/doc.go", `c/doc.go:1: the package comment does not begin with "Package c"`,
		`"Command tool"`, "d: no package comment")
}

func TestSleeps(t *testing.T) {
	check(t, tree(t, `
-- a/a_test.go --
package a
import ("testing"; "testing/synctest"; "time")
func TestLiteral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		go func() { time.Sleep(1) }()
		wait()
		new(x).wait2()
	})
}
// wait waits.
//
// bubble: the clock is virtual.
func wait() { time.Sleep(1) }
// bubble: it sleeps.
func (*x) wait2() { wait() }
func TestByName(t *testing.T) { synctest.Test(t, byName) }
func byName(t *testing.T) { time.Sleep(1) }
func inWorld(t *testing.T, f func(int)) { synctest.Test(t, func(t *testing.T) { f(1) }) }
func TestInWorld(t *testing.T) { inWorld(t, func(int) { time.Sleep(1) }) }
-- a/a.go --
package a
import "time"
func sleep() { time.Sleep(1) }
`).Sleeps())
	check(t, tree(t, `
-- a/a_test.go --
package a
import ("testing"; "testing/synctest"; "time")
func TestPlain(t *testing.T) {
	time.Sleep(1)
	synctest.Test(t, func(t *testing.T) {})
	f := time.Sleep
	wait()
	new(x).wait2()
}
// bubble: the clock is virtual.
func wait() { time.Sleep(1) }
// bubble: it sleeps.
func (*x) wait2() { wait() }
// Mentioning bubble: within a line is no mark.
func other() { time.Sleep(1) }
-- b/b.go --
package b
import ("testing"; clock "time")
func Helper(t testing.TB) { clock.Sleep(1) }
-- c/c_test.go --
package c
import . "time"
-- d/d_test.go --
package d
import ("testing"; "testing/synctest"; "time")
func both(t *testing.T, f func(int)) { f(0); synctest.Test(t, func(t *testing.T) { f(1) }) }
func TestBoth(t *testing.T) { both(t, func(int) { time.Sleep(1) }) }
func neither(t *testing.T, f func(int)) { synctest.Test(t, func(t *testing.T) {}) }
func TestNeither(t *testing.T) { neither(t, func(int) { time.Sleep(1) }) }
`).Sleeps(),
		"a_test.go:4: time.Sleep", "a_test.go:6: time.Sleep", "a_test.go:7: wait", "a_test.go:8: wait2",
		"a_test.go:15: time.Sleep", "b.go:3: time.Sleep", "c_test.go:1: imports time with a dot",
		"d_test.go:4: time.Sleep", "d_test.go:6: time.Sleep")
}

func TestSkips(t *testing.T) {
	check(t, tree(t, `
-- a/a_test.go --
package a
import "testing"
func TestA(t *testing.T) { t.Log("Skip"); d.SkipValue() }
`).Skips())
	check(t, tree(t, `
-- a/a_test.go --
package a
import "testing"
func TestA(t *testing.T) {
	t.Skip()
	t.Skipf("")
	defer t.SkipNow()
	if testing.Short() {}
}
`).Skips(), ":4:", ":5:", ":6:", ":7:")
}

func TestEventNames(t *testing.T) {
	check(t, tree(t, `
-- witness/name.go --
package witness
// A: first.
const A Name = "a"
const (
	// B is second.
	B Name = "b"
	c = "not an event"
	D string = "neither"
)
-- other/name.go --
package other
const A Name = "a"
`).EventNames())
	check(t, tree(t, `
-- witness/name.go --
package witness
const A Name = "a"
const (
	// Something about B.
	B Name = "b"
	// C: third.
	C Name = "b"
	D Name = "d" // D: behind.
)
`).EventNames(), "event A", "event B", "B and C", "event D")
}

func TestUnfinished(t *testing.T) {
	word := "TO" + "DO"
	check(t, tree(t, "-- a/a.go --\npackage a // "+word+"s are plural, _"+word+" is part of a name\n").Unfinished())
	check(t, tree(t, "-- a/a.go --\npackage a\n// "+word+": later\nvar x = `FIX"+"ME`\n").Unfinished(), "a/a.go:2", "a/a.go:3")
}

func TestLimits(t *testing.T) {
	check(t, tree(t, `
-- a/limits.go --
package a

// MaxA is refused beyond.
const MaxA = 1

const maxB = 2

const (
	// maxC and maxD are refused beyond.
	maxC = 1
	maxD = 1

	maxE = 1
	maxF = 1 // dropped beyond
)
-- a/other.go --
package a

const (
	maxG    = 1
	maximum = 1
	least   = 1
)
-- a/a_test.go --
package a

const maxH = 1
-- b/b.go --
package b

const maxI = 1
`).Limits(), "maxB", "maxE", "maxG")
}

func TestPromises(t *testing.T) {
	tr := tree(t, `
-- a/doc.go --
// Package a keeps its word: TestKept, and breaks it: TestBroken.
package a
-- a/a_test.go --
package a
func TestKept(t *testing.T) {}
func (x) TestMethod(t *testing.T) {}
`)
	check(t, tr.Promises(map[string][]byte{"R.md": []byte("see `TestKept`, TestTest, Testing and TestMethod.")}),
		"R.md: there is no TestMethod", "R.md: there is no TestTest", "a/doc.go: there is no TestBroken")
}

// TestLoad: what the go command ignores is left out, and what does not parse is
// an error.
func TestLoad(t *testing.T) {
	tr := tree(t, `
-- a/a.go --
package a
-- a/notes.txt --
not Go
-- a/testdata/b.go --
package b
-- .hidden/b.go --
package b
-- _old/b.go --
package b
-- nested/go.mod --
module nested
-- nested/b.go --
package b
-- go.mod --
module root
`)
	if len(tr) != 1 || tr[0].Path != "a/a.go" {
		t.Errorf("loaded %v", tr)
	}
	if _, err := rules.Load(fstest.MapFS{"a.go": {Data: []byte("package")}}); err == nil {
		t.Error("a broken file was accepted")
	}
	if _, err := rules.Load(broken{}); err == nil {
		t.Error("an unreadable tree was accepted")
	}
}

type broken struct{}

func (broken) Open(string) (fs.File, error) { return nil, fs.ErrPermission }

// TestBlocks has Go in texts, right and wrong. The module's own go command says what packages export.
func TestBlocks(t *testing.T) {
	tr := tree(t, "-- keys/a.go --\n// Package keys has\n//\n//\tid, err := keys.Generate(\"a\")\n//\tnot Go\n//\n// and\n//\n//\tkeys.Missing(ctx)\npackage keys\n")
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"```go\npackage main\n\nimport \"os\"\n\nfunc main() { os.Exit(0) }\n```\n", nil},
		{"```go\npackage main\n\nimport \"os\"\n\nfunc main() { }\n```\n", []string{"README.md:4: \"os\" imported and not used"}},
		{"text\n\n```go\nid, err := keys.Generate(\"a\")\n```\n", nil},
		{"```go\nid := keys.Generate(\"a\")\n```\n", []string{"README.md:2:"}},
		{"```go\nfmt.Println(a.B)\n```\n", []string{"README.md:2: undefined: a"}},
		{"<!-- go: a struct{ B int } -->\n```go\nfmt.Println(a.B)\n```\n", nil},
		{"```go\nfmt.Println(\n```\n", []string{"README.md:"}},
		{"```sh\nfmt.Println(\n```\n", nil},
	} {
		got, err := tr.Blocks("../..", map[string][]byte{"README.md": []byte(tt.text)})
		if err != nil {
			t.Fatal(err)
		}
		check(t, got, append([]string{"keys/a.go:1: undefined: keys.Missing"}, tt.want...)...)
	}
	if _, err := tr.Blocks(t.TempDir(), map[string][]byte{"README.md": []byte("```go\n```\n")}); err == nil {
		t.Error("Blocks works outside of the module")
	}
}
