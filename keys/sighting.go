package keys

import (
	"io/fs"
	"os"
	"time"
)

// settleTime is how old a file must be, when it is read, for its time of modification to be trusted: a
// second write within the same tick of the file system's clock leaves no trace in it. FAT's tick of
// 2 s is the coarsest in use.
const settleTime = 2 * time.Second

// sighting is a file as it was read last.
type sighting struct {
	info  fs.FileInfo // nil when it could not be read
	since time.Time   // when this version of it was seen first, by the process's clock
	fresh bool        // another write could still leave no trace
}

// holds reports that a file is the one that was read.
func (s sighting) holds(info fs.FileInfo) bool {
	return s.info != nil && !s.fresh && sameVersion(info, s.info)
}

// next is the sighting of a file that is about to be read.
//
// Its age is told by two clocks that need not agree. So what seems young, or lies in the future because
// a clock was set back or the file server's is ahead, has settled as well when it stayed the same for that long.
func (s sighting) next(info fs.FileInfo, now time.Time) sighting {
	if s.info == nil || !sameVersion(info, s.info) {
		s.since = now
	}
	young := info.ModTime().After(now.Add(-settleTime))
	return sighting{info, s.since, young && now.Sub(s.since) < settleTime}
}

func sameVersion(a, b fs.FileInfo) bool {
	return a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && os.SameFile(a, b)
}
