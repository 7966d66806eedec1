package main

import (
	"errors"
	"log/slog"
	"net"
	"time"
)

// The pause after an accept that failed doubles from the first to the last.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// patientListener goes on after an accept that failed: a machine that is out of
// descriptors or buffers (EMFILE, ENOBUFS) has some again later. http.Server
// outlives only a few of these errors. Only a closed listener ends it.
type patientListener struct {
	net.Listener
	log *slog.Logger
}

// Accept implements [net.Listener].
func (l *patientListener) Accept() (net.Conn, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		conn, err := l.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		l.log.Warn("no connection was accepted", "error", err, "pause", pause)
		time.Sleep(pause) // a listener that is closed meanwhile says so then
	}
}
