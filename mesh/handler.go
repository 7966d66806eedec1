package mesh

import (
	"context"
	"errors"
	"runtime"
	"strings"
)

// ErrHandlerExit means that a Handler ended its goroutine (runtime.Goexit, or a test's
// FailNow) instead of returning. The Peer closes: nobody would take its messages.
var ErrHandlerExit = errors.New("the handler did not return")

// handlerKey marks the context of a Handler with its Peer.
type handlerKey struct{}

// handling reports whether ctx is that of a Handler of the Peer.
func handling(ctx context.Context, p *Peer) bool {
	of, _ := ctx.Value(handlerKey{}).(*Peer)
	return of == p
}

// handle calls the Handler for every message until the Peer closes.
func (p *Peer) handle() {
	ctx := context.WithValue(p.ctx, handlerKey{}, p)
	for {
		in, err := p.led.pop(p.ctx, p.tenancy, false)
		if err != nil {
			return
		}
		p.node.obs.received(p.ctx, in.msg)
		p.callHandler(ctx, in.msg)
		p.led.taken(in)
	}
}

// callHandler runs the Handler. A panic in it is not recovered.
//
//go:noinline
func (p *Peer) callHandler(ctx context.Context, m *Message) {
	returned := false
	defer func() {
		if !returned {
			p.shut(goodbyeClosed, ErrHandlerExit)
		}
	}()
	p.node.cfg.Handler(ctx, p, *m)
	returned = true
}

// inHandler reports whether the calling goroutine runs a Handler of some Peer,
// which must not wait for Handlers to end. The stack knows; a context would only
// know what it was told.
func inHandler() bool {
	pcs := make([]uintptr, 64)
	n := runtime.Callers(2, pcs)
	for n == len(pcs) {
		pcs = make([]uintptr, 2*len(pcs))
		n = runtime.Callers(2, pcs)
	}
	frames := runtime.CallersFrames(pcs[:n])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "/mesh.(*Peer).callHandler") {
			return true
		}
		if !more {
			return false
		}
	}
}
