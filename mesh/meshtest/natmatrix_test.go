package meshtest_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/mesh"
	"github.com/infrafabric/agentmesh/mesh/meshtest"
)

// TestNATMatrix: which agents meet, by which path and in what time, is what the
// documentation of package mesh says.
func TestNATMatrix(t *testing.T) {
	t.Parallel()
	nats := []meshtest.NAT{meshtest.FullCone, meshtest.AddressRestricted, meshtest.PortRestricted, meshtest.Symmetric}
	var table strings.Builder
	for relays, title := range []string{"without a relay", "with a relay"} {
		fmt.Fprintf(&table, "//\t%-20s", title)
		for _, n := range nats {
			fmt.Fprintf(&table, "%-20s", n)
		}
		table.WriteString("\n")
		for _, n := range nats {
			fmt.Fprintf(&table, "//\t%-20s", n)
			for _, m := range nats {
				fmt.Fprintf(&table, "%-20s", firstContact(t, relays, n, m))
			}
			table.WriteString("\n")
		}
	}
	var lines []string
	for line := range strings.Lines(table.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	want := strings.Join(lines, "\n")
	doc, err := os.ReadFile("../doc.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), want) {
		t.Errorf("the documentation of package mesh should say:\n%s", want)
	}
}

// firstContact dials in a universe of its own.
func firstContact(t *testing.T, relays int, n, m meshtest.NAT) (cell string) {
	meshtest.Run(t, meshtest.Config{RTT: rtt, Relays: relays}, func(u *meshtest.Universe) {
		u.Agent("a", n)
		u.Agent("b", m)
		began := time.Now()
		p, err := dialWithin(u.Lookup("a").Node(), "b", time.Minute)
		if err != nil {
			cell = "none"
			return
		}
		kind := "direct"
		if p.Status().Path.Relayed() {
			kind = "relay"
		}
		// ICE's secrets are not of the seed, and move it within the second.
		cell = fmt.Sprintf("%s < %d s", kind, int(time.Since(began)/time.Second)+1)
		u.Traffic("a", "b", time.Second, 1)
		u.Traffic("b", "a", time.Second, 1)
		time.Sleep(10 * time.Second)
		u.Settle()
	})
	return cell
}

// dialWithin dials with a deadline.
func dialWithin(n *mesh.Node, to string, d time.Duration) (*mesh.Peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return n.Dial(ctx, to)
}
