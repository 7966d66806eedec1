package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// tempPattern names files that are being written. No entry of a FirstUse and no sensible key file has
// such a name.
const tempPattern = ".agentmesh-*.tmp"

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("file too large")
	errNoLinks    = errors.New("the file system has no hard links, without which a file cannot appear complete and replace none")
)

// readRegular reads a file of at most limit bytes and describes what it read. Symbolic links are
// followed. Everything that is checked is checked on the open file, so that it cannot be
// exchanged between the check and the reading.
func readRegular(path string, limit int64) ([]byte, fs.FileInfo, error) {
	// Opening a named pipe could wait for ever, and opening a device can have effects: look
	// before. openNonblock covers the pipe that appears in between.
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &fs.PathError{Op: "read", Path: path, Err: errNotRegular}
	}
	f, err := openNonblock(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() // nothing was written
	if info, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &fs.PathError{Op: "read", Path: path, Err: errNotRegular}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(data)) > limit {
		return nil, nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w: %d bytes, more than %d", errTooLarge, max(info.Size(), int64(len(data))), limit)}
	}
	return data, info, nil
}

// createFile creates a file with mode 0600 and the given content, on stable storage when it returns.
// The name appears with the whole content or not at all, and never replaces another file: the content
// is written under a temporary name and then linked, and link fails when the name is taken, where
// rename would replace in silence. The error then matches fs.ErrExist. check, unless it is
// nil, is asked about the file before it has its name.
func createFile(path string, data []byte, check func(written string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, tempPattern) // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the link only a second name; before, a failed attempt
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if check != nil {
		if err := check(f.Name()); err != nil {
			return err
		}
	}
	err = os.Link(f.Name(), path)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w: %w", errNoLinks, err) // whoever may create files may link his own, where there are links
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}
