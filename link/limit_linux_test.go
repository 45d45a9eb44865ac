package link

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// gcThresh is what bounds the neighbours of all namespaces.
var gcThresh = map[string]string{"10.7.0.0": "net.ipv4.neigh.default.gc_thresh3", "fd07::": "net.ipv6.neigh.default.gc_thresh3"}

// staleNeighbours returns n neighbours that the kernel counts, behind an address.
func staleNeighbours(n int, behind string) (list []Neighbour) {
	a := netip.MustParseAddr(behind)
	for i := range n {
		a = a.Next()
		list = append(list, Neighbour{Addr: a, MAC: mac(byte(i)), State: NeighbourStale})
	}
	return list
}

// The tables of neighbours are filled where no other program needs them: in a guest.
func TestFullNeighbourTableSaysSo(t *testing.T) {
	if os.Getenv("BOXWIRE_DISPOSABLE") != "1" {
		t.Skip("fills the tables that all namespaces of the machine share: only where BOXWIRE_DISPOSABLE is 1, as in internal/vmtest")
	}
	ctx := t.Context()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	for behind, setting := range gcThresh {
		if strings.Contains(behind, ":") && !netnstest.HasIPv6() {
			continue
		}
		list := staleNeighbours(3000, behind)
		wantErr(t, l.AddNeighbours(ctx, list...), unix.ENOBUFS, "link.AddNeighbours neighbour "+behind[:4], "the limit "+setting, "ENOBUFS")
		_, err := l.SyncNeighbours(ctx, syncOwner, list...)
		wantErr(t, err, unix.ENOBUFS, "link.SyncNeighbours neighbour "+behind[:4], "the limit "+setting)
		if n := showNeighs(t, ns, "nud", "all"); len(n) != 0 {
			t.Errorf("%d neighbours are left", len(n))
		}
		for i := range list {
			if list[i].State = NeighbourPermanent; i%2 == 0 {
				list[i].State, list[i].Flags = NeighbourStale, NeighbourExtLearned
			}
		}
		if did, err := l.SyncNeighbours(ctx, syncOwner, list...); err != nil || did.Added != len(list) {
			t.Errorf("those that do not count: %+v, %v", did, err)
		}
		if _, err := l.SyncNeighbours(ctx, syncOwner); err != nil {
			t.Error(err)
		}
	}
}

// Everywhere else the kernel answers ENOBUFS to another request in the place of the third: for an IPv4
// address on a link that is too small for IPv4.
func TestFullNeighbourTableByAnotherAnswer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	lo, err := Get(ctx, ns, "lo")
	if err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "ip", "link", "set", "lo", "mtu", "60")
	wantErr(t, lo.AddPrefixes(ctx, prefixes("10.0.0.1/24")...), unix.ENOBUFS, "address 10.0.0.1/24 on link lo", "runs no IPv4", "below 68")
	conn, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	call := func(f func() error) error {
		n := 0
		conn.Fault(func(r nl.Request) nl.Request {
			if n++; r.Type == unix.RTM_NEWNEIGH && n >= 3 {
				a := Addr{Prefix: netip.MustParsePrefix("10.0.0.1/24")}
				r = encodeAddr(lo.Index, &a, editAdd)
			}
			return r
		})
		defer conn.Fault(nil)
		return f()
	}
	for behind, setting := range gcThresh {
		if strings.Contains(behind, ":") && !netnstest.HasIPv6() {
			continue
		}
		list := staleNeighbours(5, behind)
		wantErr(t, call(func() error { return l.AddNeighbours(ctx, list...) }), unix.ENOBUFS, "neighbour "+list[3].Addr.String()+" ", "the limit "+setting)
		wantErr(t, call(func() error { return l.ReplaceNeighbours(ctx, list...) }), unix.ENOBUFS, "the limit "+setting)
		if err := l.FlushNeighbours(ctx, nil); err != nil {
			t.Fatal(err)
		}
		wantErr(t, call(func() error { _, err := l.SyncNeighbours(ctx, syncOwner, list...); return err }), unix.ENOBUFS, "the limit "+setting)
		list[3].State = NeighbourPermanent                                                   // which does not count
		err := call(func() error { return l.AddNeighbours(ctx, list[3], list[3], list[3]) }) // the third one
		wantErr(t, err, unix.ENOBUFS)
		if strings.Contains(err.Error(), "gc_thresh3") {
			t.Errorf("a permanent neighbour: %v", err)
		}
	}
	if n := showNeighs(t, ns, "nud", "all"); len(n) != 0 {
		t.Errorf("ip shows %v", n)
	}
}

func TestFullVXLANSaysSo(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	vx := vxlanFor(t, VXLAN{ID: new(uint32(42)), MaxAddresses: 3})
	list := make([]FDBEntry, 4)
	for i := range list {
		list[i] = FDBEntry{Self: true, MAC: mac(byte(i)), Dst: netip.MustParseAddr("10.0.0.1")}
	}
	full := []string{"entry 02:00:00:00:00:03 dst 10.0.0.1 of link vx0", "VXLAN.MaxAddresses"}
	wantErr(t, vx.AddFDBEntries(ctx, list...), unix.ENOSPC, full...)
	_, err := vx.SyncFDB(ctx, list...)
	wantErr(t, err, unix.ENOSPC, full...)
	if show := showFDB(t, vx.ns, "vx0"); len(show) != 0 {
		t.Errorf("bridge shows %v", show)
	}
	for _, some := range [][]FDBEntry{list[:3], list[1:]} { // what goes makes room
		if _, err := vx.SyncFDB(ctx, some...); err != nil {
			t.Error(err)
		}
	}
}

// Entries that a program adds do not count for Bridge.MaxLearned.
func TestFullBridgeTakesEntries(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	br, a, _ := twoPorts(t, ns)
	_, err := br.Update(t.Context(), Spec{Kind: Bridge{MaxLearned: new(uint32(1))}})
	testutil.NeedKernel(t, 6, 7, "fdb_max_learned", err)
	list := make([]FDBEntry, 9)
	for i := range list {
		list[i] = FDBEntry{MAC: mac(byte(i)), Type: FDBType(i % 2)}
		if i%4 == 1 {
			list[i].Flags = FDBExtLearned
		}
	}
	if err := a.AddFDBEntries(t.Context(), list...); err != nil {
		t.Error(err)
	}
	if show := showFDB(t, ns, "a"); len(show) != len(list) {
		t.Errorf("bridge shows %v", show)
	}
}
