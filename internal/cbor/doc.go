// Package cbor writes and reads the part of CBOR that the wire formats use, in
// core deterministic encoding (RFC 8949 §4.2.1): integers, byte and text
// strings, arrays and maps of definite length.
//
// The reader accepts exactly what the writer writes: every length and number in
// its shortest form, text in valid UTF-8, nothing after the end. So a value has
// one encoding, a hash of the bytes is a hash of the value, and nothing needs to
// be encoded again to find out. It allocates for strings only, which alias or
// copy at most the input, and never trusts a count before the bytes are there.
//
// General libraries decode by reflection, accept more than one encoding, and
// weigh 600 kB in every agent; tests compare with one of them.
package cbor
