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
//
// # Behind nginx
//
// Agents that can reach every server need no load balancer: give them all URLs,
// they register with up to three servers at once and hardly notice when one is
// gone. Where there must be one address, testdata/nginx.conf.tmpl is a complete
// configuration, which TestInteropNginx runs. Start each server with the -name
// under which agents dial nginx, port included unless it is 80 or 443, because
// that is what they sign their registrations for. Give agents the one URL
//
//	wss://mesh.example/?mesh=acme
//
// with the name of their mesh: servers know only the agents that are registered
// with themselves, so all agents of a mesh must come to the same one, and nginx
// picks it by this part of the URL (hash $arg_mesh consistent). Meshes are spread
// over the servers; those without it share one. An agent that gives another name
// than the others is alone.
//
// When a server is killed, nginx closes its agents' connections. They come back
// on their own, usually within a second, and nginx sends all of a mesh to the
// same next server. Peers that are connected notice nothing: they do not talk through
// servers. Only new dials wait, until both sides are registered again. The server
// that failed gets nobody for ten minutes (fail_timeout), even if it is back
// at once, so that newcomers do not end up there alone.
//
// When it is back, reload nginx (nginx -s reload), within those ten minutes:
// nginx forgets the failure, its old workers close every connection after
// five seconds (worker_shutdown_timeout), and all agents register where the
// configuration now says. A dial meanwhile takes those seconds longer. The same
// gathers a mesh that is split, where a dial waits in vain for an agent that is
// registered with another server; /stats of each server tells. To take a
// server out of service, write "down" behind it and reload; then stop it.
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
