package keys

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

const fullDisk = "AGENTMESH_TEST_FULL_DISK"

// TestFullDisk: a key that cannot be written whole is an error and leaves nothing. The
// limit is that of a process, so there is another.
func TestFullDisk(t *testing.T) {
	if path := os.Getenv(fullDisk); path != "" {
		signal.Ignore(syscall.SIGXFSZ)
		var was syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 8, Max: was.Max}); err != nil {
			t.Fatal(err)
		}
		_, err := LoadOrGenerate(path, "agent-a")
		if back := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); back != nil || !errors.Is(err, syscall.EFBIG) {
			t.Fatalf("a disk that takes 8 bytes: %v; %v", err, back)
		}
		return
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDisk$")
	cmd.Env = append(os.Environ(), fullDisk+"="+filepath.Join(dir, "agent.key"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
