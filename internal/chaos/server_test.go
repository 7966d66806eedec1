package chaos

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
)

// serverConfig is what a signaling server is told.
type serverConfig struct {
	Addr string
}

// run serves until standard input ends.
func (c serverConfig) run() error {
	s, err := signaling.NewServer(signaling.ServerConfig{Names: []string{c.Addr}, Logger: ownLog()})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return err
	}
	say("listening")
	web := &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(l) }()
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, s.Close(), web.Close())
}
