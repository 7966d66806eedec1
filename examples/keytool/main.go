// Keytool makes identities for agents and checks directories of them.
//
//	keytool create -id ID -key FILE    make a key, write it to a new file, print the directory line
//	keytool show -id ID -key FILE      print the directory line and the fingerprint of a key
//	keytool check DIRECTORY-FILE       print the number of entries, or every fault
//
// A new agent, from nothing to a directory that knows it:
//
//	keytool create -id agent-a -key agent-a.key >> agents
//	keytool check agents
//
// Each command exits with 0 when it succeeds, with 1 when it fails and with 2 when it is called wrongly. What
// create prints on standard output is the directory line alone; the fingerprint, to be compared by people, goes to
// standard error.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/infrafabric/agentmesh/keys"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `usage:
  keytool create -id ID -key FILE    make a key, write it to a new file, print the directory line
  keytool show -id ID -key FILE      print the directory line and the fingerprint of a key
  keytool check DIRECTORY-FILE       print the number of entries, or every fault
`

// errUsage means that the command line is wrong and that its user was told how.
var errUsage = errors.New("usage")

func run(args []string, stdout, stderr io.Writer) int {
	commands := map[string]func(args []string, stdout, stderr io.Writer) error{
		"create": create,
		"show":   show,
		"check":  check,
	}
	var err error = errUsage
	if len(args) > 0 && commands[args[0]] != nil {
		err = commands[args[0]](args[1:], stdout, stderr)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprint(stderr, usage)
		return 2
	}
	for _, err := range faults(err) {
		fmt.Fprintln(stderr, "keytool:", err)
	}
	return 1
}

// faults returns the single faults of a directory, or err alone.
func faults(err error) []error {
	var all keys.SyntaxErrors
	if errors.As(err, &all) {
		return all.Unwrap()
	}
	return []error{err}
}

func create(args []string, stdout, stderr io.Writer) error {
	id, path, err := identityFlags("create", args, stderr)
	if err != nil {
		return err
	}
	identity, err := keys.Generate(id)
	if err != nil {
		return err
	}
	if err := identity.Save(path); err != nil {
		return err
	}
	fmt.Fprintln(stderr, identity.PublicKey().Fingerprint())
	return printLine(stdout, identity)
}

func show(args []string, stdout, stderr io.Writer) error {
	id, path, err := identityFlags("show", args, stderr)
	if err != nil {
		return err
	}
	identity, err := keys.Load(path, id)
	if err != nil {
		return err
	}
	if err := printLine(stdout, identity); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, identity.PublicKey().Fingerprint())
	return err
}

func printLine(w io.Writer, identity *keys.Identity) error {
	_, err := fmt.Fprintln(w, keys.Entry{ID: identity.ID(), Key: identity.PublicKey()})
	return err
}

func identityFlags(command string, args []string, stderr io.Writer) (id, path string, err error) {
	flags := flag.NewFlagSet("keytool "+command, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&id, "id", "", "agent `ID`, such as agent-a or if://agent/swarm/legal-1@1.2.0")
	flags.StringVar(&path, "key", "", "private key `file`")
	if err := parse(flags, args); err != nil {
		return "", "", err
	}
	if id == "" || path == "" || flags.NArg() > 0 {
		return "", "", errUsage
	}
	return id, path, nil
}

func check(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("keytool check", flag.ContinueOnError)
	flags.SetOutput(stderr)
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errUsage
	}
	// As an agent would: this also refuses an empty file and one that everybody can write to.
	if _, err := keys.NewDirectory(keys.DirectoryConfig{Path: flags.Arg(0)}); err != nil {
		return err
	}
	f, err := os.Open(flags.Arg(0))
	if err != nil {
		return err
	}
	defer f.Close() // only read
	entries, err := keys.ParseDirectory(f)
	if err != nil {
		return err
	}
	agents := make(map[string]bool)
	for _, e := range entries {
		agents[e.ID] = true
	}
	_, err = fmt.Fprintf(stdout, "%d agents, %d keys\n", len(agents), len(entries))
	return err
}

func parse(flags *flag.FlagSet, args []string) error {
	err := flags.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return fmt.Errorf("%w: %w", errUsage, err) // Parse has printed it
	}
	return err
}
