// Package chaos has no code of its own: its test drives real processes, two
// signaling servers and three agents that all send to each other, and kills
// (SIGKILL) and stops (SIGSTOP, SIGCONT) them while they do. What package mesh
// promises of messages has to hold through all of it, and how long each recovery
// takes is printed.
//
//	go test -count=1 -v -run '^TestChaos' ./internal/chaos -rounds 100 -seed 7
//
// Each process is the test binary itself, told by an environment variable what
// to be. An agent keeps a journal on its standard output, a line of one write(2)
// per event, so that the journal of a process that was killed is complete:
//
//	ready                        registered with a signaling server
//	sent TO N                    Send has returned for the N-th message to TO
//	got ID                       the Handler has a message and has not returned
//	state PEER STATE REASON ERR  a change of a Peer
//	problem TEXT                 a call failed that should not
//	settled                      no more is sent, and Flush has returned for every Peer
//
// The ID of a message is AUTHOR.PROCESS>TO#N. The journals add up to an account:
// within one process of a receiver the numbers of each author process are
// contiguous; the first number that a new process of a receiver sees is at most
// one more than the highest that any process before it saw; no message of a
// former process of an author comes after one of a later process; and at the end
// everything has arrived that the living authors sent.
//
// The driver needs a Unix system. Elsewhere only the account is tested.
package chaos
