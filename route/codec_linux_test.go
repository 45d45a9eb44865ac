package route

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/internal/testutil/allocs"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// TestEncodingAgainstRtnetlink decodes our requests with an encoder that is not
// ours.
func TestEncodingAgainstRtnetlink(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		route Route
		want  rtnetlink.RouteMessage
	}{
		{Default(addr("10.1.0.1")), rtnetlink.RouteMessage{Family: unix.AF_INET, Table: 254, Protocol: 4, Type: 1,
			Attributes: rtnetlink.RouteAttributes{Gateway: addr("10.1.0.1").AsSlice()}}},
		{Route{Dst: prefix("10.9.0.0/16"), Dev: 7, Src: addr("10.1.0.2"), Metric: 5}, rtnetlink.RouteMessage{Family: unix.AF_INET, DstLength: 16, Table: 254, Protocol: 4, Type: 1, Scope: 253,
			Attributes: rtnetlink.RouteAttributes{Dst: addr("10.9.0.0").AsSlice(), OutIface: 7, Src: addr("10.1.0.2").AsSlice(), Priority: 5}}},
		{Route{Dst: prefix("fd09::/48"), Via: addr("fd01::1"), Table: 70000}, rtnetlink.RouteMessage{Family: unix.AF_INET6, DstLength: 48, Table: unix.RT_TABLE_COMPAT, Protocol: 4, Type: 1,
			Attributes: rtnetlink.RouteAttributes{Dst: addr("fd09::").AsSlice(), Gateway: addr("fd01::1").AsSlice(), Table: 70000}}},
	} {
		var got rtnetlink.RouteMessage
		if err := got.UnmarshalBinary(tt.route.appendAdd(nil)); err != nil {
			t.Errorf("%v: %v", tt.route, err)
			continue
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%v:\n got %+v\nwant %+v", tt.route, got, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range []Route{Default(addr("10.1.0.1")), {Dst: prefix("fd09::/48"), Via: addr("fd01::1"), Table: 70000, Metric: 3}} {
		f.Add(r.appendAdd(nil))
	}
	for _, tt := range features {
		f.Add(tt.route.appendAdd(nil))
	}
	f.Add([]byte{unix.AF_INET, 200, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Route
		ok, err := decode(b, &r, &Filter{})
		if err != nil || !ok {
			return
		}
		if !r.Dst.IsValid() {
			t.Fatalf("no destination in %+v", r)
		}
		_ = r.String()
	})
}

// FuzzRoundTrip encodes what Parse takes, and reads it back.
func FuzzRoundTrip(f *testing.F) {
	for _, tt := range features {
		f.Add(tt.route.String())
	}
	f.Add("default via inet6 fe80::1 dev 3 table 70000 proto bgp scope site metric 7 onlink realm 3/7")
	f.Add("0.0.0.0 nexthop dev 1")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		r.Expires = 0 // travels in another attribute than it comes back in
		var got Route
		ok, err := decode(r.appendAdd(nil), &got, &Filter{})
		if r.Type.leadsNowhere() {
			r.tidy()
		}
		if raw, is := r.Encap.(RawEncap); is {
			r.Encap = readEncap(raw.Kind, raw.Data)
		}
		for i := range r.Hops {
			if raw, is := r.Hops[i].Encap.(RawEncap); is {
				r.Hops[i].Encap = readEncap(raw.Kind, raw.Data)
			}
		}
		if err != nil || !ok || !got.Equal(r) {
			t.Fatalf("%q:\n%+v came back as\n%+v (%v, %v)", s, r, got, ok, err)
		}
	})
}

// TestListAllocations: a list allocates for its result, not for each route.
func TestListAllocations(t *testing.T) {
	ns := netnstest.New(t)
	const n = 1000
	routes := make([]Route, n)
	for i := range routes {
		routes[i] = Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 60, byte(i >> 8), byte(i)}), 32), Dev: 1}
	}
	if err := Add(t.Context(), ns, routes...); err != nil {
		t.Fatal(err)
	}
	f := Filter{Family: IPv4, Table: TableMain}
	if got, err := List(t.Context(), ns, f); err != nil || len(got) != n {
		t.Fatalf("%d routes, %v", len(got), err)
	}
	count := allocs.PerRun(t, 20, func() { List(t.Context(), ns, f) })
	if count > 24 {
		t.Errorf("a list of %d routes allocates %v times", n, count)
	}
}

// TestReplaceAllocations: a call allocates for itself, not for each route.
func TestReplaceAllocations(t *testing.T) {
	ns := netnstest.New(t)
	routes := hosts(IPv4, 1000)
	count := allocs.PerRun(t, 20, func() {
		if err := Replace(t.Context(), ns, routes...); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%v allocations", count)
	if count > 70 {
		t.Errorf("to replace %d routes takes %v allocations", len(routes), count)
	}
}
