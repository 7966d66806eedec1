package main

import (
	"log/slog"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// failing is a listener on a machine that is short of something for a while.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) == 0 {
		near, _ := net.Pipe()
		return near, nil
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
}

// TestPatientListener: errors that pass end nothing, and the end does.
func TestPatientListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		short := []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED,
			syscall.EMFILE, syscall.EMFILE, syscall.EMFILE, syscall.EMFILE, syscall.EMFILE}
		l := &patientListener{Listener: &failing{errs: short}, log: slog.New(slog.DiscardHandler)}
		start := time.Now()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		// 5, 10, 20 … 640 ms, then a second each time.
		if d := time.Since(start); d != 1275*time.Millisecond+2*time.Second {
			t.Errorf("accepted after %v", d)
		}
		l = &patientListener{Listener: &failing{errs: []error{net.ErrClosed}}, log: l.log}
		if _, err := l.Accept(); err == nil {
			t.Error("a listener that is closed goes on")
		}
	})
}
