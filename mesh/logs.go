package mesh

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// pionLogs passes pion's logs on at debug level: what matters of them reaches
// this package as errors.
type pionLogs struct{ log *slog.Logger }

func (f pionLogs) NewLogger(scope string) logging.LeveledLogger {
	return pionLog{f.log.With("pion", scope)}
}

type pionLog struct{ log *slog.Logger }

func (l pionLog) put(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, args...))
	}
}

// Trace is dropped: it holds ICE credentials and one line per packet.
func (pionLog) Trace(string)          {}
func (pionLog) Tracef(string, ...any) {}

func (l pionLog) Debug(m string)            { l.put("%s", m) }
func (l pionLog) Debugf(f string, a ...any) { l.put(f, a...) }
func (l pionLog) Info(m string)             { l.put("%s", m) }
func (l pionLog) Infof(f string, a ...any)  { l.put(f, a...) }
func (l pionLog) Warn(m string)             { l.put("%s", m) }
func (l pionLog) Warnf(f string, a ...any)  { l.put(f, a...) }
func (l pionLog) Error(m string)            { l.put("%s", m) }
func (l pionLog) Errorf(f string, a ...any) { l.put(f, a...) }
