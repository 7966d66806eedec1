package keys

import "time"

// Every limit of this package. Input beyond a limit is an error, never cut short: a directory of
// which only the first half was read would refuse agents that its operator lists.
const (
	// MaxNameSize is the greatest length of an agent ID or mesh name in bytes.
	MaxNameSize = 255

	// MaxStatementSize is the greatest length of [Statement.Bytes] that is signed or verified. It
	// bounds what a stranger can make this process copy and hash, and keeps every part far below
	// the 4 GiB at which its length prefix would wrap.
	MaxStatementSize = 16 << 20

	// MaxKeyFileSize is the greatest size of a private key file in bytes. A PKCS #8 Ed25519 key
	// takes 119.
	MaxKeyFileSize = 64 << 10

	// MaxDirectorySize is the greatest size of a directory file in bytes.
	MaxDirectorySize = 16 << 20

	// MaxDirectoryLine is the greatest length of one line of a directory file in bytes, without
	// its line ending.
	MaxDirectoryLine = 4 << 10

	// MaxDirectoryEntries is the greatest number of entries in a directory file.
	MaxDirectoryEntries = 100_000

	// MaxKeysPerAgent is the greatest number of keys that a directory lists for one agent. A
	// rotation needs two.
	MaxKeysPerAgent = 16

	// MaxRoles is the greatest number of roles in one directory entry, MaxRoleSize the greatest
	// length of each in bytes.
	MaxRoles    = 32
	MaxRoleSize = 64

	// MaxSyntaxErrors is the greatest number of errors that [ParseDirectory] collects before it
	// gives up on a file.
	MaxSyntaxErrors = 100

	// MaxRemembered is the greatest number of agents that a [FirstUse] remembers. Learning one
	// more fails; none is ever forgotten to make room, since whoever is forgotten can be
	// impersonated once.
	MaxRemembered = 1 << 16

	// learnPause is how long a [FirstUse] that could not write does not try again; until then
	// Learn fails with the error of before.
	learnPause = 5 * time.Second

	// MaxEvidence is the greatest number of items in [Claim.Evidence], MaxEvidenceSize their
	// greatest total size in bytes.
	MaxEvidence     = 16
	MaxEvidenceSize = 64 << 10

	// MaxCertificateSize is the greatest size of a DTLS certificate in DER that
	// [CheckCertificate] parses.
	MaxCertificateSize = 16 << 10
)
