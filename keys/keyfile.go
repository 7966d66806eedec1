package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
)

// keyBlock is the PEM label of an unencrypted PKCS #8 key (RFC 7468 §10).
const keyBlock = "PRIVATE KEY"

// KeyFileError says why a private key file was refused. It never holds any of the file's content.
type KeyFileError struct {
	Path   string
	Reason string
}

func (e *KeyFileError) Error() string { return "keys: " + e.text() }

func (e *KeyFileError) text() string { return fmt.Sprintf("private key file %s: %s", e.Path, e.Reason) }

// Load reads the private key of agent id from a file as Save writes it, or as
// "openssl genpkey -algorithm ed25519" does: one PEM block of PKCS #8 (RFC 8410 §7), not encrypted.
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
		return nil, &KeyFileError{path, reason}
	}
	private, reason := parseKey(data)
	if reason != "" {
		return nil, &KeyFileError{path, reason}
	}
	return newIdentity(id, private)
}

// parseKey reads a private key file. The reason is fixed text: errors of the decoders could quote
// what they read.
func parseKey(data []byte) (_ ed25519.PrivateKey, reason string) {
	if !bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		return nil, "it does not begin with a PEM block"
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, "its PEM block is damaged"
	case block.Type == "ENCRYPTED PRIVATE KEY" || len(block.Headers) > 0:
		return nil, "encrypted keys and PEM headers are not supported"
	case block.Type != keyBlock:
		return nil, "its PEM block is not a PKCS #8 private key"
	case bytes.Count(data, []byte("-----BEGIN ")) != 1 || len(bytes.TrimSpace(rest)) > 0:
		// A second key would be ignored in silence, and which one speaks would depend on order.
		return nil, "it holds more than one PEM block"
	}
	defer clear(block.Bytes)
	var whole asn1.RawValue
	if tail, err := asn1.Unmarshal(block.Bytes, &whole); err != nil || len(tail) > 0 {
		return nil, "its content is not one DER value"
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, "its content is not a PKCS #8 private key"
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Sprintf("it holds a %T, want an Ed25519 key", key)
	}
	return private, ""
}

// Save writes the private key to a new file, as PKCS #8 in PEM, with mode 0600 on Unix. The file appears
// under its name complete and on stable storage, or not at all; an existing one, even a dangling
// symbolic link, is left alone and the error matches [fs.ErrExist]. The file system must have hard
// links, as that of every Unix and NTFS do: they are the only portable way to create a file with its
// content and without replacing one. The error matches [ErrNotExportable] for an external signer.
func (i Identity) Save(path string) error { return wrap("save identity", i.save(path)) }

func (i Identity) save(path string) error {
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
	return createFile(path, data)
}

// LoadOrGenerate loads the identity of agent id from a file, as [Load], or generates and saves one when
// there is none. Several processes may call it at once for the same path: all return the key of the one
// that came first.
func LoadOrGenerate(path, id string) (*Identity, error) {
	const op = "load or generate identity"
	i, err := load(path, id)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return i, wrap(op, err)
	}
	if i, err = Generate(id); err != nil {
		return nil, wrap(op, err)
	}
	err = i.save(path)
	if errors.Is(err, fs.ErrExist) {
		// Somebody else was faster. Their file is complete, since it was linked into place.
		i, err = load(path, id)
	}
	if err != nil {
		return nil, wrap(op, err)
	}
	return i, nil
}
