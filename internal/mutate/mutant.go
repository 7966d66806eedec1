package main

import (
	"fmt"
	"slices"
	"strings"
)

// mutant is one change: the bytes from and before to of the file become with.
type mutant struct {
	source   *source
	file     *file
	operator string
	from, to int
	with     string
	what     string // what is there, when no bytes are replaced
	inside   bool   // of a function
	line     int
	column   int
	runs     position // where coverage says whether it runs
}

// text is the changed file.
func (m mutant) text() []byte {
	return slices.Concat(m.file.text[:m.from], []byte(m.with), m.file.text[m.to:])
}

// String is "file:line: operator: before → after".
func (m mutant) String() string {
	after := brief(m.with)
	if after == "" {
		after = "(nothing)"
	}
	before := brief(string(m.file.text[m.from:m.to]))
	if before == "" {
		before = m.what
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s → %s", m.file.name, m.line, m.column, m.operator, before, after)
}

// brief is the text in one line of bounded length.
func brief(text string) string {
	const most = 100
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}
