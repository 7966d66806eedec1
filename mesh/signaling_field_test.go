package mesh

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/infrafabric/agentmesh/keys"
)

// TestListenNamesTheSignalingField: a mistake in Signaling is told at once, as one
// in the field that the caller wrote.
func TestListenNamesTheSignalingField(t *testing.T) {
	for _, bad := range []string{"127.0.0.1:8443", "tcp://x/", "ws://", "ws://me:s3cret@x:99999999/", "ws://x:0/", "ws://ok/"} {
		lo, err := LoopbackNet()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err = Listen(ctx, Config{Identity: newIdentity(t, "agent-a"), Trust: keys.TrustAny, Net: lo,
			Signaling: []string{"ws://ok/", bad}})
		cancel()
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Field != "Signaling[1]" || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestFailedListenLeavesNothing: no connection, idle or being made, outlives a
// Listen that failed.
func TestFailedListenLeavesNothing(t *testing.T) {
	before, files := goleak.IgnoreCurrent(), openFiles()
	web := httptest.NewServer(http.NotFoundHandler())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	lo, err := LoopbackNet()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(ctx, Config{Identity: newIdentity(t, "agent-a"), Trust: keys.TrustAny, Net: lo,
		Signaling: []string{strings.Replace(web.URL, "http", "ws", 1)}}); err == nil {
		t.Error("a server that is none was joined")
	}
	cancel()
	// Before the server closes, which would end what is left.
	if err := goleak.Find(before, goleak.IgnoreAnyFunction("net/http.(*Server).Serve"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve")); err != nil {
		t.Error(err)
	}
	web.Close()
	if n := openFiles(); n > files {
		t.Errorf("%d files are open, %d were", n, files)
	}
}

// openFiles is how many descriptors this process has, 0 where nothing tells.
func openFiles() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(list)
}
