// Package wallclock tells the time of the world from the time of this process.
//
// The wall clock is what certificates, credentials and other agents mean; it may
// be wrong, is set, and jumps over the time that a machine slept. The monotonic
// clock, which timers and time.Since go by, only ever runs on, and on most systems
// stands still while the machine sleeps. A timer that was armed for a moment of
// the world is late, or early, from the instant at which the two part. [Watch]
// tells of that instant.
//
// Times of the world are compared after Round(0): a time.Time that still has its
// monotonic reading is compared by that one.
package wallclock
