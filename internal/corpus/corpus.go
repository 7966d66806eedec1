package corpus

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrNoModule is returned when no directory above the working directory holds a
// go.mod: the corpus is for tests, which run inside the module.
var ErrNoModule = errors.New("corpus: not inside the module")

// Path is the file of the reports. It is found from the working directory
// upwards, which for a test is the directory of its package.
func Path() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("corpus: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "testdata", "incidents.jsonl"), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", ErrNoModule
		}
		dir = parent
	}
}

// Incidents returns the reports in the order of the file, each without its line
// end. The slices are the caller's.
func Incidents() ([][]byte, error) {
	path, err := Path()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("corpus: %w", err)
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	lines := bytes.Split(text, []byte("\n"))
	for i, line := range lines {
		// A full capacity would let an append to one report write into the next.
		lines[i] = line[:len(line):len(line)]
	}
	return lines, nil
}
