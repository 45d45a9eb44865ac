package link

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// showAddrs is what ip(8) prints of the addresses of a link, by address.
func showAddrs(t testing.TB, ns *netns.NS, name string) map[string]map[string]any {
	t.Helper()
	var list []struct {
		Addrs []map[string]any `json:"addr_info"`
	}
	testutil.JSON(t, ns, &list, "ip", "-d", "-j", "address", "show", "dev", name)
	m := map[string]map[string]any{}
	for _, a := range list[0].Addrs {
		m[a["local"].(string)] = a
	}
	return m
}

func TestAddressesWithAllTheirProperties(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}, Addrs: prefixes("fe80::1/64")})
	full := Addr{
		Prefix: netip.MustParsePrefix("10.0.0.1/24"), Broadcast: netip.MustParseAddr("10.0.0.255"), Label: "br0:web", Scope: AddrScopeLink,
		Flags: AddrNoPrefixRoute, Metric: 77, Valid: 1000 * time.Second, Preferred: 500 * time.Second,
	}
	peer := Addr{Prefix: netip.MustParsePrefix("10.1.0.1/32"), Peer: netip.MustParseAddr("10.2.0.9")}
	six := Addr{Prefix: netip.MustParsePrefix("fd00::1/64"), Flags: AddrNoDAD | AddrNoPrefixRoute | AddrDeprecated, Valid: time.Hour, Metric: 5}
	static := StaticAddr(netip.MustParsePrefix("10.3.0.1/16"))
	group := Addr{Prefix: netip.MustParsePrefix("239.1.2.3/32"), Flags: AddrMulticastJoin}
	if err := l.AddAddrs(ctx, full, peer, six, static, group); err != nil {
		t.Fatal(err)
	}
	show := showAddrs(t, ns, "br0")
	for addr, want := range map[string]map[string]any{
		"10.0.0.1":  {"prefixlen": 24.0, "broadcast": "10.0.0.255", "label": "br0:web", "scope": "link", "noprefixroute": true, "metric": 77.0},
		"10.1.0.1":  {"prefixlen": 32.0, "address": "10.2.0.9", "label": "br0", "scope": "global", "broadcast": nil, "valid_life_time": 4294967295.0},
		"fd00::1":   {"prefixlen": 64.0, "nodad": true, "noprefixroute": true, "deprecated": true, "metric": 5.0, "preferred_life_time": 0.0},
		"239.1.2.3": {"autojoin": true},
		"10.3.0.1":  {"broadcast": "10.3.255.255", "label": "br0", "scope": "global"},
	} {
		for k, v := range want {
			if show[addr][k] != v {
				t.Errorf("ip shows %s of %s as %v, want %v", k, addr, show[addr][k], v)
			}
		}
	}
	between := func(v any, low, high float64) bool { f, _ := v.(float64); return f > low && f <= high }
	if a := show["10.0.0.1"]; !between(a["valid_life_time"], 900, 1000) || !between(a["preferred_life_time"], 400, 500) {
		t.Errorf("lifetimes %v, %v", a["valid_life_time"], a["preferred_life_time"])
	}
	if v := show["fd00::1"]["valid_life_time"]; !between(v, 3500, 3600) {
		t.Errorf("lifetime %v", v)
	}

	// What was read makes the same again.
	before, err := l.Addrs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	mine := slices.DeleteFunc(slices.Clone(before), func(a Addr) bool { return a.Prefix.Addr().IsLinkLocalUnicast() })
	if len(mine) != 5 {
		t.Fatalf("Addrs: %+v", before)
	}
	if err := l.FlushAddrs(ctx, func(a Addr) bool { return !a.Prefix.Addr().IsLinkLocalUnicast() }); err != nil {
		t.Fatal(err)
	}
	if left := ipLinks(t, ns)["br0"].Addrs; len(left) != 1 || left[0].Scope != "link" {
		t.Fatalf("ip shows %v after the flush", left)
	}
	if err := l.AddAddrs(ctx, mine...); err != nil {
		t.Fatal(err)
	}
	again := showAddrs(t, ns, "br0")
	for _, m := range []map[string]map[string]any{show, again} {
		for _, a := range m {
			delete(a, "valid_life_time") // they have gone on
			delete(a, "preferred_life_time")
			delete(a, "tentative") // of the link's own address
		}
	}
	if !reflect.DeepEqual(show, again) {
		t.Errorf("ip showed\n%v and then\n%v", show, again)
	}

	all, err := ListAddrs(ctx, ns)
	if err != nil || !slices.ContainsFunc(all, func(a Addr) bool { return a.Link == 1 }) ||
		!slices.ContainsFunc(all, func(a Addr) bool { return a.Link == l.Index && a.Label == "br0:web" }) {
		t.Errorf("ListAddrs: %v, %v", all, err)
	}
	if err := l.FlushAddrs(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if left := ipLinks(t, ns)["br0"].Addrs; len(left) != 0 {
		t.Errorf("ip shows %v after a whole flush", left)
	}
}

func TestReplaceAddrChangesOrSaysWhatItCannot(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	four, six := StaticAddr(netip.MustParsePrefix("10.0.0.1/24")), StaticAddr(netip.MustParsePrefix("fd00::1/64"))
	if err := l.ReplaceAddrs(ctx, four, six); err != nil {
		t.Fatal(err)
	}
	four.Valid, four.Metric = time.Hour, 9
	six.Flags |= AddrNoPrefixRoute
	six.Valid = 2 * time.Hour
	if err := l.ReplaceAddrs(ctx, four, six); err != nil {
		t.Fatal(err)
	}
	show := showAddrs(t, ns, "br0")
	if a := show["10.0.0.1"]; a["metric"] != 9.0 || a["valid_life_time"].(float64) > 3600 {
		t.Errorf("ip shows %v", a)
	}
	if a := show["fd00::1"]; a["noprefixroute"] != true || a["valid_life_time"].(float64) > 7200 {
		t.Errorf("ip shows %v", a)
	}
	label, length, fresh := four, six, StaticAddr(netip.MustParsePrefix("10.9.0.1/24"))
	label.Label = "br0:other"
	length.Prefix = netip.MustParsePrefix("fd00::1/96")
	label.Metric = 12
	wantErr(t, l.ReplaceAddrs(ctx, fresh, label), errors.ErrUnsupported, "address 10.0.0.1/24 on link br0", "label")
	wantErr(t, l.ReplaceAddrs(ctx, fresh, length), errors.ErrUnsupported, "address fd00::1/96 on link br0", "prefix length")
	show = showAddrs(t, ns, "br0")
	if show["10.9.0.1"] != nil || show["10.0.0.1"]["metric"] != 9.0 || show["10.0.0.1"]["label"] != "br0" || show["fd00::1"]["prefixlen"] != 64.0 {
		t.Errorf("after failures ip shows %v", show)
	}
	if err := l.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	wantErr(t, l.ReplaceAddrs(ctx, four), os.ErrNotExist)
	wantErr(t, l.FlushAddrs(ctx, nil), os.ErrNotExist)
}

func TestAddrProtocol(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	a, b := StaticAddr(netip.MustParsePrefix("10.0.0.1/24")), StaticAddr(netip.MustParsePrefix("fd00::1/64"))
	a.Protocol, b.Protocol = 0x99, 0x98
	err := l.AddAddrs(ctx, a, b)
	if err != nil {
		if left := ipLinks(t, ns)["br0"].addrs(); len(left) != 0 {
			t.Errorf("left after a failure: %v", left)
		}
	}
	testutil.NeedKernel(t, 5, 18, "the protocol of an address", err)
	got, err := l.Addrs(ctx)
	if err != nil || len(got) < 2 || got[0].Protocol != 0x99 || !slices.ContainsFunc(got, func(a Addr) bool { return a.Protocol == 0x98 }) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAddAddrsRefuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	four, six := netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64")
	one, one6 := netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")
	for want, a := range map[string]Addr{
		"AddrMulticastJoin":    {Prefix: four, Flags: AddrMulticastJoin},
		"not a valid prefix":   {},
		"multicast":            {Prefix: netip.MustParsePrefix("224.0.0.1/8")},
		"not of its family":    {Prefix: four, Peer: one6},
		"the peer 10.0.0.9":    {Prefix: six, Peer: one},
		"only IPv4 addresses":  {Prefix: six, Broadcast: one},
		"of IPv4":              {Prefix: four, Broadcast: one6},
		"has the label":        {Prefix: six, Label: "x"},
		"at most 15 bytes":     {Prefix: four, Label: "0123456789abcdef"},
		"has a scope":          {Prefix: six, Scope: AddrScopeLink},
		"negative":             {Prefix: four, Valid: -1},
		"preferred for longer": {Prefix: four, Valid: time.Second, Preferred: time.Minute},
		"to be deprecated and": {Prefix: four, Preferred: time.Minute, Flags: AddrDeprecated},
	} {
		wantErr(t, l.AddAddrs(ctx, StaticAddr(netip.MustParsePrefix("10.5.0.1/24")), a), os.ErrInvalid, want)
		wantErr(t, l.ReplaceAddrs(ctx, a), os.ErrInvalid, want)
	}
	wantErr(t, l.AddAddrs(ctx, Addr{Prefix: six}, Addr{Prefix: netip.MustParsePrefix("fd00::1/96")}), os.ErrInvalid, "twice")
	if left := ipLinks(t, ns)["br0"].addrs(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
