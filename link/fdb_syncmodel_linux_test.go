package link

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"golang.org/x/sys/unix"
)

// Random lists after each other: bridge shows what was given, to sync it again sends nothing, and a
// sync that fails changes nothing.
func TestSyncFDBModel(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	vx := vxlanFor(t, VXLAN{ID: new(uint32(42)), Remote: netip.MustParseAddr("10.0.0.200")})
	for i := range 2 {
		testutil.Run(t, vx.ns, "ip", "nexthop", "add", "id", fmt.Sprint(i+1), "via", fmt.Sprintf("10.0.0.%d", i+1), "fdb")
		testutil.Run(t, vx.ns, "ip", "nexthop", "add", "id", fmt.Sprint(i+11), "group", fmt.Sprint(i+1), "fdb")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	zero := make(net.HardwareAddr, 6)
	macs := []net.HardwareAddr{zero, {3, 0, 0, 0, 0, 1}, mac(1), mac(2), mac(3)}
	draw := func() (list []FDBEntry, lines []string) {
		line := func(e FDBEntry) string {
			if e.NextHop != 0 {
				return fmt.Sprintf("%v nhid %d self", e.MAC, e.NextHop)
			}
			return fmt.Sprintf("%v dst %v self", e.MAC, e.Dst)
		}
		for _, m := range macs {
			e := FDBEntry{MAC: m, Self: true, Type: []FDBType{FDBStatic, FDBLocal}[random.IntN(2)]}
			dsts := random.Perm(4)[:random.IntN(4)]
			if !e.several() && len(dsts) > 1 {
				dsts = dsts[:1]
			}
			// The entry of VXLAN.Remote is there, and a next hop can be none beside it.
			if random.IntN(4) == 0 && !bytes.Equal(m, zero) {
				e.NextHop = uint32(11 + random.IntN(2))
				list, lines = append(list, e), append(lines, line(e))
				continue
			}
			for _, d := range dsts {
				e.Dst = netip.AddrFrom4([4]byte{10, 0, 0, byte(d + 1)})
				list, lines = append(list, e), append(lines, line(e))
			}
		}
		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		return list, slices.Sorted(slices.Values(append(lines, zero.String()+" dst 10.0.0.200 self")))
	}
	shown := func() (all []string) {
		for line := range strings.Lines(testutil.Run(t, vx.ns, "bridge", "fdb", "show", "dev", "vx0")) {
			line, ages := strings.CutSuffix(strings.TrimSpace(line), " self")
			line, _ = strings.CutSuffix(line, " permanent")
			line, _ = strings.CutSuffix(line, " static")
			if ages {
				t.Errorf("bridge shows %q, which ages", line)
			}
			all = append(all, line)
		}
		return slices.Sorted(slices.Values(all))
	}
	rounds := 60
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		list, want := draw()
		if did, err := vx.SyncFDB(ctx, list...); err != nil {
			t.Fatalf("%+v: %+v, %v", list, did, err)
		}
		if got := shown(); !slices.Equal(got, want) {
			t.Fatalf("bridge shows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if sent := edits(t, vx.ns, nil, func() {
			if did, err := vx.SyncFDB(ctx, list...); err != nil || did != (Changes{}) {
				t.Errorf("again: %+v, %v", did, err)
			}
		}); sent != 0 {
			t.Errorf("again: %d requests", sent)
		}
		before := fdbLines(t, vx.ns, "vx0")
		next, _ := draw()
		_, err := vx.SyncFDB(ctx, append(next, FDBEntry{Self: true, MAC: mac(4), Dst: netip.MustParseAddr("fd00::1")})...)
		wantErr(t, err, unix.EAFNOSUPPORT)
		if now := fdbLines(t, vx.ns, "vx0"); !slices.Equal(now, before) {
			t.Fatalf("after a failure bridge shows\n%s\nwant\n%s", strings.Join(now, "\n"), strings.Join(before, "\n"))
		}
	}
}
