//go:build unix

package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openNonblock opens a file for reading without waiting for the writer of a named pipe.
func openNonblock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// checkPrivate says why a private key file is not private; "" is nothing.
func checkPrivate(info fs.FileInfo) string {
	owner := ^uint32(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = st.Uid
	}
	return checkMode(info.Mode().Perm(), owner)
}

func checkMode(mode fs.FileMode, owner uint32) string {
	const hint = "; set it to 0600, or 0400 for a mounted secret"
	switch {
	case mode&0o007 != 0:
		return fmt.Sprintf("others have access to it (mode %04o)%s", mode, hint)
	case mode&0o030 != 0:
		return fmt.Sprintf("its group can change or execute it (mode %04o)%s", mode, hint)
	case mode&0o040 != 0 && owner != 0:
		// Groups such as "users" hold everybody. Only for a file of root does the group say
		// whom root meant (PostgreSQL has the same rule for its TLS key).
		return fmt.Sprintf("its group can read it (mode %04o) and it does not belong to root%s", mode, hint)
	}
	return ""
}

// othersCanWrite reports whether users other than the owner and the group can change the file.
func othersCanWrite(info fs.FileInfo) bool { return info.Mode().Perm()&0o002 != 0 }

// notOursAlone says why others could exchange files in a directory; "" is nothing.
func notOursAlone(info fs.FileInfo) string {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Sprintf("others can write to it (mode %04o); set it to 0700, or choose a file system that keeps modes", mode)
	}
	return ""
}

// syncDir makes the names in a directory survive a loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // some network file systems cannot, and need not
	}
	return errors.Join(err, d.Close())
}
