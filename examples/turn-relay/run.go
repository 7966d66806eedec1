package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/infrafabric/agentmesh/signaling"
	"github.com/infrafabric/agentmesh/turn"
)

// udpBuffer is how much of what all clients send may wait, in bytes.
const udpBuffer = 4 << 20

// run is the whole program: it serves until ctx ends, drains, and returns the
// exit code: 0 after draining, 1 for a failure, 2 for wrong flags.
func run(ctx context.Context, args []string, secret string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, secret, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	o.server.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	if o.logFormat == "json" {
		o.server.Logger = slog.New(slog.NewJSONHandler(stderr, nil))
	}
	if err := serve(ctx, o, stdout); err != nil {
		o.server.Logger.Error("failed", "error", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, o options, stdout io.Writer) error {
	log := o.server.Logger
	urls, err := o.listen()
	if err != nil {
		return errors.Join(err, o.close())
	}
	server, err := turn.NewServer(o.server)
	if err != nil {
		return errors.Join(err, o.close())
	}
	defer server.Close()
	stopWeb, err := o.serveWeb(ctx, server)
	if err != nil {
		return err
	}
	defer stopWeb()
	for _, url := range urls {
		fmt.Fprintln(stdout, url)
	}
	fmt.Fprintln(stdout, "ready")

	<-ctx.Done()
	log.Info("draining", "limit", o.drain, "allocations", server.Stats().Allocations)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.drain)
	defer cancel()
	err = server.Shutdown(limit)
	if errors.Is(err, context.DeadlineExceeded) { // the rest was cut off: drained all the same
		log.Warn("not every allocation ended in time")
		err = nil
	}
	log.Info("stopped", "stats", server.Stats())
	return err
}

// listen opens the sockets of o.server and returns the URLs (RFC 7065) under which
// they are reached.
func (o *options) listen() (urls []string, err error) {
	for _, addr := range o.udp {
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, err
		}
		_ = c.(*net.UDPConn).SetReadBuffer(udpBuffer) // as much as the system allows
		o.server.PacketConns = append(o.server.PacketConns, c)
		urls = append(urls, o.url("turn", c.LocalAddr().(*net.UDPAddr).AddrPort(), "udp"))
	}
	for _, addr := range o.tcp {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, err
		}
		o.server.Listeners = append(o.server.Listeners, l)
		urls = append(urls, o.url("turn", l.Addr().(*net.TCPAddr).AddrPort(), "tcp"))
	}
	if len(o.tls) == 0 {
		return urls, nil
	}
	config, err := o.tlsConfig()
	if err != nil {
		return nil, err
	}
	for _, addr := range o.tls {
		l, err := tls.Listen("tcp", addr, config)
		if err != nil {
			return nil, err
		}
		o.server.Listeners = append(o.server.Listeners, l)
		urls = append(urls, o.url("turns", l.Addr().(*net.TCPAddr).AddrPort(), "tcp"))
	}
	return urls, nil
}

// close closes what listen opened, when there is no server that does.
func (o *options) close() error {
	var errs []error
	for _, c := range o.server.PacketConns {
		errs = append(errs, c.Close())
	}
	for _, l := range o.server.Listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// url is where a socket is reached: at the name, at the public address of its
// family, or else at its own.
func (o *options) url(scheme string, at netip.AddrPort, transport string) string {
	host := o.name
	if host == "" {
		ip := at.Addr().Unmap()
		for _, r := range o.server.RelayIPs {
			if r.Public.Is4() == ip.Is4() || ip.IsUnspecified() {
				ip = r.Public
				break
			}
		}
		host = ip.String()
	}
	return fmt.Sprintf("%s:%s?transport=%s", scheme, net.JoinHostPort(host, fmt.Sprint(at.Port())), transport)
}

func (o *options) tlsConfig() (*tls.Config, error) {
	r, err := signaling.NewCertificateReloader(signaling.CertificateReloaderConfig{
		CertFile: o.tlsCert, KeyFile: o.tlsKey, OnReload: func(err error) {
			if err != nil {
				o.server.Logger.Error("the last good TLS certificate stays in use", "error", err)
				return
			}
			o.server.Logger.Info("reloaded the TLS certificate")
		},
	})
	if err != nil {
		return nil, err
	}
	c := r.TLSConfig()
	c.MinVersion = tls.VersionTLS12      // of clients that are no agents
	c.NextProtos = []string{"stun.turn"} // RFC 7443
	return c, nil
}

// serveWeb serves /health and /stats and returns what ends that.
func (o *options) serveWeb(ctx context.Context, server *turn.Server) (stop func(), err error) {
	if o.http == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", o.http)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if ctx.Err() != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, `{"status":"draining"}`)
			return
		}
		fmt.Fprintln(w, `{"status":"ok"}`)
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(server.Stats()) // fails when the client is gone
	})
	web := &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		ErrorLog: slog.NewLogLogger(o.server.Logger.Handler(), slog.LevelWarn)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = web.Serve(l) // until Close
	}()
	o.server.Logger.Info("serving /health and /stats", "address", l.Addr().String())
	return func() {
		web.Close()
		<-done
	}, nil
}
