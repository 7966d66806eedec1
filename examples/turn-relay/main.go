// Command turn-relay is a TURN server for small deployments: the library's server
// with flags, TLS, secrets from a file, and logs.
//
//	head -c 32 /dev/urandom | base64 > secret.txt
//	go run ./examples/turn-relay -secret-file secret.txt
//
// listens on 127.0.0.1:3478 by UDP and TCP, for trying out; to relay to peers on the
// same machine it needs -allow 127.0.0.0/8 as well. In service it runs as
//
//	turn-relay -udp 203.0.113.7:3478 -tcp 203.0.113.7:3478 -tls 203.0.113.7:5349 \
//	    -tls-cert tls.crt -tls-key tls.key -name relay.example -secret-file secret.txt
//
// and behind a one-to-one NAT, as in most clouds, with the private address to
// listen on and both to relay at:
//
//	turn-relay -udp 10.0.0.5:3478 -public-ip 203.0.113.7 -bind-ip 10.0.0.5 …
//
// The firewall must let in those ports and, for UDP, the ports of -ports. Listen on
// addresses rather than on ":3478" where a machine has several: an answer must
// come from the address that was asked.
//
// It prints the URLs to configure, one a line on standard output, and then
// "ready"; logs go to standard error. Agents get credentials from whoever shares the
// secret, as the TURN REST API has it: user name "EXPIRES:AGENT", password
// Base64(HMAC-SHA1(secret, user name)). To change the secret, put the new one into
// the file as a second line and restart; when nobody uses the first any more,
// remove it. Without -secret-file the secret is the environment variable
// TURN_SECRET; it is never an argument, which everybody on the machine sees.
//
// By default nothing but public addresses can be reached through the relay, and of
// its own machine only the relay itself; -allow and -deny change that. The TLS files
// may be replaced while it runs. With -http it serves /health and /stats, which are
// for a private address.
//
// SIGTERM and SIGINT drain it: new allocations are refused, so that agents go to
// their other relays, and it ends with the last allocation or after -drain.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv(secretVariable), os.Stdout, os.Stderr))
}
