package keys

import "fmt"

// NameError says why a name is not acceptable.
type NameError struct {
	Kind   string // "agent ID" or "mesh name"
	Name   string // the name as given
	Reason string
}

func (e *NameError) Error() string { return "keys: " + e.text() }

func (e *NameError) text() string {
	name := e.Name
	if len(name) > MaxNameSize {
		name = name[:MaxNameSize] // an error must not carry megabytes into a log
	}
	return fmt.Sprintf("%s %q: %s", e.Kind, name, e.Reason)
}

// CheckAgentID reports whether id can be an agent ID: 1 to [MaxNameSize] bytes of printable ASCII
// (0x21 to 0x7e) without '*' (which addresses everybody) and '>' (which separates the two ends of a
// pair in logs). Names such as "agent-a" and URIs such as "if://agent/swarm/legal-1@1.2.0" or
// "spiffe://acme/billing" qualify. IDs are compared byte by byte: ASCII alone rules out two IDs that
// look alike to a reader. The error is a [*NameError].
func CheckAgentID(id string) error { return checkName("agent ID", id) }

// CheckMesh reports whether name can name a mesh. The rules are those of [CheckAgentID]; an
// importer that has a default for the empty name applies it first. The error is a [*NameError].
func CheckMesh(name string) error { return checkName("mesh name", name) }

func checkName(kind, name string) error {
	if name == "" {
		return &NameError{kind, name, "it is empty"}
	}
	if len(name) > MaxNameSize {
		return &NameError{kind, name, fmt.Sprintf("%d bytes, more than %d", len(name), MaxNameSize)}
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c < 0x21 || c > 0x7e || c == '*' || c == '>' {
			return &NameError{kind, name, fmt.Sprintf("byte %d (%#02x) is not allowed", i, c)}
		}
	}
	return nil
}
