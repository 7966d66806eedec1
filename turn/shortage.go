package turn

import (
	"errors"
	"syscall"
)

// isShortage reports whether err says that this process or machine is short of
// something: it passes, and says nothing about a server.
func isShortage(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
