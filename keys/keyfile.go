package keys

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
)

// KeyFileError says why a private key file was refused, or not written. It never holds any of the file's
// content.
type KeyFileError struct {
	Path   string
	Found  string // what stands in the file, such as "a certificate"; empty when it is not the content that is wrong
	Reason string // what is wrong, or what to do about what was found
}

func (e *KeyFileError) Error() string { return "keys: " + e.text() }

func (e *KeyFileError) text() string {
	if e.Found == "" {
		return fmt.Sprintf("private key file %s: %s", e.Path, e.Reason)
	}
	return fmt.Sprintf("private key file %s: found %s; %s", e.Path, e.Found, e.Reason)
}

// Load reads the private key of agent id from a file as Save writes it, or as
// "openssl genpkey -algorithm ed25519" does: one PEM block of PKCS #8 (RFC 8410 §7), not encrypted, with nothing before
// or behind it but an end of line (LF or CR LF). A file of version 2 (RFC 5958) is read when its public half is that
// of its private key. Anything else is named for what it is: see KeyFileError.Found.
//
// Symbolic links are followed, because mounted secrets are links; what they lead to must be a regular
// file of at most [MaxKeyFileSize]. On Unix the file is refused when others than its owner can read or
// change it, with one exception: a file that belongs to root may be readable by its group. That is how
// Kubernetes hands a secret to a process that is not root (root:fsGroup, 0440), and no user but root can
// produce such a file. A file that others can read is refused wherever it comes from: set
// defaultMode: 0400 for a Kubernetes secret, mode: 0400 for a Docker secret. On other systems mode bits
// mean nothing and are not looked at: keep the file where the access control list of the directory
// admits one account, as that of a Windows profile does.
//
// The error matches [fs.ErrNotExist] when there is no such file, and is a [*KeyFileError] when the
// file is refused or a [*NameError] when id is not an agent ID.
func Load(path, id string) (*Identity, error) {
	i, err := load(path, id)
	return i, wrap("load identity", err)
}

func load(path, id string) (*Identity, error) {
	if err := CheckAgentID(id); err != nil {
		return nil, err
	}
	data, info, err := readRegular(path, MaxKeyFileSize)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	if reason := checkPrivate(info); reason != "" {
		return nil, &KeyFileError{path, "", reason}
	}
	private, found, reason := parseKey(data)
	if found != "" {
		return nil, &KeyFileError{path, found, reason}
	}
	return newIdentity(id, private)
}

// Save writes the private key to a new file, as PKCS #8 in PEM, with mode 0600 on Unix. The file appears
// under its name complete and on stable storage, or not at all; an existing one, even a dangling
// symbolic link, is left alone and the error matches [fs.ErrExist]. The file system must have hard
// links, as that of every Unix and NTFS do: they are the only portable way to create a file with its
// content and without replacing one. The error matches [ErrNotExportable] for an external signer.
//
// Before the file appears it is read back as Load would read it. Where the file system shows it open to others, as
// mounts with fixed modes do (FAT, SMB, 9p, WSL's /mnt/c, bindfs), nothing is left behind, and the error is a [*KeyFileError]
// that says so: the key would be open to others, and Load would refuse it.
func (i Identity) Save(path string) error { return wrap("save identity", i.save(path)) }

func (i Identity) save(path string) error { return i.saveBy(createFile, path) }

func (i Identity) saveBy(create func(string, []byte, func(string) error) error, path string) error {
	if i.export == nil {
		return ErrNotExportable
	}
	der, err := i.export()
	if err != nil {
		return err
	}
	defer clear(der)
	data := pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der})
	defer clear(data)
	err = create(path, data, func(written string) error { return checkWritten(path, written, i) })
	var refused *KeyFileError
	if err == nil || errors.As(err, &refused) || errors.Is(err, fs.ErrExist) {
		return err
	}
	return fmt.Errorf("private key file %s cannot be written: %w", path, err) // err names a temporary file
}

// checkWritten reads back what was written and is not yet in place.
func checkWritten(path, written string, i Identity) error {
	back, err := load(written, i.id)
	var refused *KeyFileError
	switch {
	case errors.As(err, &refused):
		return &KeyFileError{path, refused.Found, "a new file with mode 0600 would be refused here: " + refused.Reason +
			"; if the file system has modes of its own, keep the key elsewhere, or mount it so that files belong to their user alone"}
	case err != nil:
		return fmt.Errorf("what was written cannot be read back: %w", err)
	case back.PublicKey() != i.public:
		return fmt.Errorf("what was written is read back as another key, %s", back.PublicKey().Fingerprint())
	}
	return nil
}

// LoadOrGenerate loads the identity of agent id from a file, as [Load], or generates and saves one when
// there is none. Several processes may call it at once for the same path: all return the key of the one
// that came first.
func LoadOrGenerate(path, id string) (*Identity, error) {
	const op = "load or generate identity"
	i, err := load(path, id)
	if errors.Is(err, fs.ErrNotExist) {
		if i, err = Generate(id); err == nil {
			err = i.save(path)
		}
		if errors.Is(err, fs.ErrExist) {
			// Somebody else was faster. Their file is complete, since it was linked into place.
			i, err = load(path, id)
		}
	}
	if err != nil {
		return nil, wrap(op, err)
	}
	return i, nil
}
