package signaling_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/metrics/promexport"
	"github.com/infrafabric/agentmesh/signaling"
)

// get returns status and body of a request with a bearer token, if not empty.
func (w *world) get(url, token string) (int, string) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), "GET", url, nil)
	if err != nil {
		w.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := w.net.HTTPClient().Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestEndpoints(t *testing.T) {
	inWorld(t, func(w *world) {
		exp, err := promexport.New(promexport.Config{})
		if err != nil {
			t.Fatal(err)
		}
		ins, err := metrics.New(exp.MeterProvider())
		if err != nil {
			t.Fatal(err)
		}
		w.serve("s1", signaling.ServerConfig{MetricsHandler: exp.Handler(), Metrics: ins})
		a := w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-a"), URLs: []string{"ws://s1/", "ws://s2/"}, Metrics: ins}).ready()
		b := w.client("agent-b", "ws://s1/").ready()
		a.send("agent-b", "x", nil)
		a.send("nobody", "x", nil)

		if status, body := w.get("http://s1/health", ""); status != 200 || body != `{"status":"ok"}`+"\n" {
			t.Errorf("/health: %d %s", status, body)
		}
		if status, body := w.get("http://s1/stats", ""); status != 200 ||
			body != `{"total_agents":2,"agents":["agent-a","agent-b"],"connections":2}`+"\n" {
			t.Errorf("/stats: %d %s", status, body)
		}
		_, body := w.get("http://s1/agents", "")
		var list struct {
			Total  int
			Agents []struct {
				Mesh, Agent, Key, Instance string
				Since                      time.Time
			}
		}
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		if list.Total != 2 || len(list.Agents) != 2 || list.Agents[1].Agent != "agent-b" || list.Agents[1].Mesh != "m" ||
			list.Agents[1].Key != b.id.PublicKey().String() || list.Agents[1].Instance != b.Instance().String() ||
			list.Agents[1].Since.IsZero() {
			t.Errorf("/agents: %s", body)
		}
		_, text := w.get("http://s1/metrics", "")
		for _, line := range []string{
			"webrtc_signaling_agents 2",
			`webrtc_signaling_relayed_total{type="offer"} 1`,
			`webrtc_signaling_connected{server="ws://s1/"} 1`,
			`webrtc_signaling_connected{server="ws://s2/"} 0`,
			"webrtc_signature_verification_success_total 2",
		} {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("/metrics lacks %q", line)
			}
		}
		a.Close()
		b.Close()
		settle()
		_, text = w.get("http://s1/metrics", "")
		for _, line := range []string{"webrtc_signaling_agents 0", `webrtc_signaling_connected{server="ws://s1/"} 0`} {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("after Close, /metrics lacks %q", line)
			}
		}
		if status, _ := w.get("http://s1/nothing", ""); status != 404 {
			t.Errorf("/nothing: %d", status)
		}
	})
}

func TestTokens(t *testing.T) {
	inWorld(t, func(w *world) {
		const one, two = "token-of-mesh-one", "token-of-mesh-two"
		w.serve("s1", signaling.ServerConfig{Tokens: map[string]string{one: "one", two: "two"}})
		w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-1"), Mesh: "one", URLs: []string{"ws://s1/"}}).ready()
		w.clientWith(signaling.ClientConfig{Identity: w.identity("agent-2"), Mesh: "two", URLs: []string{"ws://s1/"}}).ready()
		for _, path := range []string{"/stats", "/agents"} {
			for _, bad := range []string{"", "wrong", one + "x", one[1:]} {
				if status, body := w.get("http://s1"+path, bad); status != 401 || strings.Contains(body, "agent-") {
					t.Errorf("%s with token %q: %d %s", path, bad, status, body)
				}
			}
			status, body := w.get("http://s1"+path, two)
			if status != 200 || !strings.Contains(body, "agent-2") || strings.Contains(body, "agent-1") {
				t.Errorf("%s of mesh two: %d %s", path, status, body)
			}
		}
		if status, _ := w.get("http://s1/health", ""); status != 200 {
			t.Errorf("/health: %d", status)
		}
		if status, _ := w.get("http://s1/metrics", one); status != 404 {
			t.Errorf("/metrics without a handler: %d", status)
		}
	})
}

func TestOrigin(t *testing.T) {
	inWorld(t, func(w *world) {
		w.serve("s1", signaling.ServerConfig{AllowedOrigins: []string{"https://app.example"}})
		for origin, status := range map[string]int{
			"":                     426, // no WebSocket handshake, but not refused
			"https://app.example":  426,
			"https://evil.example": 403,
			"http://s1":            403, // not even the server's own: it serves no pages
			"null":                 403,
		} {
			req, err := http.NewRequestWithContext(w.Context(), "GET", "http://s1/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if origin != "" {
				req.Header.Set("Origin", origin)
			}
			resp, err := w.net.HTTPClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != status {
				t.Errorf("origin %q: status %d, want %d", origin, resp.StatusCode, status)
			}
		}
	})
}

func TestServerConfig(t *testing.T) {
	for field, cfg := range map[string]signaling.ServerConfig{
		"Names[0]":           {Names: []string{""}},
		"Names[1]":           {Names: []string{"s1", "wss://s1/"}},
		"Names[0] ":          {Names: []string{"user@s1"}},
		"Tokens":             {Tokens: map[string]string{"s3cret": "m"}},
		"Tokens ":            {Tokens: map[string]string{"s3cret-s3cret-s3cret": ""}},
		"AllowedOrigins[0]":  {AllowedOrigins: []string{"app.example"}},
		"AllowedOrigins[0] ": {AllowedOrigins: []string{"https://app.example/"}},
		"RecheckInterval":    {RecheckInterval: -1},
		"Limits.Connections": {Limits: signaling.ServerLimits{Connections: -1}},
		"Limits.Envelope":    {Limits: signaling.ServerLimits{Envelope: signaling.MaxEnvelope + 1}},
		"Limits.Envelope ":   {Limits: signaling.ServerLimits{Envelope: 10}},
		"Limits.Rate":        {Limits: signaling.ServerLimits{Rate: 1 << 30}},
		"Limits.Burst":       {Limits: signaling.ServerLimits{Burst: -1}},
		"Limits.Queue":       {Limits: signaling.ServerLimits{Queue: 1}},
		"Limits.Handshake":   {Limits: signaling.ServerLimits{Handshake: -1}},
		"Limits.Idle":        {Limits: signaling.ServerLimits{Idle: 48 * time.Hour}},
		"Limits.Write":       {Limits: signaling.ServerLimits{Write: -1}},
	} {
		s, err := signaling.NewServer(cfg)
		if err == nil {
			s.Close()
			t.Errorf("%s: accepted", field)
			continue
		}
		if !strings.Contains(err.Error(), "ServerConfig."+strings.TrimSpace(field)+":") {
			t.Errorf("%s: the error does not name it: %v", field, err)
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error holds a token: %v", err)
		}
	}
}
