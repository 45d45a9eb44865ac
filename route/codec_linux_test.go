package route

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
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

// FuzzRoundTrip encodes routes and reads them back.
func FuzzRoundTrip(f *testing.F) {
	f.Add(true, []byte{10, 0, 0, 0}, 8, []byte{10, 0, 0, 1}, 3, uint32(4), uint32(5))
	f.Fuzz(func(t *testing.T, v4 bool, dst []byte, bits int, via []byte, dev int, metric, table uint32) {
		n := 16
		if v4 {
			n = 4
		}
		d, ok1 := netip.AddrFromSlice(append(dst, make([]byte, n)...)[:n])
		g, ok2 := netip.AddrFromSlice(append(via, make([]byte, n)...)[:n])
		p, err := d.Prefix(bits)
		if !ok1 || !ok2 || err != nil {
			return
		}
		r := Route{Dst: p, Via: g, Dev: dev, Metric: metric, Table: Table(table), Type: Unicast, Protocol: ProtoStatic, Scope: ScopeUniverse}
		if r.check(false) != nil {
			return
		}
		var got Route
		ok, err := decode(r.appendAdd(nil), &got, &Filter{})
		if err != nil || !ok || !got.Equal(r) {
			t.Fatalf("%+v came back as %+v (%v, %v)", r, got, ok, err)
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
	allocs := testing.AllocsPerRun(20, func() { List(t.Context(), ns, f) })
	if allocs > 40 {
		t.Errorf("a list of %d routes allocates %v times", n, allocs)
	}
}

func BenchmarkList(b *testing.B) {
	ns := netnstest.New(b)
	routes := make([]Route, 1000)
	for i := range routes {
		routes[i] = Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 60, byte(i >> 8), byte(i)}), 32), Dev: 1}
	}
	if err := Add(b.Context(), ns, routes...); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := List(b.Context(), ns, Filter{Family: IPv4, Table: TableMain}); err != nil {
			b.Fatal(err)
		}
	}
}
