package route

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestSyncTouchesOnlyTheDifference(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	const owner = Protocol(77)
	alien := []Route{{Dst: prefix("10.60.0.0/16"), Via: addr("10.1.0.1")}, {Dst: prefix("fd60::/64"), Via: addr("fd01::1"), Protocol: ProtoBird}}
	if err := Add(t.Context(), ns, alien...); err != nil {
		t.Fatal(err)
	}
	want := []Route{
		{Dst: prefix("10.9.0.0/16"), Via: addr("10.1.0.1")},
		{Dst: prefix("10.9.0.0/16"), Via: addr("10.1.0.3"), Metric: 9},
		{Dst: prefix("10.8.0.0/16"), Hops: []Hop{{Via: addr("10.1.0.1"), Weight: 1}, {Via: addr("10.1.0.3"), Weight: 2}}, Table: 100},
		{Dst: prefix("10.7.0.0/16"), Type: TypeBlackhole, Protocol: owner},
		{Dst: prefix("fd09::/64"), Via: addr("fd01::1"), Metrics: &Metrics{MTU: 1300}},
		{Dst: prefix("fd08::/64"), Hops: []Hop{{Via: addr("fd01::1"), Dev: 100, Weight: 1}, {Via: addr("fd01::3"), Dev: 100, Weight: 2}}},
		{Dst: prefix("fd07::/64"), Via: addr("fd01::1")},
		{Dst: prefix("fd06::/64"), Type: TypeUnreachable},
		{Dst: prefix("10.6.0.0/16"), Dev: 100, Encap: IPEncap{ID: 7, Dst: addr("192.0.2.2"), TTL: 9}},
	}
	sync := func(name string, did Changes, want ...Route) {
		t.Helper()
		got, err := Sync(t.Context(), ns, owner, want...)
		if err != nil || got != did {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, did)
		}
		// The kernel reports every change, also one that changes nothing.
		listed, err := List(t.Context(), ns, Filter{Protocol: owner})
		if err != nil || len(listed) != len(want) {
			t.Errorf("%s: listed %v, %v", name, sorted(listed), err)
		}
		n := 0
		for _, table := range []Table{TableMain, 100} {
			n += len(ipRoutes(t, ns, table))
		}
		if n != len(want)+len(alien) {
			t.Errorf("%s: ip shows %d routes", name, n)
		}
	}
	sync("all new", Changes{Added: len(want)}, want...)
	sync("again", Changes{}, want...)
	slices.Reverse(want)
	sync("in another order", Changes{}, want...)
	slices.Reverse(want)

	changed := slices.Clone(want)
	changed[0].Via = addr("10.1.0.5")
	changed[2].Hops = []Hop{{Via: addr("10.1.0.1"), Weight: 1}, {Via: addr("10.1.0.3"), Weight: 3}}
	changed[3].Type = TypeProhibit
	changed[4].Metrics = &Metrics{MTU: 1400}
	changed[5].Hops = changed[5].Hops[:1]
	sync("five changed", Changes{Replaced: 5}, changed...)
	changed[6] = Route{Dst: prefix("fd07::/64"), Type: TypeBlackhole} // which Replace would add beside
	changed[7] = Route{Dst: prefix("fd06::/64"), Via: addr("fd01::1")}
	sync("gateways and drops change places", Changes{Replaced: 2}, changed...)
	sync("fewer", Changes{Deleted: 4}, changed[4:]...)

	// A route behind another of the same place goes.
	if err := Append(t.Context(), ns, Route{Dst: prefix("10.6.0.0/16"), Via: addr("10.1.0.9"), Protocol: owner}); err != nil {
		t.Fatal(err)
	}
	sync("one appended", Changes{Deleted: 1}, changed[4:]...)
	sync("none", Changes{Deleted: len(changed) - 4})
}

func TestSyncLeavesStrangersAlone(t *testing.T) {
	t.Parallel()
	ns := box(t)
	const owner = Protocol(77)
	place := Route{Dst: prefix("10.9.0.0/16"), Via: addr("10.1.0.1")}
	if err := Add(t.Context(), ns, place); err != nil {
		t.Fatal(err)
	}
	want := Route{Dst: place.Dst, Via: addr("10.1.0.3")}
	if _, err := Sync(t.Context(), ns, owner, want); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "10.9.0.0/16 via 10.1.0.3") {
		t.Errorf("the place of another: %v", err)
	}
	// One of the owner's stands behind it: to replace would hit the stranger.
	want.Protocol = owner
	if err := Append(t.Context(), ns, want); err != nil {
		t.Fatal(err)
	}
	want.Via = addr("10.1.0.5")
	if _, err := Sync(t.Context(), ns, owner, want); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "static") {
		t.Errorf("behind another: %v", err)
	}
	got := ipRoutes(t, ns, TableMain)
	if len(got) != 2 || got[0]["gateway"] != "10.1.0.1" || got[1]["gateway"] != "10.1.0.3" {
		t.Errorf("ip shows %v", got)
	}
	if did, err := Sync(t.Context(), ns, owner); err != nil || did != (Changes{Deleted: 1}) {
		t.Errorf("to none: %+v, %v", did, err)
	}
	if got := ipRoutes(t, ns, TableMain); len(got) != 1 || got[0]["protocol"] != "static" {
		t.Errorf("ip shows %v", got)
	}
}

func TestSyncRefuses(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	r := Route{Dst: prefix("10.9.0.0/16"), Dev: 1}
	other, twice := r, r
	other.Protocol = 78
	twice.Table = TableMain
	for _, tt := range []struct {
		owner  Protocol
		routes []Route
		says   string
	}{
		{0, nil, "no owner"},
		{ProtoKernel, nil, "reserved"},
		{ProtoRedirect, nil, "reserved"},
		{ProtoBoot, nil, "reserved"},
		{ProtoRA, nil, "reserved"},
		{77, []Route{r, other}, "not the owner's"},
		{77, []Route{r, twice}, "twice"},
		{77, []Route{r, {Dst: netip.MustParsePrefix("10.0.0.1/8"), Dev: 1}}, "host bits"},
	} {
		if _, err := Sync(t.Context(), ns, tt.owner, tt.routes...); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v %v: %v, want %q", tt.owner, tt.routes, err, tt.says)
		}
	}
	if got := ipRoutes(t, ns, TableMain); len(got) != 0 {
		t.Errorf("something was sent: %v", got)
	}
}

func TestSyncOfMany(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	want := hosts(IPv4, 5000)
	want = append(want, hosts(IPv6, 1000)...)
	if did, err := Sync(t.Context(), ns, 77, want...); err != nil || did.Added != len(want) {
		t.Fatalf("%+v, %v", did, err)
	}
	for i := 0; i < len(want); i += 100 {
		want[i].Metrics = &Metrics{MTU: 1400}
	}
	if did, err := Sync(t.Context(), ns, 77, want[:5990]...); err != nil || did != (Changes{Replaced: 60, Deleted: 10}) {
		t.Errorf("%+v, %v", did, err)
	}
}

// The routes of an overlay: to peers by a tunnel and by a link, none to what is nobody's, and none any
// more to a peer that is gone. All are the same after they were written and read.
func TestSyncOfAnOverlay(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	const owner = Protocol(77)
	tunnel := func(dst, peer string) Route {
		return Route{Dst: prefix(dst), Dev: 100, Metrics: &Metrics{MTU: 1464}, Encap: IPEncap{ID: 7, Dst: addr(peer), TTL: 64}}
	}
	want := []Route{
		{Dst: prefix("10.100.0.0/16"), Type: TypeUnreachable, Metric: 1<<32 - 1},
		{Dst: prefix("fd99::/48"), Type: TypeUnreachable, Metric: 1<<32 - 1},
		tunnel("10.100.2.0/24", "192.0.2.2"), tunnel("fd99:0:0:2::/64", "192.0.2.2"),
		tunnel("10.100.3.0/24", "fd02::3"), tunnel("fd99:0:0:3::/64", "fd02::3"),
		{Dst: prefix("10.100.4.0/24"), Via: addr("10.77.0.4"), Dev: 100, OnLink: true, Metrics: &Metrics{MTU: 1500}},
		{Dst: prefix("fd99:0:0:4::/64"), Via: addr("fd77::4"), Dev: 100, OnLink: true},
	}
	sync := func(name string, did Changes, text ...string) {
		t.Helper()
		if got, err := Sync(t.Context(), ns, owner, want...); err != nil || got != did {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, did)
		}
		listed, err := List(t.Context(), ns, Filter{Protocol: owner})
		if err != nil {
			t.Fatal(err)
		}
		again := make([]Route, len(listed))
		for i, r := range listed {
			if again[i], err = Parse(r.String()); err != nil {
				t.Error(err)
			}
		}
		if got, err := Sync(t.Context(), ns, owner, again...); err != nil || got != (Changes{}) {
			t.Errorf("%s, what is listed: %+v, %v", name, got, err)
		}
		shown := strings.Join(strings.Fields(testutil.Run(t, ns, "ip", "route", "show", "proto", "77")), " ")
		for _, line := range text {
			if !strings.Contains(shown, line) {
				t.Errorf("%s: ip shows\n%s, want %q", name, shown, line)
			}
		}
	}
	sync("new", Changes{Added: 8}, "unreachable 10.100.0.0/16 metric 4294967295", "10.100.2.0/24 encap ip id 7 ", "dst 192.0.2.2 ttl 64 ", "dev v0 scope link mtu 1464",
		"10.100.4.0/24 via 10.77.0.4 dev v0 onlink mtu 1500")
	sync("again", Changes{})
	want[2] = Route{Dst: want[2].Dst, Type: TypeUnreachable}
	want[3] = Route{Dst: want[3].Dst, Type: TypeUnreachable}
	want[6].Metrics = &Metrics{MTU: 1400}
	sync("a peer is gone", Changes{Replaced: 3}, "unreachable 10.100.2.0/24", "mtu 1400")
	want[2], want[3] = tunnel("10.100.2.0/24", "192.0.2.22"), tunnel("fd99:0:0:2::/64", "192.0.2.22")
	sync("it is back elsewhere", Changes{Replaced: 2}, "dst 192.0.2.22")
}
