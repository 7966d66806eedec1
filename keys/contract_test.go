package keys

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestContract: the figures that the documentation names are what they were.
func TestContract(t *testing.T) {
	for _, n := range []struct {
		name      string
		got, want int
	}{
		{"MaxNameSize", MaxNameSize, 255},
		{"MaxStatementSize", MaxStatementSize, 16_777_216},
		{"MaxKeyFileSize", MaxKeyFileSize, 65_536},
		{"MaxDirectorySize", MaxDirectorySize, 16_777_216},
		{"MaxDirectoryLine", MaxDirectoryLine, 4096},
		{"MaxDirectoryEntries", MaxDirectoryEntries, 100_000},
		{"MaxKeysPerAgent", MaxKeysPerAgent, 16},
		{"MaxRoles", MaxRoles, 32},
		{"MaxRoleSize", MaxRoleSize, 64},
		{"MaxSyntaxErrors", MaxSyntaxErrors, 100},
		{"MaxRemembered", MaxRemembered, 65_536},
		{"MaxEvidence", MaxEvidence, 16},
		{"MaxEvidenceSize", MaxEvidenceSize, 65_536},
		{"MaxCertificateSize", MaxCertificateSize, 16_384},
	} {
		if n.got != n.want {
			t.Errorf("%s is %d, and %d is documented", n.name, n.got, n.want)
		}
	}
	if learnPause != 5*time.Second {
		t.Errorf("learnPause is %v", learnPause)
	}
}

// TestSortedSet: the caller's slice stays as it is.
func TestSortedSet(t *testing.T) {
	in := []string{"b", "a", "b"}
	if got := sortedSet(in); !slices.Equal(got, []string{"a", "b"}) || !slices.Equal(in, []string{"b", "a", "b"}) {
		t.Errorf("%q of %q", got, in)
	}
}

// TestRememberErrorNamesNoTemporaryFile: a file that is gone tells an operator nothing.
func TestRememberErrorNamesNoTemporaryFile(t *testing.T) {
	for _, err := range []error{
		&fs.PathError{Op: "open", Path: "/keys/temporary", Err: syscall.EROFS},
		&os.LinkError{Op: "link", Old: "/keys/temporary", New: "/keys/agent", Err: syscall.EROFS},
		syscall.EROFS,
	} {
		e := &RememberError{ID: "agent-b", Path: "/keys", Err: err}
		if !errors.Is(e, syscall.EROFS) {
			t.Errorf("%v does not match its reason", e)
		}
		if s := e.Error(); strings.Contains(s, "temporary") || !strings.HasSuffix(s, "/keys: "+syscall.EROFS.Error()) || !strings.Contains(s, `"agent-b"`) {
			t.Error(s)
		}
	}
}
