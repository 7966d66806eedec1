package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/infrafabric/agentmesh/turn"
)

// secretVariable is the environment variable with the secret.
const secretVariable = "TURN_SECRET"

// options are the flags.
type options struct {
	udp, tcp, tls   []string
	tlsCert, tlsKey string
	name            string
	public, bind    []netip.Addr
	http            string
	logFormat       string
	drain           time.Duration
	server          turn.ServerConfig // the rest
}

// parseOptions reads the command line. On an error it has printed what is
// wrong, or the help that was asked for (flag.ErrHelp).
func parseOptions(args []string, secret string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("turn-relay", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Func("udp", "`address` to listen on by UDP (repeatable; default for this and -tcp, without any: 127.0.0.1:3478)", list(&o.udp))
	fs.Func("tcp", "`address` to listen on by TCP (repeatable)", list(&o.tcp))
	fs.Func("tls", "`address` to listen on by TLS (repeatable)", list(&o.tls))
	fs.StringVar(&o.tlsCert, "tls-cert", "", "`file` with the TLS certificate chain in PEM")
	fs.StringVar(&o.tlsKey, "tls-key", "", "`file` with its private key in PEM")
	fs.StringVar(&o.name, "name", "", "`host` under which agents reach this relay (default: the address)")
	fs.Func("public-ip", "`address` to relay at, as others see it, one for each of IPv4 and IPv6 (default: those of the first listeners)",
		addrs(&o.public))
	fs.Func("bind-ip", "`address` of this machine for the -public-ip of the same family (default: the same)", addrs(&o.bind))
	fs.Func("ports", "`first-last` port to relay at (default 49152-65535)", o.addPorts)
	fs.StringVar(&o.server.Realm, "realm", "", "`realm` of the credentials, at most 20 bytes (default agentmesh)")
	fs.Func("secret-file", "`file` with one secret a line, and # comments (default: the environment's "+secretVariable+")", o.addSecretFile)
	fs.Func("allow", "`prefix` of peers to allow that are refused otherwise, such as 10.0.0.0/8 (repeatable)", prefixes(&o.server.AllowPeers))
	fs.Func("deny", "`prefix` of peers to refuse (repeatable)", prefixes(&o.server.DenyPeers))
	fs.IntVar(&o.server.MaxAllocations, "max-allocations", 0, "how many allocations there may be (default 4096)")
	fs.IntVar(&o.server.MaxAllocationsPerUser, "max-allocations-per-user", 0, "how many one user may have (default 256)")
	fs.IntVar(&o.server.BytesPerSecond, "bytes-per-second", 0, "how much one user may relay, both directions together (default 16 MiB)")
	fs.StringVar(&o.http, "http", "", "`address` for /health and /stats (default: none)")
	fs.StringVar(&o.logFormat, "log-format", "text", "`format` of logs: text or json")
	fs.DurationVar(&o.drain, "drain", 30*time.Second, "how long allocations may last after SIGTERM")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if len(o.server.Secrets) == 0 && secret != "" {
		o.server.Secrets = []string{secret}
	}
	err := o.check(fs.Args())
	if err != nil {
		fmt.Fprintln(stderr, "turn-relay:", err)
	}
	return o, err
}

func (o *options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case len(o.server.Secrets) == 0:
		return errors.New("no secret: -secret-file, or the environment variable " + secretVariable)
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return errors.New("-tls-cert and -tls-key go together")
	case (o.tlsCert == "") != (len(o.tls) == 0):
		return errors.New("-tls and -tls-cert go together")
	case o.logFormat != "text" && o.logFormat != "json":
		return fmt.Errorf("-log-format %q is neither text nor json", o.logFormat)
	case o.drain < 0:
		return errors.New("-drain is negative")
	}
	if len(o.udp)+len(o.tcp)+len(o.tls) == 0 {
		o.udp, o.tcp = []string{"127.0.0.1:3478"}, []string{"127.0.0.1:3478"}
	}
	return o.relayIPs()
}

// relayIPs pairs the public addresses with those of this machine.
func (o *options) relayIPs() error {
	if len(o.public) == 0 {
		if err := o.guessPublic(); err != nil {
			return err
		}
	}
	for _, public := range o.public {
		r := turn.RelayIP{Public: public}
		for _, bind := range o.bind {
			if bind.Is4() == public.Is4() {
				r.Bind = bind
			}
		}
		o.server.RelayIPs = append(o.server.RelayIPs, r)
	}
	return nil
}

// guessPublic takes the first listening address of each family.
func (o *options) guessPublic() error {
	seen := map[bool]bool{}
	for _, text := range append(append(append([]string(nil), o.udp...), o.tcp...), o.tls...) {
		at, err := netip.ParseAddrPort(text)
		if err != nil || at.Addr().IsUnspecified() {
			return fmt.Errorf("-public-ip is needed with the address %q", text)
		}
		if !seen[at.Addr().Is4()] {
			seen[at.Addr().Is4()] = true
			o.public = append(o.public, at.Addr())
		}
	}
	return nil
}

func (o *options) addPorts(s string) error {
	first, last, ok := strings.Cut(s, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if !ok || err != nil || err2 != nil || a == 0 {
		return errors.New("not FIRST-LAST")
	}
	o.server.PortMin, o.server.PortMax = uint16(a), uint16(b)
	return nil
}

// addSecretFile takes a file of secrets. Its errors do not show them.
func (o *options) addSecretFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	scan := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for scan.Scan() {
		if line := strings.TrimSpace(scan.Text()); line != "" && !strings.HasPrefix(line, "#") {
			o.server.Secrets = append(o.server.Secrets, line)
		}
	}
	switch {
	case scan.Err() != nil:
		return fmt.Errorf("%s: %w", name, scan.Err())
	case len(o.server.Secrets) == 0:
		return fmt.Errorf("%s: no secret in it", name)
	}
	return nil
}

func list(to *[]string) func(string) error {
	return func(s string) error { *to = append(*to, s); return nil }
}

func addrs(to *[]netip.Addr) func(string) error {
	return func(s string) error {
		a, err := netip.ParseAddr(s)
		*to = append(*to, a)
		return err
	}
}

func prefixes(to *[]netip.Prefix) func(string) error {
	return func(s string) error {
		p, err := netip.ParsePrefix(s)
		*to = append(*to, p)
		return err
	}
}
