package signaling

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/infrafabric/agentmesh/keys"
)

const (
	// reloadInterval is how often the files are looked at.
	reloadInterval = time.Second
	// settled is the age from which a file's modification time can be relied
	// on to change with its content: file systems keep times as coarse as 2 s.
	settled = 2 * time.Second
)

// CertificateReloaderConfig configures a [CertificateReloader].
type CertificateReloaderConfig struct {
	// CertFile holds the certificate chain and KeyFile its private key, in
	// PEM. Symbolic links are followed, so that mounted secrets work.
	CertFile, KeyFile string
	// OnReload is called with nil when a new certificate is in use, and with
	// the error when the files cannot be used or hold a certificate that is not
	// valid now, once for each state of the files. It is called during a TLS
	// handshake, or by NewCertificateReloader, and must return quickly. Nil means
	// nobody is told.
	OnReload func(error)
	// Time is the wall clock, for the dates of certificates. Nil means time.Now.
	Time func() time.Time
}

// CertificateReloader is a TLS certificate that follows its files: they are
// looked at during handshakes, at most once a second, and read again when they
// changed. A pair that cannot be used, such as one of which only half is
// written, leaves the last good one in use, as does one that has expired or is not
// yet valid while the last one is. There is no goroutine and nothing
// to close. All methods may be called concurrently.
type CertificateReloader struct {
	cfg CertificateReloaderConfig

	mu      sync.Mutex
	cert    *tls.Certificate
	checked time.Time // when the files were looked at last
	read    time.Time // when they were read last
	infos   [2]fs.FileInfo
	err     error // why the files are not in use; nil if they are
}

// NewCertificateReloader reads the files for the first time; it fails when
// they hold no certificate and key that belong together. A certificate that is not
// valid now is used, since there is no other, and OnReload is told.
func NewCertificateReloader(cfg CertificateReloaderConfig) (*CertificateReloader, error) {
	r := &CertificateReloader{cfg: cfg}
	switch {
	case cfg.CertFile == "":
		return nil, fmt.Errorf("signaling: %w", &ConfigError{Config: "CertificateReloaderConfig", Field: "CertFile", Reason: "missing"})
	case cfg.KeyFile == "":
		return nil, fmt.Errorf("signaling: %w", &ConfigError{Config: "CertificateReloaderConfig", Field: "KeyFile", Reason: "missing"})
	}
	if r.cfg.Time == nil {
		r.cfg.Time = time.Now
	}
	now := time.Now()
	infos, err := r.stat()
	if err == nil {
		err = r.load(infos, now)
	}
	if r.cert == nil {
		return nil, fmt.Errorf("signaling: TLS certificate: %w", err)
	}
	r.checked, r.err = now, err
	if err != nil && cfg.OnReload != nil {
		cfg.OnReload(err)
	}
	return r, nil
}

// TLSConfig returns a configuration for a server that uses the certificate. It
// allows TLS 1.3 only, which every agent speaks, and HTTP/1.1 only, because
// WebSockets are upgraded from it. The caller may change it.
func (r *CertificateReloader) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: r.GetCertificate,
	}
}

// GetCertificate is for [tls.Config.GetCertificate]. It never fails.
func (r *CertificateReloader) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, report, err := r.current(time.Now())
	if report && r.cfg.OnReload != nil {
		r.cfg.OnReload(err)
	}
	return cert, nil
}

// Err looks at the files and reports why they are not what is in use, or that what
// is in use is not valid now, or nil.
func (r *CertificateReloader) Err() error {
	r.GetCertificate(nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.err
	if err == nil {
		err = r.dated(r.cert)
	}
	if err != nil {
		return fmt.Errorf("signaling: TLS certificate: %w", err)
	}
	return nil
}

// current returns the certificate to use now, and whether there is news.
func (r *CertificateReloader) current(now time.Time) (cert *tls.Certificate, report bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.checked) < reloadInterval {
		return r.cert, false, nil
	}
	r.checked = now
	before := r.err
	infos, err := r.stat()
	switch {
	case err != nil:
		r.infos = [2]fs.FileInfo{}
	case r.unchanged(infos):
		return r.cert, false, nil
	default:
		old := r.cert
		if err = r.load(infos, now); err == nil && before == nil && sameChain(old, r.cert) {
			return r.cert, false, nil
		}
	}
	r.err = err
	if err != nil && before != nil && err.Error() == before.Error() {
		return r.cert, false, nil
	}
	return r.cert, true, err
}

func (r *CertificateReloader) stat() (infos [2]fs.FileInfo, err error) {
	for i, name := range []string{r.cfg.CertFile, r.cfg.KeyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return infos, err
		}
		if !info.Mode().IsRegular() || info.Size() > maxCertFile {
			return infos, fmt.Errorf("%s is no regular file, or larger than %d bytes", name, maxCertFile)
		}
		infos[i] = info
	}
	return infos, nil
}

// unchanged reports whether the files are those that were read.
func (r *CertificateReloader) unchanged(infos [2]fs.FileInfo) bool {
	for i, now := range infos {
		was := r.infos[i]
		if was == nil || !os.SameFile(was, now) || was.Size() != now.Size() || !was.ModTime().Equal(now.ModTime()) ||
			r.read.Sub(now.ModTime()) < settled {
			return false
		}
	}
	return true
}

// load reads the pair; on an error the old certificate stays.
func (r *CertificateReloader) load(infos [2]fs.FileInfo, now time.Time) error {
	r.infos, r.read = infos, now
	cert, err := tls.LoadX509KeyPair(r.cfg.CertFile, r.cfg.KeyFile)
	if err != nil {
		return err
	}
	wrong := r.dated(&cert)
	if wrong != nil && r.cert != nil && r.dated(r.cert) == nil {
		return wrong
	}
	r.cert = &cert
	return wrong
}

// dated reports that a certificate is not valid now, with both times. The error
// matches [keys.ErrExpired] or [keys.ErrNotYetValid].
func (r *CertificateReloader) dated(c *tls.Certificate) error {
	now := r.cfg.Time().Round(0).UTC()
	why, at := keys.ErrExpired, c.Leaf.NotAfter
	switch {
	case now.After(at):
	case now.Before(c.Leaf.NotBefore):
		why, at = keys.ErrNotYetValid, c.Leaf.NotBefore
	default:
		return nil
	}
	return fmt.Errorf("serial %v: %w: the limit is %s, the clock here shows %s",
		c.Leaf.SerialNumber, why, at.UTC().Format(time.RFC3339), now.Format(time.RFC3339))
}

func sameChain(a, b *tls.Certificate) bool {
	if a == nil || b == nil || len(a.Certificate) != len(b.Certificate) {
		return false
	}
	for i := range a.Certificate {
		if string(a.Certificate[i]) != string(b.Certificate[i]) {
			return false
		}
	}
	return true
}
