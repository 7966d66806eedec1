package turn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5/stdnet"
	"github.com/pion/turn/v5"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

const (
	testUser     = "mesh"
	testPassword = "s3cr3t-password"
)

// allocations counts those of a server.
type allocations struct{ made, alive atomic.Int64 }

// serverConfig is that of a server with the user above.
func serverConfig(n *allocations) turn.ServerConfig {
	return turn.ServerConfig{
		Realm: "test",
		AuthHandler: func(ra *turn.RequestAttributes) (string, []byte, bool) {
			return ra.Username, turn.GenerateAuthKey(testUser, ra.Realm, testPassword), ra.Username == testUser
		},
		EventHandler: turn.EventHandler{
			OnAllocationCreated: func(net.Addr, net.Addr, string, string, string, net.Addr, int) { n.made.Add(1); n.alive.Add(1) },
			OnAllocationDeleted: func(net.Addr, net.Addr, string, string, string) { n.alive.Add(-1) },
		},
		LoggerFactory: &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled},
	}
}

// onLoopback starts a server on the machine's loopback and returns the way to it.
// A machine without that loopback fails the test.
func onLoopback(t *testing.T, kind, ip string, change func(*turn.ServerConfig)) (Relay, *allocations) {
	t.Helper()
	var n allocations
	cfg := serverConfig(&n)
	relays, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	generator := &turn.RelayAddressGeneratorStatic{RelayAddress: net.ParseIP(ip), Address: ip, Net: relays}
	r := Relay{Username: testUser, Password: testPassword}
	at := net.JoinHostPort(ip, "0")
	if kind == "udp" {
		c, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		cfg.PacketConnConfigs = []turn.PacketConnConfig{{PacketConn: c, RelayAddressGenerator: generator}}
		r.URL = "turn:" + c.LocalAddr().String()
	} else {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		r.URL = "turn:" + l.Addr().String() + "?transport=tcp"
		if kind == "tls" {
			cert, pool := authority(t, ip)
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
			r.URL = "turns:" + l.Addr().String()
			r.TLS = &tls.Config{RootCAs: pool}
		}
		cfg.ListenerConfigs = []turn.ListenerConfig{{Listener: l, RelayAddressGenerator: generator}}
	}
	if change != nil {
		change(&cfg)
	}
	s, err := turn.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return r, &n
}

// authority returns a certificate for ip, and who vouches for it.
func authority(t *testing.T, ip string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(ip)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestProbe(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		for _, kind := range []string{"udp", "tcp", "tls"} {
			t.Run(kind+" "+ip, func(t *testing.T) {
				r, n := onLoopback(t, kind, ip, nil)
				latency, err := Probe(t.Context(), nil, r)
				if err != nil || latency <= 0 || latency > time.Second {
					t.Fatalf("latency %v, %v", latency, err)
				}
				if made, alive := n.made.Load(), n.alive.Load(); made != 1 || alive != 0 {
					t.Errorf("%d allocations made, %d not freed", made, alive)
				}
				r.Password = "another"
				if _, err := Probe(t.Context(), nil, r); !errors.Is(err, ErrCredentials) {
					t.Errorf("with a wrong password: %v", err)
				}
				if kind == "tls" {
					r.TLS = nil
					if _, err := Probe(t.Context(), nil, r); !errors.Is(err, ErrUnreachable) {
						t.Errorf("with a certificate of nobody: %v", err)
					}
				}
			})
		}
	}
}

// TestProbeRefused: each refusal has its error, which tells the server's code and
// no secret, and leaves no allocation.
func TestProbeRefused(t *testing.T) {
	hour := time.Hour
	for _, c := range []struct {
		name   string
		change func(*turn.ServerConfig)
		relay  func(*Relay)
		want   error
		code   stun.ErrorCode
	}{
		{"user", nil, func(r *Relay) { r.Username = "eve" }, ErrCredentials, 401},
		{"expired", nil, func(r *Relay) { r.Username = "eve"; r.Expires = time.Now().Add(-hour) }, ErrExpired, 401},
		{"expired by name", nil, func(r *Relay) { r.Username = fmt.Sprint(time.Now().Add(-hour).Unix(), ":eve") }, ErrExpired, 401},
		{"not expired by name", nil, func(r *Relay) { r.Username = fmt.Sprint(time.Now().Add(hour).Unix(), ":eve") }, ErrCredentials, 401},
		{"quota", func(c *turn.ServerConfig) {
			c.QuotaHandler = func(string, string, net.Addr) bool { return false }
		}, nil, ErrQuota, 486},
		{"no capacity", func(c *turn.ServerConfig) {
			c.PacketConnConfigs[0].RelayAddressGenerator = &turn.RelayAddressGeneratorStatic{
				RelayAddress: net.IPv4(203, 0, 113, 1), Address: "203.0.113.1", Net: c.PacketConnConfigs[0].RelayAddressGenerator.(*turn.RelayAddressGeneratorStatic).Net,
			}
		}, nil, ErrNoAllocation, 508},
		{"forbidden", func(c *turn.ServerConfig) {
			c.PacketConnConfigs[0].PermissionHandler = func(net.Addr, net.IP) bool { return false }
		}, nil, ErrForbidden, 403},
		{"no credential", nil, func(r *Relay) { r.Password = "" }, ErrNoCredential, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, n := onLoopback(t, "udp", "127.0.0.1", c.change)
			if c.relay != nil {
				c.relay(&r)
			}
			_, err := Probe(t.Context(), nil, r)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			var pe *ProbeError
			if !errors.As(err, &pe) || pe.URL != r.URL || pe.Kind != c.want {
				t.Errorf("not a *ProbeError about %s: %v", r.URL, err)
			}
			var te *stun.TurnError
			if c.code != 0 && (!errors.As(err, &te) || te.ErrorCodeAttr.Code != c.code) {
				t.Errorf("%v does not tell %d", err, c.code)
			}
			if strings.Contains(fmt.Sprintf("%v %+v", err, err), testPassword) {
				t.Errorf("the error tells the password: %v", err)
			}
			if alive := n.alive.Load(); alive != 0 {
				t.Errorf("%d allocations not freed", alive)
			}
		})
	}
}

// TestProbeNobodyThere: a closed port is known at once, over UDP too.
func TestProbeNobodyThere(t *testing.T) {
	for _, url := range []string{"turn:127.0.0.1:1", "turn:127.0.0.1:1?transport=tcp", "turns:127.0.0.1:1", "turn:nobody.invalid"} {
		began := time.Now()
		_, err := Probe(t.Context(), nil, Relay{URL: url, Username: testUser, Password: testPassword})
		if took := time.Since(began); !errors.Is(err, ErrUnreachable) || took > 4*time.Second {
			t.Errorf("%s: %v after %v", url, err, took)
		}
	}
	for _, url := range []string{"", "stun:127.0.0.1", "turns:127.0.0.1?transport=udp", "turn:127.0.0.1:0", "turn:" + strings.Repeat("x", 400)} {
		var ce *ConfigError
		if _, err := Probe(t.Context(), nil, Relay{URL: url}); !errors.As(err, &ce) || ce.Field != "Relay.URL" {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// script is a server that answers each datagram of a client with others.
func script(t *testing.T, n *virtual.Net, answer func(request *stun.Message) [][]byte) string {
	t.Helper()
	h, err := n.Host(virtual.Open)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.ListenPacket("udp4", h.Addr()+":3478")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			size, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			m := &stun.Message{Raw: append([]byte(nil), buf[:size]...)}
			if m.Decode() != nil {
				continue
			}
			for _, b := range answer(m) {
				_, _ = c.WriteTo(b, from)
			}
		}
	}()
	return "turn:" + h.Addr() + ":3478"
}

func reply(m *stun.Message, class stun.MessageClass, attrs ...stun.Setter) []byte {
	all := append([]stun.Setter{stun.NewTransactionIDSetter(m.TransactionID), stun.NewType(m.Type.Method, class)}, attrs...)
	return stun.MustBuild(all...).Raw
}

// TestProbeOddServers: whatever a server answers, a probe ends in time, with an
// error that says what is wrong.
func TestProbeOddServers(t *testing.T) {
	realm, nonce := stun.NewRealm("r"), stun.NewNonce("n")
	key := stun.NewLongTermIntegrity(testUser, "r", testPassword)
	challenge := func(m *stun.Message) [][]byte {
		return [][]byte{reply(m, stun.ClassErrorResponse, stun.CodeUnauthorized, realm, nonce)}
	}
	relayed := relayedAddress{IP: net.IPv4(1, 2, 3, 4), Port: 5}
	// echoes does everything right but for the echo, which change makes of what was sent.
	echoes := func(change func(data []byte) (stun.MessageType, []byte)) func(m *stun.Message) [][]byte {
		return func(m *stun.Message) [][]byte {
			switch {
			case m.Type.Class == stun.ClassIndication:
				data, _ := m.Get(stun.AttrData)
				typ, data := change(data)
				return [][]byte{stun.MustBuild(stun.TransactionID, typ, stun.RawAttribute{Type: stun.AttrData, Value: data}).Raw}
			case !m.Contains(stun.AttrMessageIntegrity):
				return challenge(m)
			}
			return [][]byte{reply(m, stun.ClassSuccessResponse, relayed, key)}
		}
	}
	dataIndication := stun.NewType(stun.MethodData, stun.ClassIndication)
	for name, c := range map[string]struct {
		answer func(m *stun.Message) [][]byte
		want   error
		within time.Duration
	}{
		"nothing": {func(*stun.Message) [][]byte { return nil }, ErrUnreachable, DefaultProbeTimeout},
		"garbage": {func(*stun.Message) [][]byte { return [][]byte{{1, 2, 3}, {}, make([]byte, 1400)} }, ErrUnreachable, DefaultProbeTimeout},
		"a flood": {func(*stun.Message) [][]byte { return make([][]byte, 2*maxStray) }, ErrUnreachable, time.Second},
		"success at once": {func(m *stun.Message) [][]byte {
			return [][]byte{reply(m, stun.ClassSuccessResponse, relayed)}
		}, ErrNoAllocation, time.Second},
		"a wrong fingerprint": {func(m *stun.Message) [][]byte {
			return [][]byte{reply(m, stun.ClassErrorResponse, stun.CodeUnauthorized, realm, nonce, stun.RawAttribute{Type: stun.AttrFingerprint, Value: make([]byte, 4)})}
		}, ErrUnreachable, DefaultProbeTimeout},
		"no nonce": {func(m *stun.Message) [][]byte {
			return [][]byte{reply(m, stun.ClassErrorResponse, stun.CodeUnauthorized, realm)}
		}, ErrNoAllocation, time.Second},
		"no realm": {func(m *stun.Message) [][]byte {
			return [][]byte{reply(m, stun.ClassErrorResponse, stun.CodeUnauthorized, nonce)}
		}, ErrNoAllocation, time.Second},
		"no code": {func(m *stun.Message) [][]byte { return [][]byte{reply(m, stun.ClassErrorResponse)} }, ErrNoAllocation, time.Second},
		"another server": {func(m *stun.Message) [][]byte {
			return [][]byte{reply(m, stun.ClassErrorResponse, stun.CodeTryAlternate)}
		}, ErrNoAllocation, time.Second},
		"always stale": {func(m *stun.Message) [][]byte {
			return [][]byte{reply(m, stun.ClassErrorResponse, stun.CodeStaleNonce, realm, nonce)}
		}, ErrNoAllocation, time.Second},
		"an unsigned success": {func(m *stun.Message) [][]byte {
			if !m.Contains(stun.AttrMessageIntegrity) {
				return challenge(m)
			}
			return [][]byte{reply(m, stun.ClassSuccessResponse, relayed)}
		}, ErrUnreachable, DefaultProbeTimeout},
		"no relayed address": {func(m *stun.Message) [][]byte {
			if !m.Contains(stun.AttrMessageIntegrity) {
				return challenge(m)
			}
			return [][]byte{reply(m, stun.ClassSuccessResponse, key)}
		}, ErrNoAllocation, time.Second},
		"an echo": {echoes(func(data []byte) (stun.MessageType, []byte) { return dataIndication, data }), nil, time.Second},
		"something else": {echoes(func([]byte) (stun.MessageType, []byte) { return dataIndication, make([]byte, 20) }),
			ErrNoEcho, DefaultProbeTimeout},
		"an echo that is cut": {echoes(func(data []byte) (stun.MessageType, []byte) { return dataIndication, data[:19] }),
			ErrNoEcho, DefaultProbeTimeout},
		"an echo of what was not sent": {echoes(func(data []byte) (stun.MessageType, []byte) {
			return dataIndication, append(slices.Clone(data[:16]), 0, 0, 1, 0)
		}), ErrNoEcho, DefaultProbeTimeout},
		"an echo of the next": {echoes(func(data []byte) (stun.MessageType, []byte) {
			next := slices.Clone(data)
			next[19]++
			return dataIndication, next
		}), ErrNoEcho, DefaultProbeTimeout},
		"an echo of another kind": {echoes(func(data []byte) (stun.MessageType, []byte) {
			return stun.NewType(stun.MethodSend, stun.ClassIndication), data
		}), ErrNoEcho, DefaultProbeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
				url := script(t, n, c.answer)
				me, err := n.Host(virtual.PortRestricted)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				_, err = Probe(t.Context(), me, Relay{URL: url, Username: testUser, Password: testPassword})
				if took := time.Since(began); !errors.Is(err, c.want) || took > c.within {
					t.Errorf("%v after %v; want %v within %v", err, took, c.want, c.within)
				}
			})
		})
	}
}

type relayedAddress stun.XORMappedAddress

func (a relayedAddress) AddTo(m *stun.Message) error {
	return stun.XORMappedAddress(a).AddToAs(m, stun.AttrXORRelayedAddress)
}

// TestProbeOddStreams: the same over TCP, where garbage has no end.
func TestProbeOddStreams(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(net.Conn)
		want  error
	}{
		"closes":    {func(c net.Conn) {}, ErrUnreachable},
		"garbage":   {func(c net.Conn) { _, _ = c.Write([]byte(strings.Repeat("HTTP/1.1 400 Bad Request\r\n", 100))) }, ErrUnreachable},
		"is silent": {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, ErrUnreachable},
	} {
		for _, scheme := range []string{"turn", "turns"} {
			t.Run(scheme+" "+name, func(t *testing.T) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				done := make(chan struct{})
				go func() {
					defer close(done)
					conn, err := l.Accept()
					if err == nil {
						c.serve(conn)
						_ = conn.Close()
					}
				}()
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				_, err = Probe(ctx, nil, Relay{URL: scheme + ":" + l.Addr().String() + "?transport=tcp", Username: testUser, Password: testPassword})
				if !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				<-done
			})
		}
	}
}

// TestProbeExact: what a probe costs in round trips, what it measures, and that it
// is as good under loss.
func TestProbeExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond})
		v, err := n.Relay(virtual.RelayConfig{Username: testUser, Password: testPassword})
		if err != nil {
			t.Fatal(err)
		}
		me, err := n.Host(virtual.Symmetric)
		if err != nil {
			t.Fatal(err)
		}
		r := Relay{URL: v.URL(), Username: testUser, Password: testPassword}
		began := time.Now()
		latency, err := Probe(t.Context(), me, r)
		// The relay's way to itself is half a round trip in this network.
		if took := time.Since(began); err != nil || latency != 75*time.Millisecond || took != 275*time.Millisecond {
			t.Errorf("latency %v after %v, %v", latency, took, err)
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		v.Hang()
		time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
		began = time.Now()
		if _, err := Probe(ctx, me, r); !errors.Is(err, cause) || time.Since(began) != 100*time.Millisecond {
			t.Errorf("cancelled: %v after %v", err, time.Since(began))
		}
		v.Resume()
		if err := v.Host().SetLoss(20, 7); err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			latency, err := Probe(t.Context(), me, r)
			if err != nil || latency != 75*time.Millisecond {
				t.Errorf("probe %d at 20 %% loss: %v, %v", i, latency, err)
			}
		}
	})
}
