package mesh

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"
)

// TestHeapStable connects and closes a thousand times: what a Node keeps about
// an agent does not grow with the number of its sessions.
func TestHeapStable(t *testing.T) {
	inHub(t, func(t *testing.T, h *hub, a, b *Node) {
		heap := func() uint64 {
			runtime.GC()
			runtime.GC() // what finalizers of the first run let go
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		ctx := context.Background()
		var middle uint64
		for i := 1; i <= 1000; i++ {
			p, err := dialFor(a, "agent-b", 5*time.Second)
			if err != nil {
				t.Fatal(i, err)
			}
			if err := p.Send(ctx, Message{}); err != nil {
				t.Fatal(i, err)
			}
			q, err := b.Accept(ctx)
			if err != nil {
				t.Fatal(i, err)
			}
			if m, err := q.Receive(ctx); err != nil || m.SequenceNum != uint64(i) {
				t.Fatal(i, m.SequenceNum, err)
			}
			if err := p.Close(); err != nil && !errors.As(err, new(*UndeliveredError)) {
				t.Fatal(i, err)
			}
			<-q.Context().Done()
			if err := q.Close(); err != nil {
				t.Fatal(i, err)
			}
			h.mu.Lock()
			h.seen = nil
			h.mu.Unlock()
			if i == 500 {
				middle = heap()
			}
		}
		end := heap()
		t.Logf("heap after 500 connections %d KiB, after 1000 %d KiB", middle>>10, end>>10)
		if end > middle+middle/10+256<<10 {
			t.Errorf("heap grew from %d to %d bytes", middle, end)
		}
	})
}
