package virtual

import "net"

// SetOpenError makes the host fail with err whenever a socket is opened or its
// interfaces are listed, until the next call, which with nil ends it: as a process that
// has no file descriptor left, whose err is os.NewSyscallError("socket",
// syscall.EMFILE). What is open works on. The caller gets a [*net.OpError] around err,
// as from package net.
func (h *Host) SetOpenError(err error) {
	h.net.wire.mu.Lock()
	defer h.net.wire.mu.Unlock()
	h.openError = err
}

// open returns where a socket of the host is opened at present, or why none is.
func (h *Host) open(op, network string, addr net.Addr) (*attachment, error) {
	h.net.wire.mu.Lock()
	defer h.net.wire.mu.Unlock()
	if h.openError != nil {
		return nil, &net.OpError{Op: op, Net: network, Addr: addr, Err: h.openError}
	}
	return h.at, nil
}
