package rules

import (
	"path"
	"slices"
	"strings"
)

// layer is what the packages in one directory, and below it, may import besides
// the standard library and each other.
type layer struct {
	dir    string
	own    []string // directories of this module
	others []string // other modules or packages in them; nil is none
}

// layers is the architecture: every directory with packages is here, and a new
// one must find its place before it can be built. The longest dir that fits is
// the one that counts. keys and witness are light on purpose: programs that only
// verify import nothing else.
var layers = []layer{
	{dir: "."},
	{dir: "keys"},
	{dir: "witness", own: []string{"keys"}},
	{dir: "metrics", others: otelAPI},
	{dir: "metrics/promexport", own: []string{"metrics"}, others: anything},
	{dir: "signaling", own: []string{"keys", "witness", "metrics", "internal"}, others: append([]string{
		"github.com/cenkalti/backoff/v5",
		"github.com/coder/websocket",
		"github.com/fxamacker/cbor/v2",
		"golang.org/x/time/rate",
	}, otelAPI...)},
	{dir: "turn", own: []string{"witness", "metrics", "internal"}, others: append([]string{
		"github.com/pion/logging",
		"github.com/pion/stun/v4",
		"github.com/pion/transport/v5",
		"github.com/pion/turn/v5",
		"github.com/sony/gobreaker/v2",
		"golang.org/x/time/rate",
	}, otelAPI...)},
	{dir: "mesh", own: []string{"keys", "witness", "metrics", "signaling", "turn", "internal"}, others: anything},
	// Shared by the packages above and therefore below all of them: it imports
	// none. A command in it, which nobody can import, may.
	{dir: "internal", others: anything},
	{dir: "examples", own: []string{"keys", "witness", "metrics", "signaling", "turn", "mesh", "internal"}, others: anything},
}

// anything allows every module.
var anything = []string{""}

// otelAPI is the part of OpenTelemetry that costs next to nothing.
var otelAPI = []string{
	"go.opentelemetry.io/otel/attribute",
	"go.opentelemetry.io/otel/codes",
	"go.opentelemetry.io/otel/metric",
	"go.opentelemetry.io/otel/propagation",
	"go.opentelemetry.io/otel/trace",
}

// heavy modules may be imported only in heavyDirs, whatever the layer says: who
// embeds the SDK must not pay for them.
var (
	heavy     = []string{"github.com/prometheus", "go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "modernc.org/sqlite"}
	heavyDirs = []string{"metrics/promexport", "examples"}
)

// Imports reports imports that point the wrong way. Test files may import what
// they like except examples, which nobody may.
func (t Tree) Imports() []string {
	var bad []string
	for _, f := range t {
		l := layerOf(f.Dir())
		if l == nil {
			bad = append(bad, f.at(f.AST.Package, "directory %s has no place in the layers", f.Dir()))
			continue
		}
		for _, spec := range f.AST.Imports {
			if why := refuse(f, l, importPath(spec)); why != "" {
				bad = append(bad, f.at(spec.Pos(), "%s", why))
			}
		}
	}
	return bad
}

// refuse says why f may not import p, or nothing.
func refuse(f *File, l *layer, p string) string {
	dir, own := strings.CutPrefix(p, Module)
	dir = strings.TrimPrefix(dir, "/")
	isCommand := f.AST.Name.Name == "main"
	switch {
	case own && within(dir, "examples"):
		return "nobody imports an example: " + dir
	case f.Test():
		return ""
	case own && within(dir, "metrics/promexport") && !within(f.Dir(), "metrics/promexport") && !within(f.Dir(), "examples"):
		return "only examples and tests import metrics/promexport"
	case own && l.dir == "internal" && isCommand:
		return ""
	case own && dir != "" && (within(dir, l.dir) || slices.ContainsFunc(l.own, func(o string) bool { return within(dir, o) })):
		return ""
	case own:
		return l.dir + " does not import " + path.Join(Module, dir)
	case !strings.Contains(strings.Split(p, "/")[0], "."):
		return "" // the standard library
	case matches(p, heavy) && !slices.ContainsFunc(heavyDirs, func(d string) bool { return within(f.Dir(), d) }):
		return "too heavy for " + l.dir + ": " + p
	case !matches(p, l.others):
		return l.dir + " does not import " + p
	}
	return ""
}

func matches(p string, list []string) bool {
	return slices.ContainsFunc(list, func(m string) bool { return m == "" || within(p, m) })
}

// layerOf is the layer of a directory: nil when it has none.
func layerOf(dir string) *layer {
	var best *layer
	for i, l := range layers {
		fits := within(dir, l.dir) && (l.dir != "." || dir == ".")
		if fits && (best == nil || len(l.dir) > len(best.dir)) {
			best = &layers[i]
		}
	}
	return best
}

// webRTC is the library that one file of mesh may know.
const webRTC = "github.com/pion/webrtc/v4"

// OneWebRTCFile reports when the number of files in mesh that import webRTC is
// not one. Everything else there is written against an interface and tested
// without a network. Test files do not count, and a tree without mesh is fine.
func (t Tree) OneWebRTCFile() []string {
	var with []string
	exists := false
	for _, f := range t {
		if f.Test() || !within(f.Dir(), "mesh") {
			continue
		}
		exists = true
		if slices.ContainsFunc(f.imports(), func(p string) bool { return within(p, webRTC) }) {
			with = append(with, f.Path)
		}
	}
	switch {
	case !exists || len(with) == 1:
		return nil
	case len(with) == 0:
		return []string{"mesh: no file imports " + webRTC}
	}
	return []string{"mesh: more than one file imports " + webRTC + ": " + strings.Join(with, ", ")}
}
