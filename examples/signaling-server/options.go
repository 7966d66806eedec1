package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// options are the flags.
type options struct {
	addr            string
	names           []string
	tlsCert, tlsKey string
	trust           string
	tokens          map[string]string // token → mesh
	logFormat       string
	drain           time.Duration
}

// parseOptions reads the command line. On an error it has printed what is
// wrong, or the help that was asked for (flag.ErrHelp).
func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{tokens: make(map[string]string)}
	fs := flag.NewFlagSet("signaling-server", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.addr, "addr", "127.0.0.1:8443", "`address` to listen on; port 0 takes a free one")
	fs.Func("name", "`host[:port]` under which agents dial this server (repeatable; needed unless -addr is a loopback address)",
		func(s string) error { o.names = append(o.names, s); return nil })
	fs.StringVar(&o.tlsCert, "tls-cert", "", "`file` with the TLS certificate chain in PEM")
	fs.StringVar(&o.tlsKey, "tls-key", "", "`file` with its private key in PEM")
	fs.StringVar(&o.trust, "trust", "", "directory `file` of the agents that may register (default: everybody who proves a key)")
	fs.Func("token", "`mesh=TOKEN` that /stats and /agents need (repeatable; everybody on this machine sees it, better use -token-file)",
		o.addToken)
	fs.Func("token-file", "`file` with one mesh=TOKEN a line, and # comments (repeatable)", o.addTokenFile)
	fs.StringVar(&o.logFormat, "log-format", "text", "`format` of logs: text or json")
	fs.DurationVar(&o.drain, "drain", 10*time.Second, "how long agents may take to leave after SIGTERM")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	err := o.check(fs.Args())
	if err != nil {
		fmt.Fprintln(stderr, "signaling-server:", err)
	}
	return o, err
}

func (o *options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return errors.New("-tls-cert and -tls-key go together")
	case o.logFormat != "text" && o.logFormat != "json":
		return fmt.Errorf("-log-format %q is neither text nor json", o.logFormat)
	case o.drain < 0:
		return errors.New("-drain is negative")
	}
	return nil
}

// addToken takes mesh=TOKEN. Its errors do not show the token.
func (o *options) addToken(s string) error {
	mesh, token, ok := strings.Cut(s, "=")
	switch {
	case !ok || mesh == "" || token == "":
		return errors.New("not mesh=TOKEN")
	case o.tokens[token] != "":
		return fmt.Errorf("the token of mesh %q is also that of %q", mesh, o.tokens[token])
	}
	o.tokens[token] = mesh
	return nil
}

func (o *options) addTokenFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	scan := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for n := 1; scan.Scan(); n++ {
		line := strings.TrimSpace(scan.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := o.addToken(line); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
