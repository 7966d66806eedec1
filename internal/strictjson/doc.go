// Package strictjson checks, compacts and takes apart JSON (RFC 8259) that is to
// be signed or was signed. It is strict where the standard leaves readers a
// choice, because two readers that choose differently disagree on what was
// signed: text is valid UTF-8, escapes name no lone surrogate, and no object has
// one name twice, however it is escaped (RFC 7493 §2).
//
// Compacting removes white space between tokens and changes nothing else:
// numbers keep their digits, strings their escapes.
//
// One pass does all of it without allocating for ordinary objects, which
// matters for every message sent and received; tests compare with a general
// library.
package strictjson
