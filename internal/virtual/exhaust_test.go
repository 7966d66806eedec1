package virtual_test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestSetOpenError: every way to open a socket and to list interfaces fails, what is
// open works on, and it ends.
func TestSetOpenError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 2 * time.Millisecond})
		a, b := newSocket(t, n, virtual.Open), newSocket(t, n, virtual.Open)
		h, to := a.host, b.LocalAddr().String()
		local := &net.UDPAddr{IP: a.addr()}
		all := map[string]func() (func() error, error){
			"ListenUDP": func() (func() error, error) {
				c, err := h.ListenUDP("udp4", local)
				return func() error { return c.Close() }, err
			},
			"ListenPacket": func() (func() error, error) {
				c, err := h.ListenPacket("udp4", h.Addr()+":0")
				return func() error { return c.Close() }, err
			},
			"ListenConfig": func() (func() error, error) {
				c, err := h.CreateListenConfig(&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", h.Addr()+":0")
				return func() error { return c.Close() }, err
			},
			"DialUDP": func() (func() error, error) {
				c, err := h.DialUDP("udp4", nil, b.LocalAddr().(*net.UDPAddr))
				return func() error { return c.Close() }, err
			},
			"Dialer": func() (func() error, error) {
				c, err := h.CreateDialer(&net.Dialer{}).Dial("udp4", to)
				return func() error { return c.Close() }, err
			},
			"Interfaces":       func() (func() error, error) { _, err := h.Interfaces(); return nil, err },
			"InterfaceByIndex": func() (func() error, error) { _, err := h.InterfaceByIndex(2); return nil, err },
			"InterfaceByName":  func() (func() error, error) { _, err := h.InterfaceByName("eth0"); return nil, err },
		}
		h.SetOpenError(os.NewSyscallError("socket", syscall.EMFILE))
		for name, open := range all {
			_, err := open()
			var op *net.OpError
			if !errors.Is(err, syscall.EMFILE) || !errors.As(err, &op) {
				t.Errorf("%s: %v", name, err)
			}
		}
		took(t, a, b, b.LocalAddr(), time.Millisecond)
		b.another()
		h.SetOpenError(nil)
		for name, open := range all {
			end, err := open()
			if err != nil {
				t.Errorf("%s afterwards: %v", name, err)
			} else if end != nil {
				if err := end(); err != nil {
					t.Errorf("%s: close: %v", name, err)
				}
			}
		}
	})
}
