package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/infrafabric/agentmesh/keys"
	"github.com/infrafabric/agentmesh/metrics"
	"github.com/infrafabric/agentmesh/metrics/promexport"
	"github.com/infrafabric/agentmesh/signaling"
)

// run is the whole program: it serves until ctx ends, drains, and returns the
// exit code: 0 after draining, 1 for a failure, 2 for wrong flags.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if o.logFormat == "json" {
		log = slog.New(slog.NewJSONHandler(stderr, nil))
	}
	if err := serve(ctx, o, log, stdout); err != nil {
		log.Error("failed", "error", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, o options, log *slog.Logger, stdout io.Writer) error {
	exp, err := promexport.New(promexport.Config{})
	if err != nil {
		return err
	}
	defer exp.Shutdown(context.WithoutCancel(ctx))
	ins, err := metrics.New(exp.MeterProvider())
	if err != nil {
		return err
	}
	cfg := signaling.ServerConfig{
		Names: o.names, Tokens: o.tokens, Logger: log, Metrics: ins, MetricsHandler: exp.Handler(),
	}
	if o.trust != "" {
		cfg.Trust, err = keys.NewDirectory(keys.DirectoryConfig{Path: o.trust, OnReload: reported(log, "trust file")})
		if err != nil {
			return err
		}
	}
	tlsConfig, err := o.tlsConfig(log)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.addr) // before the server says that it has started
	if err != nil {
		return err
	}
	defer l.Close()
	if len(o.names) == 0 && !loopback(l) {
		return fmt.Errorf("%v is no loopback address: -name must say under which host[:port] agents dial this server", l.Addr())
	}
	server, err := signaling.NewServer(cfg)
	if err != nil {
		return err
	}
	defer server.Close()
	log.Info("listening", "address", l.Addr().String(), "tls", tlsConfig != nil)
	if !loopback(l) && tlsConfig == nil {
		log.Warn("without TLS everybody on the way sees who talks to whom: use -tls-cert, or a proxy that does TLS")
	}
	fmt.Fprintln(stdout, "listening on", l.Addr())
	l = &patientListener{Listener: l, log: log}
	if tlsConfig != nil {
		l = tls.NewListener(l, tlsConfig)
	}
	web := &http.Server{
		Handler:           server,
		ReadHeaderTimeout: 5 * time.Second, // no others: a WebSocket lives as long as its agent
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(l) }()

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Info("draining", "limit", o.drain)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.drain)
	defer cancel()
	err = server.Shutdown(limit)
	err = errors.Join(err, web.Shutdown(limit))
	if errors.Is(err, context.DeadlineExceeded) { // the rest was cut off: drained all the same
		log.Warn("not everybody left in time")
		web.Close()
		err = nil
	}
	<-failed
	log.Info("stopped")
	return err
}

// loopback reports whether only this machine reaches l.
func loopback(l net.Listener) bool {
	a, ok := l.Addr().(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// tlsConfig returns nil without -tls-cert.
func (o options) tlsConfig(log *slog.Logger) (*tls.Config, error) {
	if o.tlsCert == "" {
		return nil, nil
	}
	r, err := signaling.NewCertificateReloader(signaling.CertificateReloaderConfig{
		CertFile: o.tlsCert, KeyFile: o.tlsKey, OnReload: reported(log, "TLS certificate"),
	})
	if err != nil {
		return nil, err
	}
	return r.TLSConfig(), nil
}

// reported logs the reloads of a file.
func reported(log *slog.Logger, what string) func(error) {
	return func(err error) {
		if err != nil {
			log.Error("not usable; a good one before it stays in use", "what", what, "error", err)
			return
		}
		log.Info("reloaded", "what", what)
	}
}
