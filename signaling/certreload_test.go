package signaling_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/infrafabric/agentmesh/internal/wallclock"
	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/witness"
)

// tlsPair makes a self-signed certificate for 127.0.0.1 and fe80::1.
func tlsPair(t *testing.T, serial int64) (certPEM, keyPEM []byte) {
	t.Helper()
	return tlsPairUntil(t, serial, time.Now().Add(100*365*24*time.Hour))
}

// tlsPairUntil makes one that expires.
func tlsPairUntil(t *testing.T, serial int64, until time.Time) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP("fe80::1")},
		NotBefore: time.Unix(0, 0), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func writeFile(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert1, key1 := tlsPair(t, 1)
	cert2, key2 := tlsPair(t, 2)
	synctest.Test(t, func(t *testing.T) {
		var reports []error
		cfg := signaling.CertificateReloaderConfig{CertFile: certFile, KeyFile: keyFile,
			OnReload: func(err error) { reports = append(reports, err) }}
		if _, err := signaling.NewCertificateReloader(cfg); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without files: %v", err)
		}
		writeFile(t, certFile, cert1)
		writeFile(t, keyFile, key1)
		r, err := signaling.NewCertificateReloader(cfg)
		if err != nil {
			t.Fatal(err)
		}
		serial := func() int64 {
			c, err := r.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(c.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			return leaf.SerialNumber.Int64()
		}
		step := func(what string, wantSerial int64, wantReports int, healthy bool) {
			t.Helper()
			time.Sleep(time.Second)
			for range 3 { // a report comes once
				if got := serial(); got != wantSerial {
					t.Errorf("%s: certificate %d is in use, want %d", what, got, wantSerial)
				}
				time.Sleep(time.Second)
			}
			if len(reports) != wantReports {
				t.Fatalf("%s: %d reports, want %d: %v", what, len(reports), wantReports, reports)
			}
			if err := r.Err(); (err == nil) != healthy {
				t.Errorf("%s: Err = %v", what, err)
			}
			if wantReports > 0 && (reports[wantReports-1] == nil) != healthy {
				t.Errorf("%s: reported %v", what, reports[wantReports-1])
			}
		}
		step("unchanged", 1, 0, true)
		writeFile(t, certFile, cert2)
		step("only the certificate is new", 1, 1, false)
		writeFile(t, keyFile, key2)
		step("both are new", 2, 2, true)
		if err := os.Remove(keyFile); err != nil {
			t.Fatal(err)
		}
		step("the key is missing", 2, 3, false)
		writeFile(t, keyFile, key2)
		step("it is back", 2, 4, true)
		writeFile(t, certFile, bytes.Repeat([]byte("x"), 2<<20))
		step("far too large", 2, 5, false)
		writeFile(t, certFile, cert1)
		writeFile(t, keyFile, key1)
		if got := serial(); got != 2 {
			t.Errorf("looked at the files again at once")
		}
		step("the old pair", 1, 6, true)

		// The same file, gone for a while: the times say nothing.
		old := time.Unix(1, 0)
		for _, err := range []error{os.Chtimes(certFile, old, old), os.Chtimes(keyFile, old, old)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		step("touched", 1, 6, true)
		if err := os.Rename(keyFile, keyFile+"~"); err != nil {
			t.Fatal(err)
		}
		step("renamed", 1, 7, false)
		if err := os.Rename(keyFile+"~", keyFile); err != nil {
			t.Fatal(err)
		}
		step("renamed back", 1, 8, true)

		// As mounted secrets change: another file of the same size and time.
		writeFile(t, certFile+"~", cert2)
		writeFile(t, keyFile+"~", key2)
		for _, name := range []string{certFile, keyFile} {
			if err := os.Chtimes(name+"~", old, old); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(name+"~", name); err != nil {
				t.Fatal(err)
			}
		}
		step("another file", 2, 9, true)
	})
}

func TestCertificateReloaderConfig(t *testing.T) {
	for _, cfg := range []signaling.CertificateReloaderConfig{{CertFile: "x"}, {KeyFile: "x"}} {
		if _, err := signaling.NewCertificateReloader(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// TestExpiredCertificate: one that has expired does not take the place of one that
// is valid, and is used and named when there is no other.
func TestExpiredCertificate(t *testing.T) {
	dir := t.TempDir()
	cfg := signaling.CertificateReloaderConfig{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	put := func(cert, key []byte) {
		writeFile(t, cfg.CertFile, cert)
		writeFile(t, cfg.KeyFile, key)
	}
	var told []error
	cfg.OnReload = func(err error) { told = append(told, err) }
	put(tlsPairUntil(t, 1, time.Now().Add(time.Hour)))
	r, err := signaling.NewCertificateReloader(cfg)
	if err != nil || len(told) != 0 {
		t.Fatal(err, told)
	}
	serial := func() int64 {
		c, err := r.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.Int64()
	}
	put(tlsPairUntil(t, 2, time.Now().Add(-time.Hour)))
	r.Forget()
	if got := serial(); got != 1 || len(told) != 1 || !errors.Is(told[0], keys.ErrExpired) || !errors.Is(r.Err(), keys.ErrExpired) {
		t.Errorf("serial %d, %v", got, told)
	}
	told = nil
	r, err = signaling.NewCertificateReloader(cfg)
	if err != nil || len(told) != 1 || !errors.Is(told[0], keys.ErrExpired) || serial() != 2 {
		t.Errorf("at the start: %v, %v", err, told)
	}
	// What was valid when it was read expires in use.
	var clock wallclock.Clock
	cfg.Time = clock.Now
	put(tlsPairUntil(t, 3, time.Now().Add(time.Hour)))
	if r, err = signaling.NewCertificateReloader(cfg); err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	clock.Step(2 * time.Hour)
	if err := r.Err(); !errors.Is(err, keys.ErrExpired) {
		t.Errorf("after its time: %v", err)
	}
	clock.Step(-10000 * 24 * time.Hour)
	clock.Step(-20000 * 24 * time.Hour)
	if err := r.Err(); !errors.Is(err, keys.ErrNotYetValid) {
		t.Errorf("before its time: %v", err)
	}
}

// Over real TLS on a real socket: agents register, and the certificate changes
// under the running server.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert1, key1 := tlsPair(t, 1)
	writeFile(t, certFile, cert1)
	writeFile(t, keyFile, key1)
	r, err := signaling.NewCertificateReloader(signaling.CertificateReloaderConfig{CertFile: certFile, KeyFile: keyFile})
	if err != nil {
		t.Fatal(err)
	}
	s, err := signaling.NewServer(signaling.ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(tls.NewListener(l, r.TLSConfig())) })
	defer wg.Wait()
	defer srv.Close()

	// connect registers, trusting one root. It fails at the first attempt that
	// does: there is none after it.
	connect := func(root []byte) error {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(root)
		id, err := keys.Generate("agent-a")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		c, err := signaling.NewClient(signaling.ClientConfig{
			Identity: id, Mesh: "m", URLs: []string{"https://" + l.Addr().String()},
			HTTPClient: &http.Client{Transport: &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
			}},
			Recorder: witness.RecorderFunc(func(_ context.Context, e witness.Event) {
				if e.Name == witness.SignalingConnectionFailed {
					cancel(errors.New("attempt failed"))
				}
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.WaitReady(ctx)
	}
	if err := connect(cert1); err != nil {
		t.Errorf("first certificate: %v", err)
	}
	cert2, key2 := tlsPair(t, 2)
	if err := connect(cert2); err == nil {
		t.Error("a client accepted a certificate that it does not trust")
	}
	writeFile(t, certFile, cert2)
	writeFile(t, keyFile, key2)
	r.Forget() // the second until the files are looked at again
	if err := connect(cert2); err != nil {
		t.Errorf("second certificate: %v", err)
	}
}
