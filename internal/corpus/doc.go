// Package corpus gives tests something real to send: the 200 incident reports
// of testdata/incidents.jsonl, which also feed the hello example.
//
// Each is one line with one JSON object of 100 bytes to 20 kB, in UTF-8 and
// without duplicate keys; a few are larger than the 16 KiB of a frame. Between
// them they hold what breaks programs that parse JSON and write it again:
// integers above 2^53, 1.0 beside 1, -0.0, exponents in every spelling, the
// characters < > & both raw and escaped, text in many scripts both raw and
// escaped, surrogate pairs, combining marks, control characters, empty objects
// and arrays, eight levels of nesting, and white space between tokens.
package corpus
