package probe

import (
	"net/netip"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

func TestMessage(t *testing.T) {
	t.Parallel()
	for _, m := range []message{
		{kind: kindWay, nonce: marker{1, 15: 2}, overlay: netip.MustParseAddr("10.100.1.1")},
		{kind: kindHello, overlay: netip.MustParseAddr("fd99::1")},
		{kind: kindHello | reply, id: state.ID{3, 15: 4}, generation: 1 << 63, clock: time.Unix(1e9, 5)},
		{kind: kindWay | reply, way: PeerTakenForDead},
		{kind: kindMirror | reply, status: statusTooBig, length: 65507},
		{kind: kindWatch, marker: marker{5, 15: 6}},
		{kind: kindCounts | reply, status: statusBusy, counts: counts{{1, 2, 3, 4, 5, 6}, {7, 8, 9, 10, 11, 65535}}},
	} {
		for _, length := range []int{0, messageLen, 1400} {
			b := m.encode(length)
			if len(b) != max(length, messageLen) {
				t.Errorf("%d bytes, want %d", len(b), max(length, messageLen))
			}
			if got, ok := decode(b); !ok || got != m {
				t.Errorf("%+v, %v, want %+v", got, ok, m)
			}
		}
		for name, change := range map[string]func([]byte) []byte{
			"short":   func(b []byte) []byte { return b[:messageLen-1] },
			"magic":   func(b []byte) []byte { b[0]++; return b },
			"version": func(b []byte) []byte { b[4]++; return b },
			"empty":   func([]byte) []byte { return nil },
		} {
			if _, ok := decode(change(m.encode(0))); ok {
				t.Errorf("%s: accepted", name)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(message{kind: kindHello, overlay: netip.MustParseAddr("fd99::1")}.encode(0))
	f.Add([]byte("BXFP"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := decode(b)
		if !ok {
			return
		}
		again, ok := decode(m.encode(0))
		if !ok || again != m {
			t.Errorf("%+v is %+v when it is written and read", m, again)
		}
	})
}
