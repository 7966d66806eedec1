package keys

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseDirectoryVector(t *testing.T) {
	k1 := rfcKey(t)
	k2, _ := ParsePublicKey("ed25519:PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw")
	k3, _ := ParsePublicKey("ed25519:_FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU")
	k4, _ := ParsePublicKey("ed25519:k19oMZ1PIn4Cv9VKDd-FuKJC5CpCd6pe9eqraRcQkk4")
	k5, _ := ParsePublicKey("ed25519:nXSTK9tvIdx6sh1vxSYPR04NU4Vx-6eoK3T_5H5vmhA")
	k6, _ := ParsePublicKey("ed25519:XhKv6q-JQI5pFHmLxQviBHvNlEOgGjgMI8KB5TF3A0g")
	want := []Entry{
		{"agent-a", k1, nil},
		{"agent-b", k2, []string{"operator", "auditor:eu"}},
		{"agent-b", k3, nil},
		{"if://agent/swarm/legal-1@1.2.0#x", k4, nil},
		{"#bot", k5, nil},
		{`\srv`, k6, nil},
	}
	file := readFile(t, "testdata/agents.txt")
	for name, data := range map[string][]byte{"LF": file, "CR LF": bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n"))} {
		got, err := ParseDirectory(bytes.NewReader(data))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, want)
		}
	}
	for _, e := range want {
		if got, err := ParseDirectory(strings.NewReader(e.String() + "\n")); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], e) {
			t.Errorf("%q is read as %v, %v", e, got, err)
		}
	}
}

func TestParseDirectoryFaults(t *testing.T) {
	k := rfcText
	for name, tt := range map[string]struct {
		text string
		line int
	}{
		"no key":                {"agent-a\n", 1},
		"no key but a comment":  {"agent-a # " + k + "\n", 1},
		"bad ID":                {"agent*a " + k + "\n", 1},
		"ID of another script":  {"agеnt-a " + k + "\n", 1},
		"byte order mark":       {"\ufeffagent-a " + k + "\n", 1},
		"backslash alone":       {`\ ` + k + "\n", 1},
		"needless backslash":    {`\agent-a ` + k + "\n", 1},
		"bad key":               {"agent-a " + k[:50] + "\n", 1},
		"small order key":       {"agent-a ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", 1},
		"empty role":            {"agent-a " + k + " operator,\n", 1},
		"role with a sign":      {"agent-a " + k + " operator;x\n", 1},
		"role twice":            {"agent-a " + k + " a,b,a\n", 1},
		"role too long":         {"agent-a " + k + " " + strings.Repeat("r", MaxRoleSize+1) + "\n", 1},
		"roles apart":           {"agent-a " + k + " a, b\n", 1},
		"too many roles":        {"agent-a " + k + " " + numbered("r", MaxRoles+1, ",") + "\n", 1},
		"same key twice":        {"agent-a " + k + "\n\nagent-a " + k + " operator\n", 3},
		"one key, two agents":   {"# x\nagent-a " + k + "\n\nagent-b " + k + "\n", 4},
		"no end of line":        {"agent-a " + k, 1},
		"no end of comment":     {"agent-a " + k + "\n# agents of", 2},
		"zeros":                 {"# \x00\x00\n", 1},
		"escape sequence":       {"# \x1b[2J\n", 1},
		"not UTF-8":             {"# \xff\n", 1},
		"carriage return alone": {"agent-a " + k + "\ragent-b " + k + "\n", 1},
		"line too long":         {"\n#" + strings.Repeat("x", MaxDirectoryLine) + "\n", 2},
		"file too large":        {strings.Repeat("#\n", MaxDirectorySize/2+1), 1},
	} {
		entries, err := ParseDirectory(strings.NewReader(tt.text))
		var all SyntaxErrors
		var one *SyntaxError
		if !errors.As(err, &all) || len(all) != 1 || !errors.As(err, &one) || one.Line != tt.line || one.Reason == "" || entries != nil {
			t.Errorf("%s: %v, %v; want one SyntaxError in line %d", name, entries, err, tt.line)
		}
	}
}

// nthKey is one of any number of keys, of which nobody knows the private halves.
func nthKey(n int) PublicKey { return PublicKey{sha256.Sum256(fmt.Append(nil, n))} }

func numbered(s string, n int, sep string) string {
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprint(s, i))
	}
	return strings.Join(parts, sep)
}

func TestParseDirectoryLimitsFit(t *testing.T) {
	line := "agent-a " + rfcText + " " + numbered("r", MaxRoles-1, ",") + "," + strings.Repeat("x", MaxRoleSize) + " #"
	line += strings.Repeat("x", MaxDirectoryLine-len(line)) + "\r\n"
	entries, err := ParseDirectory(strings.NewReader(line))
	if err != nil || len(entries) != 1 || len(entries[0].Roles) != MaxRoles {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestParseDirectoryCounts(t *testing.T) {
	var keys, agents strings.Builder
	for n := range MaxKeysPerAgent + 1 {
		fmt.Fprintln(&keys, Entry{ID: "agent-a", Key: testKey(t, byte(n+1))})
	}
	for n := range MaxDirectoryEntries + 1 {
		fmt.Fprintf(&agents, "%x %s\n", n, nthKey(n))
	}
	for text, limit := range map[string]int{keys.String(): MaxKeysPerAgent, agents.String(): MaxDirectoryEntries} {
		var e *SyntaxError
		if _, err := ParseDirectory(strings.NewReader(text)); !errors.As(err, &e) || e.Line != limit+1 {
			t.Errorf("beyond %d: %v", limit, err)
		}
		last := strings.LastIndexByte(text[:len(text)-1], '\n') + 1
		if entries, err := ParseDirectory(strings.NewReader(text[:last])); err != nil || len(entries) != limit {
			t.Errorf("at %d: %d entries, %v", limit, len(entries), err)
		}
	}
}

func TestParseDirectoryReportsEveryFault(t *testing.T) {
	var all SyntaxErrors
	_, err := ParseDirectory(strings.NewReader("a\nb " + rfcText + "\nc d\n\ne\n"))
	if !errors.As(err, &all) || len(all) != 3 || all[0].Line != 1 || all[1].Line != 3 || all[2].Line != 5 {
		t.Errorf("%v", err)
	}
	_, err = ParseDirectory(strings.NewReader(strings.Repeat("a\n", 2*MaxSyntaxErrors)))
	if !errors.As(err, &all) || len(all) != MaxSyntaxErrors {
		t.Errorf("%d faults, want %d", len(all), MaxSyntaxErrors)
	}
	if _, err := ParseDirectory(iotest.ErrReader(iotest.ErrTimeout)); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("reader's error: %v", err)
	}
}

// What is cut off within a line is noticed, so that no half of a line is taken for a whole one. Between lines
// the file is simply a shorter one.
func TestTruncatedDirectory(t *testing.T) {
	file := readFile(t, "testdata/agents.txt")
	for n := range file {
		_, err := ParseDirectory(bytes.NewReader(file[:n]))
		if between := n == 0 || file[n-1] == '\n'; (err == nil) != between {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func FuzzParseDirectory(f *testing.F) {
	f.Add(readFile(f, "testdata/agents.txt"))
	f.Add([]byte("agent-a " + rfcText + " operator\n"))
	f.Add([]byte("\\#a " + rfcText + "\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ParseDirectory(bytes.NewReader(data))
		if err != nil {
			var e SyntaxErrors
			if entries != nil || !errors.As(err, &e) || len(e) == 0 {
				t.Fatal(entries, err)
			}
			return
		}
		var b strings.Builder
		owners := make(map[PublicKey]bool)
		for _, e := range entries {
			if owners[e.Key] {
				t.Fatalf("%v stands twice", e.Key)
			}
			owners[e.Key] = true
			if (Claim{ID: e.ID, Key: e.Key, Time: epoch}).check() != nil {
				t.Fatalf("invalid entry %v", e)
			}
			fmt.Fprintln(&b, e)
		}
		again, err := ParseDirectory(strings.NewReader(b.String()))
		if err != nil || !reflect.DeepEqual(again, entries) {
			t.Fatalf("%v is read back as %v, %v", entries, again, err)
		}
	})
}

func BenchmarkParseDirectory(b *testing.B) {
	var text strings.Builder
	for n := range 1000 {
		fmt.Fprintf(&text, "agent-%d %s operator\n", n, nthKey(n))
	}
	for b.Loop() {
		if _, err := ParseDirectory(strings.NewReader(text.String())); err != nil {
			b.Fatal(err)
		}
	}
}
