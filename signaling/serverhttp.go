package signaling

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// meshToken is the hash of a token and the mesh that it opens.
type meshToken struct {
	hash [sha256.Size]byte
	mesh string
}

func hashTokens(tokens map[string]string) []meshToken {
	var out []meshToken
	for token, mesh := range tokens {
		out = append(out, meshToken{sha256.Sum256([]byte(token)), mesh})
	}
	return out
}

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.serveWebSocket)
	mux.HandleFunc("GET /health", s.serveHealth)
	mux.HandleFunc("GET /stats", s.serveStats)
	mux.HandleFunc("GET /agents", s.serveAgents)
	if s.cfg.MetricsHandler != nil {
		mux.Handle("GET /metrics", s.cfg.MetricsHandler)
	}
	return mux
}

func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.drain: // load balancers are to look elsewhere
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "draining"})
	default:
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	}
}

func (s *Server) serveStats(w http.ResponseWriter, r *http.Request) {
	mesh, ok := s.authorize(w, r)
	if !ok {
		return
	}
	l := s.reg.list(mesh)
	names := make([]string, 0, len(l.conns))
	for _, c := range l.conns {
		names = append(names, c.reg.Agent)
	}
	slices.Sort(names)
	writeJSON(w, http.StatusOK, struct {
		TotalAgents int      `json:"total_agents"`
		Agents      []string `json:"agents"`
		Connections int      `json:"connections"`
	}{l.agents, slices.Compact(names), l.total})
}

// agentJSON is one registration in /agents.
type agentJSON struct {
	Mesh     string    `json:"mesh"`
	Agent    string    `json:"agent"`
	Key      string    `json:"key"`
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"`
}

func (s *Server) serveAgents(w http.ResponseWriter, r *http.Request) {
	mesh, ok := s.authorize(w, r)
	if !ok {
		return
	}
	l := s.reg.list(mesh)
	agents := make([]agentJSON, 0, len(l.conns))
	for _, c := range l.conns {
		agents = append(agents, agentJSON{
			c.reg.Mesh, c.reg.Agent, c.reg.Key.String(), c.instance.String(), c.since.UTC().Truncate(time.Millisecond),
		})
	}
	writeJSON(w, http.StatusOK, struct {
		Total  int         `json:"total"`
		Agents []agentJSON `json:"agents"`
	}{l.total, agents})
}

// authorize returns the mesh that the request may see: all ("") when no tokens
// are configured. Every token is compared, in constant time, so that the time
// of an answer tells nothing about the tokens.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) (mesh string, ok bool) {
	if len(s.tokens) == 0 {
		return "", true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	hash := sha256.Sum256([]byte(token))
	for _, t := range s.tokens {
		if subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1 {
			mesh, ok = t.mesh, true
		}
	}
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		w.Header().Set("WWW-Authenticate", `Bearer realm="signaling"`)
		writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "a bearer token is needed"})
		return "", false
	}
	return mesh, true
}

// admit answers requests that may not become a connection.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && !slices.Contains(s.cfg.AllowedOrigins, origin) {
		s.cfg.Logger.Warn("origin refused", "origin", origin, "remote", r.RemoteAddr)
		writeJSON(w, http.StatusForbidden, map[string]string{"error": "origin not allowed"})
		return false
	}
	if err := s.open(); err != nil {
		if errors.Is(err, errFull) {
			s.cfg.Logger.Warn("too many connections", "remote", r.RemoteAddr, "limit", s.cfg.Limits.Connections)
		}
		w.Header().Set("Retry-After", "5")
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
		return false
	}
	return true
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("signaling: encode JSON: " + err.Error()) // our own types always encode
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(b, '\n')) // an error means that nobody reads it
}
