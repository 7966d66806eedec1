package cbor

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	fx "github.com/fxamacker/cbor/v2"
)

var peer = func() fx.EncMode {
	m, err := fx.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	b, err := peer.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var edges = []uint64{0, 1, 23, 24, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64, math.MaxUint64}

// TestPeer compares both directions with another implementation.
func TestPeer(t *testing.T) {
	for _, n := range edges {
		want := encoded(t, n)
		if got := AppendUint(nil, n); !bytes.Equal(got, want) {
			t.Errorf("%d: %x, want %x", n, got, want)
		}
		r := NewReader(want)
		if got := r.Uint(); got != n || r.Done() != nil {
			t.Errorf("%d read as %d, %v", n, got, r.Err())
		}
	}
	for _, n := range []int64{0, 23, -1, -24, -25, -256, -257, math.MinInt64, math.MaxInt64} {
		want := encoded(t, n)
		if got := AppendInt(nil, n); !bytes.Equal(got, want) {
			t.Errorf("%d: %x, want %x", n, got, want)
		}
		r := NewReader(want)
		if got := r.Int(); got != n || r.Done() != nil {
			t.Errorf("%d read as %d, %v", n, got, r.Err())
		}
	}
	for _, n := range []int{0, 1, 23, 24, 255, 256, 65535, 65536} {
		s := strings.Repeat("ü", n/2) + strings.Repeat("x", n%2)
		if got, want := AppendText(nil, s), encoded(t, s); !bytes.Equal(got, want) {
			t.Errorf("text of %d bytes differs", n)
		}
		if got, want := AppendBytes(nil, []byte(s)), encoded(t, []byte(s)); !bytes.Equal(got, want) {
			t.Errorf("%d bytes differ", n)
		}
		r := NewReader(slices.Concat(AppendText(nil, s), AppendBytes(nil, []byte(s))))
		if r.Text(n) != s || string(r.Bytes(n)) != s || r.Done() != nil {
			t.Errorf("string of %d bytes: %v", n, r.Err())
		}
		if got, want := AppendArray(nil, n), encoded(t, make([]int, n))[:len(AppendArray(nil, n))]; !bytes.Equal(got, want) {
			t.Errorf("head of an array of %d: %x, want %x", n, got, want)
		}
	}
	m := map[string]int{"b": 1, "a": 2, "ccc": 3, "cc": 4}
	names := []string{"b", "ccc", "a", "cc"}
	slices.SortFunc(names, func(x, y string) int {
		if Before(x, y) {
			return -1
		}
		return 1
	})
	got := AppendMap(nil, len(m))
	for _, k := range names {
		got = AppendInt(AppendText(got, k), int64(m[k]))
	}
	if want := encoded(t, m); !bytes.Equal(got, want) {
		t.Errorf("map %x, want %x", got, want)
	}
}

// TestRefused: encodings of the right value in another form, and other values.
func TestRefused(t *testing.T) {
	read := map[string]func(*Reader){
		"uint": func(r *Reader) { r.Uint() }, "int": func(r *Reader) { r.Int() },
		"bytes": func(r *Reader) { r.Bytes(1 << 20) }, "text": func(r *Reader) { r.Text(1 << 20) },
		"array": func(r *Reader) { r.ArrayMax(1 << 20) }, "map": func(r *Reader) { r.MapMax(1 << 20) },
		"two": func(r *Reader) { r.Array(2); r.Uint(); r.Uint() }, "fixed": func(r *Reader) { r.Fixed(make([]byte, 4)) },
		"small": func(r *Reader) { r.UintMax(9) },
	}
	for _, c := range []struct{ read, hex string }{
		{"uint", ""}, {"uint", "1817"}, {"uint", "190017"}, {"uint", "1900ff"}, {"uint", "1a0000ffff"}, {"uint", "1b00000000ffffffff"},
		{"uint", "18"}, {"uint", "1901"}, {"uint", "1c"}, {"uint", "1f"}, {"uint", "20"}, {"uint", "0000"}, {"uint", "f6"}, {"uint", "f97e00"},
		{"uint", "c100"}, {"int", "3bffffffffffffffff"}, {"int", "1bffffffffffffffff"}, {"int", "3817"},
		{"bytes", "41"}, {"bytes", "5f4100ff"}, {"bytes", "5affffffff"}, {"bytes", "5bffffffffffffffff"}, {"bytes", "6100"},
		{"text", "61ff"}, {"text", "62c328"}, {"text", "7f6161ff"}, {"text", "4161"}, {"text", "63616263ff"},
		{"array", "9bffffffffffffffff"}, {"array", "9f00ff"}, {"array", "84"}, {"map", "a1"}, {"map", "bf00ff"},
		{"two", "8100"}, {"two", "83000000"}, {"two", "8200"}, {"fixed", "43000000"}, {"fixed", "450000000000"}, {"small", "0a"},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(b)
		read[c.read](r)
		if err := r.Done(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s %s: %v", c.read, c.hex, err)
		}
	}
	r := NewReader([]byte{0x45, 1, 2, 3, 4, 5})
	if r.Bytes(4); !errors.Is(r.Err(), ErrFormat) {
		t.Error("a byte string beyond the limit was read")
	}
	if r.Uint(); !errors.Is(r.Done(), ErrFormat) {
		t.Error("the first error did not stay")
	}
}

// TestErrorsSaySizes: an error has the size, the limit and the place.
func TestErrorsSaySizes(t *testing.T) {
	for want, read := range map[string]func(r *Reader){
		"byte string of 5 bytes, more than 4, at byte 1": func(r *Reader) { r.Bytes(4) },
		"byte string of 5 bytes is cut off at byte 1":    func(r *Reader) { r.Bytes(9) },
		"byte string of 2 bytes, not 3, at byte 3":       func(r *Reader) { r.Fixed(make([]byte, 3)) },
		"array of 3 elements, not 2, at byte 1":          func(r *Reader) { r.Array(2) },
		"array of 3 elements, more than 2, at byte 1":    func(r *Reader) { r.ArrayMax(2) },
		"map of 100 elements is cut off at byte 2":       func(r *Reader) { r.MapMax(1000) },
		"integer 300, more than 299, at byte 3":          func(r *Reader) { r.UintMax(299) },
		"text that is not UTF-8 at byte 2":               func(r *Reader) { r.Text(1) },
		"no text string at byte 0":                       func(r *Reader) { r.Text(1) },
	} {
		input := map[string][]byte{"byte string of 5": {0x45, 1, 2, 3}, "byte string of 2": {0x42, 1, 2}, "array": {0x83, 1, 1, 1},
			"map": {0xb8, 100, 0x61}, "integer": {0x19, 1, 44}, "text": {0x61, 0xff}, "no": {1}}
		for prefix, b := range input {
			if !strings.HasPrefix(want, prefix) {
				continue
			}
			r := NewReader(b)
			if read(r); r.Err() == nil || !strings.HasSuffix(r.Err().Error(), ": "+want) {
				t.Errorf("%v, want %s", r.Err(), want)
			}
		}
	}
}

// FuzzReader: whatever is read is written back to the same bytes.
func FuzzReader(f *testing.F) {
	f.Add(AppendInt(AppendText(AppendBytes(AppendUint(AppendArray(nil, 4), 300), []byte("b")), "t"), -5))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		r.Array(4)
		n, s, x, i := r.Uint(), r.Bytes(1<<16), r.Text(1<<16), r.Int()
		if r.Done() != nil {
			return
		}
		back := AppendInt(AppendText(AppendBytes(AppendUint(AppendArray(nil, 4), n), s), x), i)
		if !bytes.Equal(back, b) {
			t.Fatalf("%x was read, %x is written", b, back)
		}
		if err := fx.Wellformed(b); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
	})
}
