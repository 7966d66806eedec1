// Command hello shows two agents meeting and talking.
//
//	go run ./examples/hello [FILE|-]
//
// starts a signaling server on a free loopback port and two agents. One dials
// the other and sends it every line of FILE (JSON values; standard input for
// "-", testdata/incidents.jsonl by default). The other verifies each message
// and answers it, agreeing. What arrives is printed as it arrives, and the last
// line counts everything.
//
// The same runs as two processes beside a signaling server:
//
//	go run ./examples/signaling-server
//	go run ./examples/hello -server ws://127.0.0.1:8443/ -name agent-a
//	go run ./examples/hello -server ws://127.0.0.1:8443/ -name agent-b -dial agent-a
//
// Without -key an agent has a new key each time, and without -trust it believes
// every other agent's name: fit for a demonstration only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	server, name, dial string
	key, trust         string
	timeout            time.Duration
	loopback           bool
	input              string
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	var o options
	f := flag.NewFlagSet("hello", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.server, "server", "", "`URL` of a signaling server; without it one is started here")
	f.StringVar(&o.name, "name", "", "this agent's `ID` (with -server)")
	f.StringVar(&o.dial, "dial", "", "`ID` of the agent to send to; without it, wait for messages (with -server)")
	f.StringVar(&o.key, "key", "", "key `file`, made if it does not exist; without it a new key each time")
	f.StringVar(&o.trust, "trust", "", "directory `file` of trusted agents; without it everybody is trusted")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "how long to wait for the other agent")
	f.BoolVar(&o.loopback, "loopback", true, "use the loopback interface only")
	if err := f.Parse(args); err != nil {
		return err
	}
	stdout = &lines{w: stdout}
	o.input = f.Arg(0)
	if f.NArg() > 1 {
		return errors.New("at most one input file")
	}
	if o.server == "" {
		if o.name != "" || o.dial != "" || o.key != "" || o.trust != "" {
			return errors.New("-name, -dial, -key and -trust go with -server")
		}
		return together(ctx, o, stdin, stdout)
	}
	if o.name == "" {
		return errors.New("-server needs -name")
	}
	return alone(ctx, o, stdin, stdout, stderr)
}
