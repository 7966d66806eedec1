// Command signaling-server is the reference signaling server: the library's
// handler with flags, TLS, a trust file, tokens, metrics and logs.
//
//	go run ./examples/signaling-server
//
// listens on 127.0.0.1:8443 without TLS, for trying out. In service it runs as
//
//	signaling-server -addr :8443 -tls-cert tls.crt -tls-key tls.key \
//	    -name s1.example:8443 -trust agents.txt -token-file tokens.txt
//
// It serves WebSocket at /, and /health, /stats, /agents and /metrics. The TLS
// files and the trust file may be replaced while it runs. SIGTERM and SIGINT
// drain it: agents are told and go to their other servers.
//
// The first line on standard output is "listening on ADDR"; logs go to standard
// error.
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
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
