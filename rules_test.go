package agentmesh_test

import (
	"os"
	"testing"

	"github.com/infrafabric/agentmesh/internal/rules"
)

// TestRules applies the rules of the project to its own source.
func TestRules(t *testing.T) {
	tree, err := rules.Load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	documents := map[string][]byte{}
	for _, name := range []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md"} {
		if documents[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, rule := range []struct {
		name  string
		check func() []string
	}{
		{"imports point down", tree.Imports},
		{"one file of mesh knows WebRTC", tree.OneWebRTCFile},
		{"one package comment per directory", tree.PackageComments},
		{"event names are documented", tree.EventNames},
		{"tests do not sleep in real time", tree.Sleeps},
		{"tests do not skip", tree.Skips},
		{"nothing is unfinished", tree.Unfinished},
		{"limits stand in one place", tree.Limits},
		{"Go in texts compiles", func() []string {
			bad, err := tree.Blocks(".", documents)
			if err != nil {
				t.Fatal(err)
			}
			return bad
		}},
		{"promises name tests that exist", func() []string { return tree.Promises(documents) }},
	} {
		t.Run(rule.name, func(t *testing.T) {
			for _, offence := range rule.check() {
				t.Error(offence)
			}
		})
	}
}
