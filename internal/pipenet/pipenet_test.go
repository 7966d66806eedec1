package pipenet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/internal/pipenet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect returns both ends of a connection over n.
func connect(t *testing.T, n *pipenet.Net) (client, server net.Conn, l net.Listener) {
	t.Helper()
	l, err := n.Listen("server")
	if err != nil {
		t.Fatal(err)
	}
	client, err = n.DialContext(t.Context(), "tcp", "server:80")
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server, l
}

func TestDelayKeepsOrderAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipenet.Net{Delay: 25 * time.Millisecond}
		start := time.Now()
		client, server, l := connect(t, n)
		defer l.Close()
		if got := time.Since(start); got != 50*time.Millisecond {
			t.Errorf("dial took %v, want 50ms", got)
		}
		start = time.Now()
		io.WriteString(client, "one ")
		time.Sleep(10 * time.Millisecond)
		io.WriteString(client, "two")
		client.Close()
		b := make([]byte, 16)
		k, err := server.Read(b)
		if string(b[:k]) != "one " || err != nil || time.Since(start) != 25*time.Millisecond {
			t.Errorf("read %q, %v after %v", b[:k], err, time.Since(start))
		}
		rest, err := io.ReadAll(server)
		if string(rest) != "two" || err != nil || time.Since(start) != 35*time.Millisecond {
			t.Errorf("read %q, %v after %v", rest, err, time.Since(start))
		}
		server.Close()
	})
}

func TestWriteWaitsAtTheBufferLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, l := connect(t, pipenet.New())
		defer l.Close()
		client.SetWriteDeadline(time.Now().Add(time.Second))
		k, err := client.Write(make([]byte, pipenet.BufferSize+1))
		if k != pipenet.BufferSize || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Write = %d, %v", k, err)
		}
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("%v is no timeout", err)
		}
		client.SetWriteDeadline(time.Time{})
		want := bytes.Repeat([]byte("x"), 3*pipenet.BufferSize)
		go func() { client.Write(want); client.Close() }()
		got, err := io.ReadAll(server)
		if err != nil || len(got) != len(want)+pipenet.BufferSize {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		server.Close()
	})
}

func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipenet.New()
		if _, err := n.DialContext(t.Context(), "tcp", "nobody:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial without listener: %v", err)
		}
		client, server, l := connect(t, n)
		if _, err := n.Listen("server:80"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second listener: %v", err)
		}
		server.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read after deadline: %v", err)
		}
		server.SetReadDeadline(time.Time{})

		blocked := make(chan error)
		go func() { _, err := server.Read(make([]byte, 1)); blocked <- err }()
		synctest.Wait()
		l.Close()
		if err := <-blocked; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read after the listener died: %v", err)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write after the listener died: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
		if _, err := n.DialContext(t.Context(), "tcp", "server:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial after close: %v", err)
		}

		client, server, l = connect(t, n)
		defer l.Close()
		server.Close()
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after own close: %v", err)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after remote close: %v", err)
		}
		client.Close()
	})
}

func TestStallHoldsBytesAndDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipenet.New()
		client, server, l := connect(t, n)
		defer l.Close()
		n.Stall("server")
		io.WriteString(client, "late")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.DialContext(ctx, "tcp", "server:80"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial to a stalled address: %v", err)
		}
		server.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read while stalled: %v", err)
		}
		server.SetReadDeadline(time.Time{})
		n.Resume("server")
		b := make([]byte, 4)
		if _, err := io.ReadFull(server, b); err != nil || string(b) != "late" {
			t.Errorf("after Resume: %q, %v", b, err)
		}
		n.Reset("server")
		if _, err := client.Read(b); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after Reset: %v", err)
		}
	})
}

func TestHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipenet.Net{Delay: time.Millisecond}
		l, err := n.Listen("web")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "you asked "+r.Host)
		})}
		done := make(chan error)
		go func() { done <- srv.Serve(l) }()
		start := time.Now()
		resp, err := n.HTTPClient().Get("http://web/")
		if got := time.Since(start); got != 4*time.Millisecond {
			t.Errorf("the answer took %v, want two round trips: 4ms", got)
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "you asked web" {
			t.Errorf("got %q, %v", body, err)
		}
		for _, addr := range []string{"web", "nobody"} { // with and without a listener
			n.Stall(addr)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.HTTPClient().Do(req); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("stalled %s: %v", addr, err)
			}
			n.Resume(addr)
		}
		if _, err := n.HTTPClient().Get("http://nobody/"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("without listener: %v", err)
		}
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}
