// Command mutate measures whether the tests notice mistakes. It makes small
// changes to the source, one at a time, and runs the tests of the package: a
// change that no test notices, a survivor, is a line that could be wrong.
//
//	go run ./internal/mutate -n 200 -seed 7 -packages keys,mesh
//
// Run it at the root of the module. The working tree stays as it is: a changed file
// reaches the compiler with -overlay. It prints its seed, with which the same
// sample comes again from the same source, each survivor as "file:line: operator: before → after", and the
// share that was noticed; it fails when that is below -least percent.
//
// # Operators
//
//	never     a condition of an if, or of a case without a tag, does not hold
//	always    a condition of an if holds
//	boundary  < and <=, > and >= take each other's place
//	equality  == and != do
//	logic     && and || do
//	negate    a bool that is returned is the opposite
//	bool      true and false take each other's place
//	arithmetic  + and -, * and /, << and >>, & and |, also before =
//	number    0 is 1, and another number is one more; in a constant's declaration it is double
//	remove    a call, an assignment, a send, ++ or --, go, break or continue is not there
//	defer     a defer is not there
//	swallow   an error that is returned is nil
//	empty     a function returns at once, with zero values
//
// # Left out
//
// Nobody should write tests against some changes, and they are no part of the sample:
//
//   - files named doc.go, test files, files that this platform does not build;
//   - the functions String, GoString, Error, Format and LogValue;
//   - statements that tell: calls in which something of log/slog, OpenTelemetry or this module's
//     metrics or witness is used, and the methods of a type named observer;
//   - the arguments of make, which are sizes; of panic, which speaks of our own mistakes; and of what
//     packages fmt and errors have, which are texts;
//   - removing a deferred Stop of a timer, cancel function or clear, which only free memory early, or wipe it.
//
// A change that does not compile is none: go/types looks before anything is
// built. What changes nothing that anybody could see is for a reader to recognise among the survivors.
//
// # Speed
//
// First each test runs alone with coverage, so that a changed line only meets the tests that
// reach it, quick ones first, until one fails. Those of mesh/meshtest and
// signaling/signalingtest come last.
// A test run that takes much longer than it should, or much memory, has noticed. This needs a POSIX
// shell and the command timeout of coreutils.
package main
