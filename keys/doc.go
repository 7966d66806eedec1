// Package keys holds who an agent is and who may claim to be it: identities, public keys, signed
// statements, trust policies, and the certificates that protect connections. It needs the standard library
// only.
//
// # Identities
//
// An [Identity] is an agent ID ([CheckAgentID]) and an Ed25519 key (RFC 8032), kept in a file ([Load],
// [LoadOrGenerate]) or behind a crypto.Signer ([NewIdentity]). It signs a [Statement]: a body together with a
// domain, a mesh and both parties, so that what was signed for one purpose, mesh or pair is not valid for another.
// The signed bytes are five parts, each preceded by its length:
//
//	uint32 n, n bytes   domain, such as "agentmesh/v1 offer"
//	uint32 n, n bytes   mesh
//	uint32 n, n bytes   from
//	uint32 n, n bytes   to
//	uint32 n, n bytes   body
//
// Numbers are big-endian. A statement takes at most [MaxStatementSize] bytes.
//
// # Text forms
//
//	public key    ed25519: + 32 bytes in unpadded base64url    ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo
//	  for people  SHA256:  + hash in unpadded base64           SHA256:If4x36FUomFia/hUBG/SJxt77UtqvkWqWId+9H+XIbk
//	certificate   32 hexadecimal pairs with colons (RFC 8122)  AB:CD:…
//	private key   PKCS #8 in PEM (RFC 8410 §7, RFC 7468 §10)   -----BEGIN PRIVATE KEY-----
//
// # Trust
//
// A [Trust] policy answers whether a public key may speak for an agent ID: yes, unknown or refused. [Directory] reads
// a file, [FirstUse] remembers whom it met, [TrustAny] says yes, and [Compose] combines them. Whoever needs
// an answer calls the function [Check], never the method.
//
// # Directory files
//
// A directory is plain text in UTF-8, one agent a line:
//
//		# comment
//		AGENT-ID ed25519:KEY
//		AGENT-ID ed25519:KEY role,role   # comment
//
//	  - Words are separated by spaces and tabs. A word that begins with '#' begins a comment, which reaches to the end
//	    of the line; '#' within a word is part of it. Lines without words mean nothing.
//	  - An agent ID that begins with '#' or '\' is written with a '\' in front.
//	  - Several lines with different keys for one agent are allowed, for rotation: any of the keys may speak, each with the
//	    roles of its own line. The same key twice is an error, for one agent and all the more for two: whoever holds it could
//	    be taken for two agents. An agent that is renamed keeps its key when its line is changed, not added to.
//	  - A role is 1 to 64 letters, digits, '-', '_', '.', ':' or '/'.
//	  - Every line ends with a line feed, the last one too, so that a file that was cut off is noticed; a carriage return before
//	    it is ignored. Control characters other than the tab are errors, and so is a byte order mark.
//	  - Limits: [MaxDirectorySize], [MaxDirectoryLine], [MaxDirectoryEntries], [MaxKeysPerAgent], [MaxRoles].
//
// # Threats
//
// A thief of a key is that agent until a policy stops saying yes; this package keeps keys out of logs, errors and
// JSON, and refuses key files that others may read. Whoever may write a policy's file decides who is trusted: files that
// everybody may write, and links in place of entries, are refused; a damaged file never widens trust. An agent that
// merely calls cannot make [FirstUse] remember it.
//
// # Errors
//
// Sentinels (such as [ErrRefused]) say which, structs (such as [*KeyChangedError]) say what; use errors.Is and
// errors.As. No error holds any part of a private key or of a private key file.
package keys
