package link

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// ipNeigh is a neighbour as ip(8) prints it.
type ipNeigh struct {
	Dst    string          `json:"dst"`
	Dev    string          `json:"dev"`
	MAC    string          `json:"lladdr"`
	State  []string        `json:"state"`
	Router json.RawMessage `json:"router"`
	Ext    json.RawMessage `json:"extern_learn"`
}

// showNeighs is what ip(8) prints of the neighbours that a test made.
func showNeighs(t testing.TB, ns *netns.NS, args ...string) map[string]ipNeigh {
	t.Helper()
	var list []ipNeigh
	testutil.JSON(t, ns, &list, "ip", append([]string{"-j", "neighbour", "show"}, args...)...)
	m := map[string]ipNeigh{}
	for _, n := range list {
		if a := netip.MustParseAddr(n.Dst); !a.IsMulticast() && !a.IsLinkLocalUnicast() {
			m[n.Dst] = n
		}
	}
	return m
}

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

func TestNeighboursAddReplaceListDelete(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	// Down, so that no change of its carrier takes entries away meanwhile.
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	four, six, proxy := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5"), netip.MustParseAddr("10.0.0.6")
	err := l.AddNeighbours(ctx,
		Neighbour{Addr: four, MAC: mac(1), Protocol: 99},
		Neighbour{Addr: six, MAC: mac(2), State: NeighbourNoARP, Flags: NeighbourRouter},
		Neighbour{Addr: proxy, Flags: NeighbourProxy},
	)
	if err != nil {
		t.Fatal(err)
	}
	show := showNeighs(t, ns, "nud", "all")
	if n := show["10.0.0.5"]; n.MAC != mac(1).String() || !slices.Equal(n.State, []string{"PERMANENT"}) || n.Dev != "br0" {
		t.Errorf("ip shows %+v", n)
	}
	if n := show["fd00::5"]; n.MAC != mac(2).String() || !slices.Equal(n.State, []string{"NOARP"}) || n.Router == nil {
		t.Errorf("ip shows %+v", n)
	}
	if p := showNeighs(t, ns, "proxy"); len(p) != 1 || p["10.0.0.6"].Dev != "br0" {
		t.Errorf("ip shows the proxies %v", p)
	}
	err = l.ReplaceNeighbours(ctx, Neighbour{Addr: four, MAC: mac(3), State: NeighbourStale, Flags: NeighbourExtLearned}, Neighbour{Addr: netip.MustParseAddr("10.0.0.7"), MAC: mac(7)})
	if err != nil {
		t.Fatal(err)
	}
	show = showNeighs(t, ns, "nud", "all")
	if n := show["10.0.0.5"]; n.MAC != mac(3).String() || !slices.Equal(n.State, []string{"STALE"}) || n.Ext == nil || show["10.0.0.7"].MAC != mac(7).String() {
		t.Errorf("ip shows %+v", show)
	}

	list, err := l.Neighbours(ctx)
	if err != nil {
		t.Fatal(err)
	}
	at := func(list []Neighbour, a netip.Addr) Neighbour {
		i := slices.IndexFunc(list, func(n Neighbour) bool { return n.Addr == a })
		if i < 0 {
			return Neighbour{}
		}
		return list[i]
	}
	if n := at(list, four); n.Link != l.Index || n.MAC.String() != mac(3).String() || n.State != NeighbourStale || n.Flags != NeighbourExtLearned {
		t.Errorf("Neighbours: %+v", n)
	}
	if n := at(list, six); n.State != NeighbourNoARP || n.Flags != NeighbourRouter {
		t.Errorf("Neighbours: %+v", n)
	}
	if n := at(list, proxy); n.Addr.IsValid() {
		t.Errorf("Neighbours has the proxy %+v", n)
	}

	wantErr(t, l.DeleteNeighbours(ctx, Neighbour{Addr: netip.MustParseAddr("10.0.0.99")}, Neighbour{Addr: six}), os.ErrNotExist, "neighbour 10.0.0.99 on link br0", "no entry")
	if err := l.DeleteNeighbours(ctx, Neighbour{Addr: proxy, Flags: NeighbourProxy}); err != nil {
		t.Error(err)
	}
	if p := showNeighs(t, ns, "proxy"); len(p) != 0 {
		t.Errorf("ip shows the proxies %v", p)
	}
	if err := l.FlushNeighbours(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if show = showNeighs(t, ns, "nud", "all"); len(show) != 1 || show["10.0.0.7"].MAC == "" {
		t.Errorf("after a flush ip shows %v, want the permanent one", show)
	}
	if err := l.FlushNeighbours(ctx, func(n Neighbour) bool { return n.Addr.Is4() }); err != nil {
		t.Fatal(err)
	}
	if show = showNeighs(t, ns, "nud", "all"); len(show) != 0 {
		t.Errorf("after a flush ip shows %v", show)
	}
}

func TestAddNeighbourAllOrNone(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	n := func(i byte) Neighbour { return Neighbour{Addr: netip.AddrFrom4([4]byte{10, 0, 0, i}), MAC: mac(i)} }
	if err := l.AddNeighbours(ctx, n(3)); err != nil {
		t.Fatal(err)
	}
	wantErr(t, l.AddNeighbours(ctx, n(1), n(2), n(3), n(4)), os.ErrExist, "neighbour 10.0.0.3 lladdr 02:00:00:00:00:03 on link br0", "already")
	if show := showNeighs(t, ns, "nud", "all"); len(show) != 1 {
		t.Errorf("ip shows %v", show)
	}
	wantErr(t, l.AddNeighbours(ctx, n(1), Neighbour{Addr: n(2).Addr, MAC: mac(2)[:4]}), unix.EINVAL, "Invalid link address")
	if show := showNeighs(t, ns, "nud", "all"); len(show) != 1 {
		t.Errorf("ip shows %v", show)
	}
	for want, bad := range map[string]Neighbour{
		"no address":               {MAC: mac(1)},
		"IPv4 not as IPv6":         {Addr: netip.MustParseAddr("::ffff:10.0.0.1")},
		"unspecified":              {Addr: netip.IPv4Unspecified()},
		"33 bytes":                 {Addr: n(1).Addr, MAC: make(net.HardwareAddr, 33)},
		"is a proxy entry":         {Addr: n(1).Addr, MAC: mac(1), Flags: NeighbourProxy},
		"not one state":            {Addr: n(1).Addr, MAC: mac(1), State: 3},
		"needs a hardware address": {Addr: n(1).Addr, State: NeighbourReachable},
	} {
		wantErr(t, l.AddNeighbours(ctx, bad), os.ErrInvalid, want)
	}
	if err := l.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	wantErr(t, l.AddNeighbours(ctx, n(1)), os.ErrNotExist)
}

// The kernel filters: what it sends is counted with and without each filter.
func TestListNeighboursFiltersInTheKernel(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	br, a, b := twoPorts(t, ns)
	for i, l := range []Link{a, b} {
		for j := range 3 {
			ip4, ip6 := netip.AddrFrom4([4]byte{10, byte(i), 0, byte(j + 1)}), netip.MustParseAddr(fmt.Sprintf("fd0%d::%d", i, j+1))
			if err := l.AddNeighbours(ctx, Neighbour{Addr: ip4, MAC: mac(byte(j))}, Neighbour{Addr: ip6, MAC: mac(byte(j)), State: NeighbourStale}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := br.AddNeighbours(ctx, Neighbour{Addr: netip.MustParseAddr("10.9.0.9"), Flags: NeighbourProxy}); err != nil {
		t.Fatal(err)
	}
	conn, err := route(ns)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		f    NeighbourFilter
		want int // of those made here
		only func(index int, family uint8) bool
	}{
		{"all", NeighbourFilter{}, 12, nil},
		{"link", NeighbourFilter{Link: a.Ref()}, 6, func(i int, _ uint8) bool { return i == a.Index }},
		{"master", NeighbourFilter{Master: br.Ref()}, 12, func(i int, _ uint8) bool { return i == a.Index || i == b.Index }},
		{"IPv6", NeighbourFilter{Family: netns.IPv6}, 6, func(_ int, f uint8) bool { return f == unix.AF_INET6 }},
		{"IPv4 of a link", NeighbourFilter{Link: b.Ref(), Family: netns.IPv4}, 3, func(i int, f uint8) bool { return i == b.Index && f == unix.AF_INET }},
		{"states", NeighbourFilter{States: NeighbourStale | NeighbourProbe}, 6, nil},
		{"proxy", NeighbourFilter{Proxy: true}, 1, func(i int, f uint8) bool { return i == br.Index }},
	} {
		list, err := ListNeighbours(ctx, ns, c.f)
		if err != nil {
			t.Fatal(c.name, err)
		}
		got := 0
		for _, n := range list {
			if !n.Addr.IsMulticast() && !n.Addr.IsLinkLocalUnicast() {
				got++
			}
		}
		if got != c.want {
			t.Errorf("%s: %d, want %d: %v", c.name, got, c.want, list)
		}
		if c.only == nil {
			continue
		}
		err = conn.Dump(ctx, c.f.request(), nil, func(m nl.Message) error {
			if index := int(binary.NativeEndian.Uint32(m.Body[4:])); !c.only(index, m.Body[0]) {
				t.Errorf("%s: the kernel sent one of link %d, family %d", c.name, index, m.Body[0])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = ListNeighbours(ctx, ns, NeighbourFilter{Family: 5})
	wantErr(t, err, os.ErrInvalid, "5 is not a Family")
	_, err = ListNeighbours(ctx, ns, NeighbourFilter{Master: Ref{Index: -1}})
	wantErr(t, err, os.ErrInvalid, "Master -1")
}

func TestNeighbourManaged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	_, a, _ := twoPorts(t, ns)
	if err := a.AddPrefixes(ctx, prefixes("10.0.0.1/24")...); err != nil {
		t.Fatal(err)
	}
	err := a.AddNeighbours(ctx, Neighbour{Addr: netip.MustParseAddr("10.0.0.9"), Flags: NeighbourManaged})
	if err != nil {
		t.Fatal(err)
	}
	list, err := a.Neighbours(ctx)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(n Neighbour) bool { return n.Addr.String() == "10.0.0.9" })
	managed := i >= 0 && list[i].Flags&NeighbourManaged != 0
	if managed != testutil.KernelAtLeast(5, 16) {
		t.Errorf("managed %v: %+v", managed, list)
	}
}

// Recorded from ip(8) of iproute2 6.1:
//
//	ip neighbour add 10.0.0.5 lladdr 02:00:00:00:00:05 dev b0 nud permanent router
//	ip neighbour replace fd00::5 lladdr 02:00:00:00:00:05 dev b0 nud reachable extern_learn use proto 99
//	ip neighbour add proxy 10.0.0.6 dev b0
//	ip neighbour add 10.0.0.7 dev b0 nud none managed
//	ip neighbour show dev b0
//	ip neighbour show proxy
func TestNeighbourBytesEqualRecorded(t *testing.T) {
	t.Parallel()
	four, six := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")
	msg := func(n Neighbour) nl.Request { return encodeNeighbour(3, &n, editReplace) }
	byLink, proxies := NeighbourFilter{Link: Ref{Index: 3}}, NeighbourFilter{Proxy: true}
	for _, c := range []struct {
		name string
		got  nl.Request
		want string
	}{
		{"permanent", msg(Neighbour{Addr: four, MAC: mac(5), Flags: NeighbourRouter}), `02000000 03000000 80008000 08000100 0a000005 0a000200 02000000 00050000`},
		{"IPv6", msg(Neighbour{Addr: six, MAC: mac(5), State: NeighbourReachable, Flags: NeighbourExtLearned | NeighbourUse, Protocol: 99}),
			`0a000000 03000000 02001100 05000c00 63000000 14000100 fd000000 00000000 00000000 00000005 0a000200 02000000 00050000`},
		{"proxy", msg(Neighbour{Addr: netip.MustParseAddr("10.0.0.6"), Flags: NeighbourProxy}), `02000000 03000000 80000800 08000100 0a000006`},
		{"managed", msg(Neighbour{Addr: netip.MustParseAddr("10.0.0.7"), Flags: NeighbourManaged}), `02000000 03000000 00000000 08000100 0a000007 08000f00 01000000`},
		{"list of a link", byLink.request(), `00000000 00000000 00000000 08000800 03000000`},
		{"list of proxies", proxies.request(), `00000000 00000000 00000800`},
	} {
		if want := hexBytes(t, c.want); !sameNested(c.got.Body, want, sizeofNdMsg) {
			t.Errorf("%s\n got %x\nwant %x", c.name, c.got.Body, want)
		}
	}
}

func FuzzDecodeND(f *testing.F) {
	for _, m := range []ndMsg{
		{family: unix.AF_INET, index: 3, state: 2, dst: netip.MustParseAddr("10.0.0.1"), mac: mac(1), protocol: 9},
		{family: unix.AF_BRIDGE, index: 3, flags: ntfSelf | 0x200, dst: netip.MustParseAddr("fd00::1"), mac: mac(1), vlan: 7, port: 4790, vni: 5, srcVNI: 6, via: 2, nextHop: 8, master: 4},
	} {
		f.Add(m.request(0, 0).Body)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again ndMsg
		if decodeND(&m, b) != nil {
			return
		}
		// What was read encodes to what reads the same, but for what is read only.
		m.probes, m.timed, m.confirmed, m.used, m.updated = 0, false, 0, 0, 0
		if err := decodeND(&again, m.request(0, 0).Body); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(m, again) {
			t.Errorf("%+v became %+v", m, again)
		}
	})
}
