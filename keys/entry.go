package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Entry is one line of a directory: this key may speak for this agent.
type Entry struct {
	ID    string
	Key   PublicKey
	Roles []string // in the order of the line; nil for none
}

// String returns the line of the entry, without an end of line: what [ParseDirectory] reads back as the same
// entry, provided that the fields are valid.
func (e Entry) String() string {
	line := escapeID(e.ID) + " " + e.Key.String()
	if len(e.Roles) > 0 {
		line += " " + strings.Join(e.Roles, ",")
	}
	return line
}

// escapeID writes an agent ID as the first word of a line. '#' begins a comment there and nowhere else
// within a word, so only a leading one needs a mark, and with it the mark itself.
func escapeID(id string) string {
	if id != "" && (id[0] == '#' || id[0] == '\\') {
		return `\` + id
	}
	return id
}

// SyntaxError is a fault in a directory.
type SyntaxError struct {
	Line   int // from 1
	Reason string
	Column int // byte of the line, from 1; 0 where no single place is meant
}

func (e *SyntaxError) Error() string { return "keys: " + e.text() }

func (e *SyntaxError) text() string {
	if e.Column > 0 {
		return fmt.Sprintf("directory line %d, byte %d: %s", e.Line, e.Column, e.Reason)
	}
	return fmt.Sprintf("directory line %d: %s", e.Line, e.Reason)
}

// SyntaxErrors are the faults of one directory in the order of its lines: one or more, at most
// [MaxSyntaxErrors].
type SyntaxErrors []*SyntaxError

func (e SyntaxErrors) Error() string { return "keys: " + e.text() }

func (e SyntaxErrors) text() string {
	switch len(e) {
	case 0:
		return "directory: no fault"
	case 1:
		return e[0].text()
	}
	return fmt.Sprintf("%s (and %d more)", e[0].text(), len(e)-1)
}

// Unwrap returns the single errors.
func (e SyntaxErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, s := range e {
		errs[i] = s
	}
	return errs
}

// ParseDirectory reads a directory in the format of the package comment. It returns the entries in the order of
// the lines, all or none: the error is a [SyntaxErrors] with every fault, or that of r.
func ParseDirectory(r io.Reader) ([]Entry, error) {
	const op = "parse directory"
	data, err := io.ReadAll(io.LimitReader(r, MaxDirectorySize+1))
	if err != nil {
		return nil, wrap(op, err)
	}
	entries, err := parseDirectory(data)
	return entries, wrap(op, err)
}

func parseDirectory(data []byte) ([]Entry, error) {
	p := directoryParser{keys: make(map[string]int), owners: make(map[PublicKey]owner)}
	if len(data) > MaxDirectorySize {
		return nil, SyntaxErrors{{Line: 1, Reason: fmt.Sprintf("more than %d bytes in the file", MaxDirectorySize)}}
	}
	if len(data) > 0 {
		if found, reason := wrongEncoding(data); found != "" {
			return nil, SyntaxErrors{{Line: 1, Column: 1, Reason: "found " + found + "; " + reason}}
		}
	}
	for n := 1; len(data) > 0 && len(p.errs) < MaxSyntaxErrors; n++ {
		line, rest, ended := bytes.Cut(data, []byte("\n"))
		data = rest
		if !ended {
			// A file that is being written, or was cut off, mostly ends within a line. Reading
			// half of it would revoke the other half.
			p.fail(n, 0, "no end of line: the file may be cut off")
			break
		}
		if column, reason := p.line(n, bytes.TrimSuffix(line, []byte("\r"))); reason != "" {
			p.fail(n, column, reason)
		}
	}
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return p.entries, nil
}

type directoryParser struct {
	entries []Entry
	keys    map[string]int      // how many each agent has
	owners  map[PublicKey]owner // whose each key is
	errs    SyntaxErrors
}

type owner struct {
	id   string
	line int
}

func (p *directoryParser) fail(line, column int, reason string) {
	p.errs = append(p.errs, &SyntaxError{Line: line, Column: column, Reason: reason})
}

// line reads line n and says what is wrong with it; "" is nothing.
func (p *directoryParser) line(n int, line []byte) (column int, reason string) {
	if len(line) > MaxDirectoryLine {
		return 0, fmt.Sprintf("%d bytes, more than %d", len(line), MaxDirectoryLine)
	}
	if !utf8.Valid(line) {
		return 1 + bytes.IndexFunc(line, func(r rune) bool { return r == utf8.RuneError }), "not UTF-8"
	}
	if i := bytes.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }); i >= 0 {
		// Blocks of zeros are what a file system may show after a loss of power.
		return 1 + i, fmt.Sprintf("control character %#02x", line[i])
	}
	words := fields(string(line))
	if len(words) == 0 {
		return 0, ""
	}
	e, err := parseEntry(words)
	if err != nil {
		if i := strings.IndexFunc(strings.Join(words, " "), blank); i >= 0 {
			return 1 + bytes.IndexFunc(line, blank), "a character that is shown as a space or as nothing, but is neither a space nor a tab"
		}
		if found := notAnEntry(words); found != "" {
			return 0, "found " + found + "; want an agent ID, " + wantPublicKey + ", and perhaps roles"
		}
		return 0, plain(err)
	}
	switch before := p.owners[e.Key]; {
	case before.line != 0 && before.id == e.ID:
		return 0, fmt.Sprintf("agent %q has this key on line %d already", e.ID, before.line)
	case before.line != 0:
		return 0, fmt.Sprintf("agent %q has the key of agent %q on line %d; one key speaks for one agent", e.ID, before.id, before.line)
	case p.keys[e.ID] == MaxKeysPerAgent:
		return 0, fmt.Sprintf("more than %d keys for agent %q", MaxKeysPerAgent, e.ID)
	case len(p.entries) == MaxDirectoryEntries:
		return 0, fmt.Sprintf("more than %d entries", MaxDirectoryEntries)
	}
	p.keys[e.ID]++
	p.owners[e.Key] = owner{e.ID, n}
	p.entries = append(p.entries, e)
	return 0, ""
}

// blank reports characters that look like a space, or like nothing, and come with text that was copied from a page.
func blank(r rune) bool {
	return r > 0x7f && (unicode.IsSpace(r) || unicode.Is(unicode.Cf, r))
}

// fields splits a line at spaces and tabs and drops the comment, which begins with a word that begins
// with '#'.
func fields(line string) []string {
	words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	for i, w := range words {
		if w[0] == '#' {
			return words[:i]
		}
	}
	return words
}

func parseEntry(words []string) (e Entry, err error) {
	if len(words) < 2 {
		return e, errors.New("no key after the agent ID")
	}
	if len(words) > 3 {
		return e, fmt.Errorf("%d words, want an agent ID, a key and perhaps roles", len(words))
	}
	id := words[0]
	if id[0] == '\\' {
		if id = id[1:]; id == "" || id[0] != '#' && id[0] != '\\' {
			return e, errors.New(`a backslash in front of an agent ID must be followed by '#' or '\'`)
		}
	}
	if err := CheckAgentID(id); err != nil {
		return e, err
	}
	e.ID = id
	if e.Key, err = parsePublicKey(words[1]); err != nil {
		return e, err
	}
	if len(words) == 3 {
		e.Roles, err = parseRoles(words[2])
	}
	return e, err
}

// notAnEntry names a line that could not be read and looks like one of another kind of file; "" for no idea.
func notAnEntry(words []string) string {
	first := words[0]
	switch {
	case strings.HasPrefix(first, "-----BEGIN") || strings.HasPrefix(first, "-----END"):
		return "a PEM block"
	case isSSH(first):
		return "an OpenSSH public key"
	case strings.HasPrefix(first, publicKeyPrefix):
		return "a key in front of the agent ID"
	case first == "{" || strings.HasPrefix(first, `{"`):
		return "JSON"
	}
	return ""
}

func parseRoles(s string) ([]string, error) {
	// Bounded by the length of the line.
	roles := strings.Split(s, ",")
	if len(roles) > MaxRoles {
		return nil, fmt.Errorf("%d roles, more than %d", len(roles), MaxRoles)
	}
	for i, r := range roles {
		if !isRole(r) {
			return nil, fmt.Errorf("role %q is not 1 to %d letters, digits, '-', '_', '.', ':' or '/'", r, MaxRoleSize)
		}
		if slices.Contains(roles[:i], r) {
			return nil, fmt.Errorf("role %q twice", r)
		}
	}
	return roles, nil
}

func isRole(s string) bool {
	if s == "" || len(s) > MaxRoleSize {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-_.:/", c) >= 0:
		default:
			return false
		}
	}
	return true
}
