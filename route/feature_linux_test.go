package route

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

// features are routes with what ip -d -j has to show of them, and the first
// kernel that knows them, if that is not 5.10.
var features = []struct {
	route        Route
	want         string
	major, minor int
	need         string
}{
	{route: Route{Dst: prefix("10.9.0.0/16"), Type: TypeLocal, Dev: 100, Table: 100}, want: `{"type":"local","dst":"10.9.0.0/16","dev":"v0","scope":"host"}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Type: TypeUnreachable, Metric: 9}, want: `{"type":"unreachable","dst":"10.9.0.0/16","metric":9}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Type: TypeProhibit}, want: `{"type":"prohibit"}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Type: TypeThrow, Table: 70000}, want: `{"type":"throw"}`},
	{route: Route{Dst: prefix("239.0.0.0/8"), Type: TypeMulticast, Dev: 100}, want: `{"type":"multicast","dst":"239.0.0.0/8","dev":"v0"}`},
	{route: Route{Dst: prefix("10.9.0.255/32"), Type: TypeBroadcast, Dev: 100}, want: `{"type":"broadcast","scope":"link"}`},
	{route: Route{Dst: prefix("fd09::/64"), Type: TypeBlackhole}, want: `{"type":"blackhole","dst":"fd09::/64","metric":1024}`},
	{route: Route{Dst: prefix("fd09::1/128"), Type: TypeLocal, Dev: 100, Table: 100}, want: `{"type":"local","dst":"fd09::1"}`},
	{route: Route{Dst: prefix("fd09::1/128"), Type: TypeAnycast, Dev: 100}, want: `{"type":"anycast","dst":"fd09::1"}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Via: addr("10.1.0.1"), TOS: 0x10, Protocol: 250}, want: `{"tos":"0x10","protocol":"250"}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Via: addr("10.1.0.1"), Realm: Realm{From: 3, To: 7}, Scope: ScopeSite}, want: `{"scope":"site","flow":{"from":"3","to":"7"}}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Via: addr("fd01::9"), Dev: 100}, want: `{"via":{"family":"inet6","host":"fd01::9"},"dev":"v0"}`},
	{route: Route{Dst: prefix("fd09::/64"), From: prefix("fd01::/64"), Via: addr("fd01::9")}, want: `{"dst":"fd09::/64","from":"fd01::/64"}`},
	{route: Route{Dst: prefix("fd09::/64"), Via: addr("fd01::9"), Expires: 300 * time.Second, Pref: PrefLow, Src: addr("fd01::2")}, want: `{"expires":300,"pref":"low","prefsrc":"fd01::2"}`},
	{route: Route{Dst: prefix("fd09::/64"), Via: addr("fd77::9"), Dev: 100, OnLink: true, Pref: PrefHigh}, want: `{"pref":"high","flags":["onlink"]}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Hops: []Hop{{Via: addr("10.1.0.1"), Dev: 100, Weight: 1}, {Via: addr("10.1.0.3"), Dev: 100, Weight: 256, OnLink: true, Realm: Realm{To: 5}}, {Dev: 100, Weight: 20}}},
		want: `{"nexthops":[{"gateway":"10.1.0.1","dev":"v0","weight":1},{"gateway":"10.1.0.3","dev":"v0","weight":256},{"dev":"v0","weight":20}]}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Hops: []Hop{{Via: addr("fd01::9"), Dev: 100, Weight: 1}, {Via: addr("10.1.0.1"), Dev: 100, Weight: 2}}},
		want: `{"nexthops":[{"via":{"family":"inet6","host":"fd01::9"}},{"gateway":"10.1.0.1","weight":2}]}`},
	{route: Route{Dst: prefix("fd09::/64"), Hops: []Hop{{Via: addr("fd01::8"), Dev: 100, Weight: 3}, {Via: addr("fd01::9"), Dev: 100, Weight: 1}}},
		want: `{"nexthops":[{"gateway":"fd01::8","weight":3},{"gateway":"fd01::9","weight":1}]}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Via: addr("10.1.0.1"), Metrics: allMetrics}, want: `{"metrics":[{"mtu":1400,"advmss":1360,"window":20000,"rtt":100,"rttvar":50,"ssthresh":30,"cwnd":40,"initcwnd":10,"initrwnd":11,"hoplimit":60,"reordering":4,"rto_min":200,"quickack":1,"fastopen_no_cookie":1,"congestion":"reno"}]}`},
	{route: Route{Dst: prefix("fd09::/64"), Via: addr("fd01::9"), Metrics: &Metrics{MTU: 1300, HopLimit: 3, Lock: LockMTU}}, want: `{"metrics":[{"mtu":1300,"hoplimit":3}]}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Via: addr("10.1.0.1"), Metrics: &Metrics{Features: FeatureUsecTS}}, major: 6, minor: 7, need: "microsecond timestamps of TCP", want: `{}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Dev: 100, Encap: IPEncap{ID: 77, Src: addr("192.0.2.1"), Dst: addr("192.0.2.2"), TTL: 9, TOS: 4, Flags: TunnelKey | TunnelChecksum}},
		want: `{"encap":"ip","id":77,"src":"192.0.2.1","dst":"192.0.2.2","ttl":9,"tos":4}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Dev: 100, Encap: IPEncap{ID: 77, Dst: addr("fd02::2"), TTL: 9, Flags: TunnelKey}},
		want: `{"encap":"ip6","id":77,"dst":"fd02::2","hoplimit":9}`},
	{route: Route{Dst: prefix("fd09::/64"), Dev: 100, Metrics: &Metrics{MTU: 1400}, Encap: IPEncap{ID: 77, Dst: addr("192.0.2.2"), TTL: 64}},
		want: `{"encap":"ip","id":77,"src":"0.0.0.0","dst":"192.0.2.2","ttl":64,"tos":0,"dev":"v0","metrics":[{"mtu":1400}]}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Dev: 100, Encap: IPEncap{ID: 1<<40 + 7, Src: addr("fd02::1"), Dst: addr("fd02::2"), TTL: 64, TOS: 8, Flags: TunnelKey | TunnelSequence}},
		want: `{"encap":"ip6","id":1099511627783,"src":"fd02::1","dst":"fd02::2","hoplimit":64,"tc":8}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Via: addr("10.77.0.1"), Dev: 100, OnLink: true, Metrics: &Metrics{MTU: 1464}}, want: `{"gateway":"10.77.0.1","dev":"v0","flags":["onlink"],"metrics":[{"mtu":1464}]}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Via: addr("10.77.0.1"), Dev: 100, OnLink: true, Encap: IPEncap{ID: 7, Dst: addr("192.0.2.2"), TTL: 64}},
		want: `{"encap":"ip","id":7,"ttl":64,"gateway":"10.77.0.1","dev":"v0","flags":["onlink"]}`},
	{route: Route{Dst: prefix("10.9.0.0/16"), Type: TypeUnreachable, Metric: 1<<32 - 1}, want: `{"type":"unreachable","dst":"10.9.0.0/16","metric":4294967295}`},
	{route: Route{Dst: prefix("fd09::/48"), Type: TypeUnreachable, Metric: 1<<32 - 1}, want: `{"type":"unreachable","dst":"fd09::/48","metric":4294967295}`},
	{route: Route{Dst: prefix("fd09::/64"), Dev: 100, Encap: Seg6Encap{Mode: Seg6ModeEncap, Segments: []netip.Addr{addr("fd0a::1"), addr("fd0a::2")}}},
		want: `{"encap":"seg6","mode":"encap","segs":["fd0a::1","fd0a::2"]}`, major: 5, minor: 10, need: "segment routing (seg6)"},
	{route: Route{Dst: prefix("fd09::/64"), Dev: 100, Encap: Seg6Encap{Mode: Seg6ModeInline, Segments: []netip.Addr{addr("fd0a::1"), addr("fd0a::2")}}},
		want: `{"encap":"seg6","mode":"inline"}`, major: 5, minor: 10, need: "segment routing (seg6)"},
	{route: Route{Dst: prefix("fd09::/64"), Dev: 100, Encap: Seg6Encap{Mode: Seg6ModeEncapRed, Segments: []netip.Addr{addr("fd0a::1"), addr("fd0a::2")}}},
		want: `{"encap":"seg6"}`, major: 6, minor: 1, need: "segment routing encap.red"},
	{route: Route{Dst: prefix("fd09::1/128"), Dev: 100, Encap: Seg6LocalEncap{Action: Seg6ActionEndX, Via6: addr("fd01::9")}},
		want: `{"encap":"seg6local","action":"End.X","nh6":"fd01::9"}`, major: 5, minor: 10, need: "segment routing (seg6local)"},
	{route: Route{Dst: prefix("fd09::1/128"), Dev: 100, Encap: Seg6LocalEncap{Action: Seg6ActionEndDX4, Via4: addr("10.1.0.9"), Count: true}},
		want: `{"encap":"seg6local","action":"End.DX4","nh4":"10.1.0.9"}`, major: 5, minor: 14, need: "segment routing counters"},
	{route: Route{Dst: prefix("fd09::1/128"), Dev: 100, Encap: Seg6LocalEncap{Action: Seg6ActionEndT, Table: 70001}},
		want: `{"encap":"seg6local","action":"End.T","table":"70001"}`, major: 5, minor: 10, need: "segment routing (seg6local)"},
	{route: Route{Dst: prefix("fd09::1/128"), Dev: 100, Encap: Seg6LocalEncap{Action: Seg6ActionEnd, Flavors: Seg6FlavorNextCSID, BlockBits: 48, NodeBits: 16}},
		want: `{"encap":"seg6local","action":"End"}`, major: 6, minor: 1, need: "the segment routing flavor next-csid"},
	{route: Route{Dst: prefix("fd09::1/128"), Dev: 100, Encap: Seg6LocalEncap{Action: Seg6ActionEnd, Flavors: Seg6FlavorPSP}},
		want: `{"encap":"seg6local","action":"End"}`, major: 6, minor: 3, need: "the segment routing flavor psp"},
	{route: Route{Dst: prefix("fd09::1/128"), Dev: 100, Encap: Seg6LocalEncap{Action: Seg6ActionEndB6Encap, Segments: []netip.Addr{addr("fd0a::1"), addr("fd0a::2")}}},
		want: `{"encap":"seg6local","action":"End.B6.Encaps"}`, major: 5, minor: 10, need: "segment routing (seg6local)"},
	{route: Route{Dst: prefix("10.9.0.0/16"), Via: addr("10.1.0.1"), Dev: 100, Encap: MPLSEncap{Labels: []uint32{100, 200}, TTL: 9}},
		want: `{"encap":"mpls","dst":"100/200","ttl":9}`, major: 5, minor: 10, need: "MPLS encapsulation (mpls_iptunnel)"},
	{route: Route{Dst: prefix("10.9.0.0/16"), Via: addr("10.1.0.1"), Hops: nil, Dev: 100, Encap: RawEncap{Kind: lwtIP, Data: appendIPEncap(nil, IPEncap{ID: 5, Dst: addr("192.0.2.2")})}},
		want: `{"encap":"ip","id":5}`},
}

var allMetrics = &Metrics{
	MTU: 1400, AdvMSS: 1360, Window: 20000, RTT: 100 * time.Millisecond, RTTVar: 50 * time.Millisecond, SSThresh: 30, CWnd: 40,
	InitCWnd: 10, InitRWnd: 11, HopLimit: 60, Reordering: 4, Features: FeatureECN, RTOMin: 200 * time.Millisecond,
	QuickAck: true, FastOpenNoCookie: true, Congestion: "reno", Lock: LockMTU | LockCWnd | LockRTT | LockCongestion,
}

// ipRoutes returns what ip -d -j shows of the routes of a table that the kernel
// did not make.
func ipRoutes(t testing.TB, ns *netns.NS, table Table) (routes []map[string]any) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		out, err := testutil.Try(t, ns, "ip", "-d", "-j", family, "route", "show", "table", table.String())
		if err != nil && strings.Contains(out, "FIB table does not exist") {
			continue
		}
		var all []map[string]any
		if err == nil {
			err = json.Unmarshal([]byte(out), &all)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, r := range all {
			if r["protocol"] != "kernel" {
				routes = append(routes, r)
			}
		}
	}
	return routes
}

// holds reports whether got has all that want has.
func holds(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		m, ok := got.(map[string]any)
		for k, v := range want {
			if n, is := m[k].(float64); is && k == "expires" { // it runs
				ok = ok && n <= v.(float64) && n > v.(float64)-100
				continue
			}
			ok = ok && holds(m[k], v)
		}
		return ok
	case []any:
		l, ok := got.([]any)
		if !ok || len(l) != len(want) {
			return false
		}
		for i := range want {
			ok = ok && holds(l[i], want[i])
		}
		return ok
	}
	return reflect.DeepEqual(got, want)
}

func parseJSON(t testing.TB, s string) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return v
}

func TestFeaturesReadByIP(t *testing.T) {
	t.Parallel()
	for _, tt := range features {
		t.Run(tt.route.String(), func(t *testing.T) {
			needFamily(t)
			t.Parallel()
			ns := box(t)
			err := Add(t.Context(), ns, tt.route)
			if tt.need != "" {
				testutil.NeedKernel(t, tt.major, tt.minor, tt.need, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			table := max(tt.route.Table, 1)
			if table == 1 {
				table = TableMain
			}
			got := ipRoutes(t, ns, table)
			want := parseJSON(t, tt.want)
			if len(got) != 1 || !holds(got[0], want) {
				j, _ := json.Marshal(got)
				t.Fatalf("ip shows\n%s, want\n%s", j, tt.want)
			}
			listed, err := List(t.Context(), ns, Filter{Table: table, Protocol: max(tt.route.Protocol, ProtoStatic)})
			if err != nil || len(listed) != 1 {
				t.Fatalf("listed %v, %v", listed, err)
			}
			if raw, ok := tt.route.Encap.(RawEncap); ok {
				tt.route.Encap = readEncap(raw.Kind, raw.Data)
			}
			if want := tt.route.as(&listed[0]); !listed[0].Equal(want) {
				if local, ok := tt.route.Encap.(Seg6LocalEncap); ok && (local.Count || local.Flavors != 0) {
					testutil.NeedKernel(t, tt.major, tt.minor, tt.need, errors.New("the kernel ignored it"))
				}
				t.Errorf("listed %+v\n  want %+v", listed[0], want)
			}
			if again, err := Parse(listed[0].String()); err != nil || !again.Equal(listed[0]) {
				t.Errorf("%s\nread back as %s, %v", listed[0], again, err)
			}
			if err := Add(t.Context(), ns, listed[0]); !errors.Is(err, os.ErrExist) {
				t.Errorf("what is listed, added again: %v", err)
			}
			if err := Delete(t.Context(), ns, listed[0]); err != nil {
				t.Error(err)
			}
			if got := ipRoutes(t, ns, table); len(got) != 0 {
				t.Errorf("after Delete ip shows %v", got)
			}
			if err := Add(t.Context(), ns, listed[0]); err != nil {
				t.Errorf("what was listed, added after it was deleted: %v", err)
			}
		})
	}
}
