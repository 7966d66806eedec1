//go:build !unix

package keys

import (
	"io/fs"
	"os"
)

func openNonblock(path string) (*os.File, error) { return os.Open(path) }

// Mode bits are made up by the os package on systems that have none: they neither show nor change who
// has access. There the access control list of the directory decides, and it is not looked at.

func checkPrivate(fs.FileInfo) string { return "" }

func othersCanWrite(fs.FileInfo) bool { return false }

func notOursAlone(fs.FileInfo) string { return "" }

// syncDir does nothing: Windows cannot flush a directory, and NTFS journals its names.
func syncDir(string) error { return nil }
