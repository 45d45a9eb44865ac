package route

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// ipNextHops returns what ip -d -j shows of the next-hop objects.
func ipNextHops(t testing.TB, ns *netns.NS) (hops []map[string]any) {
	t.Helper()
	testutil.JSON(t, ns, &hops, "ip", "-d", "-j", "nexthop", "show")
	return hops
}

var nextHopFeatures = []struct {
	hops         []NextHop // the last one is looked at
	want         string
	major, minor int
	need         string
}{
	{hops: []NextHop{{ID: 1, Via: addr("10.1.0.1"), Dev: 100}}, want: `{"id":1,"gateway":"10.1.0.1","dev":"v0","protocol":"static"}`},
	{hops: []NextHop{{ID: 1<<32 - 1, Via: addr("fd01::1"), Dev: 100, Protocol: ProtoBGP}}, want: `{"id":4294967295,"gateway":"fd01::1","protocol":"bgp"}`},
	{hops: []NextHop{{ID: 1, Dev: 100}}, want: `{"id":1,"dev":"v0"}`},
	{hops: []NextHop{{ID: 1, Dev: 100, Family: IPv6}}, want: `{"id":1,"dev":"v0"}`},
	{hops: []NextHop{{ID: 1, Via: addr("10.77.0.1"), Dev: 100, OnLink: true}}, want: `{"gateway":"10.77.0.1","flags":["onlink"]}`},
	{hops: []NextHop{{ID: 1, Blackhole: true}}, want: `{"id":1,"blackhole":null}`},
	{hops: []NextHop{{ID: 1, Blackhole: true, Family: IPv6}}, want: `{"id":1,"blackhole":null}`},
	{hops: []NextHop{{ID: 1, Dev: 100, Encap: IPEncap{ID: 7, Dst: addr("192.0.2.2"), TTL: 9}}}, want: `{"encap":"ip","dst":"192.0.2.2"}`},
	{hops: []NextHop{{ID: 1, Via: addr("10.1.0.1"), Dev: 100}, {ID: 2, Via: addr("10.1.0.3"), Dev: 100}, {ID: 9, Group: []Member{{2, 255}, {1, 3}}}},
		want: `{"id":9,"group":[{"id":2,"weight":255},{"id":1,"weight":3}]}`},
	{hops: []NextHop{{ID: 1, Via: addr("10.1.0.1"), Dev: 100}, {ID: 9, Group: []Member{{1, 256}}}},
		want: `{"id":9,"group":[{"id":1,"weight":256}]}`, major: 6, minor: 12, need: "a weight of 256"},
	{hops: []NextHop{{ID: 1, Via: addr("10.1.0.1"), FDB: true}}, want: `{"id":1,"gateway":"10.1.0.1","fdb":null}`},
	{hops: []NextHop{{ID: 1, Via: addr("10.1.0.1"), FDB: true}, {ID: 2, Via: addr("10.1.0.3"), FDB: true}, {ID: 9, FDB: true, Group: []Member{{1, 1}, {2, 1}}}},
		want: `{"id":9,"group":[{"id":1},{"id":2}],"fdb":null}`},
	{hops: []NextHop{{ID: 1, Via: addr("10.1.0.1"), Dev: 100}, {ID: 2, Via: addr("10.1.0.3"), Dev: 100}, {ID: 9, Group: []Member{{1, 1}, {2, 3}},
		Resilient: &Resilient{Buckets: 32, IdleTimer: new(60 * time.Second), UnbalancedTimer: new(300 * time.Second)}}},
		want:  `{"id":9,"group":[{"id":1},{"id":2,"weight":3}],"type":"resilient","resilient_args":{"buckets":32,"idle_timer":60,"unbalanced_timer":300}}`,
		major: 5, minor: 13, need: "resilient groups"},
}

func TestNextHopsReadByIP(t *testing.T) {
	t.Parallel()
	for _, tt := range nextHopFeatures {
		last := tt.hops[len(tt.hops)-1]
		t.Run(last.String(), func(t *testing.T) {
			needFamily(t)
			if last.Family == IPv6 {
				netnstest.NeedIPv6(t)
			}
			t.Parallel()
			ns := box(t)
			err := AddNextHops(t.Context(), ns, tt.hops...)
			if tt.need != "" {
				testutil.NeedKernel(t, tt.major, tt.minor, tt.need, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			got := ipNextHops(t, ns)
			if len(got) != len(tt.hops) || !holds(got[len(got)-1], parseJSON(t, tt.want)) {
				j, _ := json.Marshal(got)
				t.Fatalf("ip shows\n%s, want\n%s", j, tt.want)
			}
			listed, err := ListNextHops(t.Context(), ns, NextHopFilter{})
			if err != nil || len(listed) != len(tt.hops) || !listed[len(listed)-1].Equal(last) {
				t.Fatalf("listed %v, %v, want %v", listed, err, tt.hops)
			}
			if one, err := GetNextHop(t.Context(), ns, last.ID); err != nil || !one.Equal(last) {
				t.Errorf("got %+v, %v", one, err)
			}
			if err := AddNextHops(t.Context(), ns, last); !errors.Is(err, os.ErrExist) {
				t.Errorf("added again: %v", err)
			}
			// What is listed can be replaced by itself.
			if err := ReplaceNextHops(t.Context(), ns, listed...); err != nil {
				t.Error(err)
			}
			if err := DeleteNextHops(t.Context(), ns, last.ID); err != nil {
				t.Error(err)
			}
			if _, err := GetNextHop(t.Context(), ns, last.ID); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after the delete: %v", err)
			}
			if err := DeleteNextHops(t.Context(), ns, last.ID); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("deleted again: %v", err)
			}
		})
	}
}

// Routes follow the object that they refer to.
func TestRoutesByNextHop(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	hops := []NextHop{{ID: 1, Via: addr("10.1.0.1"), Dev: 100}, {ID: 2, Via: addr("10.1.0.3"), Dev: 100}, {ID: 3, Via: addr("fd01::1"), Dev: 100}, {ID: 9, Group: []Member{{1, 1}, {2, 2}}}}
	if err := AddNextHops(t.Context(), ns, hops...); err != nil {
		t.Fatal(err)
	}
	routes := []Route{{Dst: prefix("10.9.0.0/16"), NextHop: 1}, {Dst: prefix("10.8.0.0/16"), NextHop: 9}, {Dst: prefix("10.7.0.0/16"), NextHop: 3}, {Dst: prefix("fd09::/64"), NextHop: 3}}
	if err := Add(t.Context(), ns, routes...); err != nil {
		t.Fatal(err)
	}
	listed, err := List(t.Context(), ns, Filter{Table: TableMain, Protocol: ProtoStatic})
	if got, want := strings.Join(sorted(listed), ";"), "10.7.0.0/16 nhid 3 proto static;10.8.0.0/16 nhid 9 proto static;10.9.0.0/16 nhid 1 proto static;fd09::/64 nhid 3 proto static metric 1024"; err != nil || got != want {
		t.Errorf("listed\n%s, %v, want\n%s", got, err, want)
	}
	if byDev, err := List(t.Context(), ns, Filter{Table: TableMain, Protocol: ProtoStatic, Dev: 100}); err != nil || len(byDev) != 4 {
		t.Errorf("by the link: %v, %v", byDev, err)
	}
	if err := ReplaceNextHops(t.Context(), ns, NextHop{ID: 1, Via: addr("10.1.0.7"), Dev: 100}); err != nil {
		t.Fatal(err)
	}
	for _, r := range ipRoutes(t, ns, TableMain) {
		if r["dst"] == "10.9.0.0/16" && r["gateway"] != "10.1.0.7" {
			t.Errorf("after the object was replaced ip shows %v", r)
		}
	}
	if err := DeleteNextHops(t.Context(), ns, 1, 3); err != nil {
		t.Fatal(err)
	}
	if got := ipRoutes(t, ns, TableMain); len(got) != 1 || got[0]["dst"] != "10.8.0.0/16" {
		t.Errorf("after the objects were deleted ip shows %v", got)
	}
}

func TestNextHopsAreAllOrNothing(t *testing.T) {
	t.Parallel()
	ns := box(t)
	err := AddNextHops(t.Context(), ns, NextHop{ID: 1, Via: addr("10.1.0.1"), Dev: 100}, NextHop{ID: 2, Via: addr("10.99.0.1"), Dev: 100})
	if err == nil || !strings.Contains(err.Error(), "id 2 via 10.99.0.1 dev 100") || !strings.Contains(err.Error(), "invalid gateway") {
		t.Errorf("AddNextHops: %v", err)
	}
	if got := ipNextHops(t, ns); len(got) != 0 {
		t.Errorf("ip shows %v", got)
	}
	if err := AddNextHops(t.Context(), ns, NextHop{ID: 1, Dev: 4711}); err == nil || !strings.Contains(err.Error(), "device index") {
		t.Errorf("a link that is not there: %v", err)
	}
}

func TestNextHopFilters(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	hops := []NextHop{
		{ID: 1, Via: addr("10.1.0.1"), Dev: 100, Protocol: ProtoBGP}, {ID: 2, Via: addr("fd01::1"), Dev: 100}, {ID: 3, Dev: 1},
		{ID: 4, Via: addr("10.1.0.1"), FDB: true}, {ID: 9, Group: []Member{{1, 1}}},
	}
	if err := AddNextHops(t.Context(), ns, hops...); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		f    NextHopFilter
		want []uint32
	}{
		{NextHopFilter{}, []uint32{1, 2, 3, 4, 9}},
		{NextHopFilter{Family: IPv6}, []uint32{2}},
		{NextHopFilter{Dev: 100}, []uint32{1, 2}},
		{NextHopFilter{Groups: true}, []uint32{9}},
		{NextHopFilter{FDB: true}, []uint32{4}},
		{NextHopFilter{Protocol: ProtoBGP}, []uint32{1}},
	} {
		got, err := ListNextHops(t.Context(), ns, tt.f)
		same := len(got) == len(tt.want)
		for i := range got {
			same = same && got[i].ID == tt.want[i]
		}
		if err != nil || !same {
			t.Errorf("%+v: %v, %v, want %v", tt.f, got, err, tt.want)
		}
	}
}

func TestListBuckets(t *testing.T) {
	t.Parallel()
	ns := box(t)
	hops := []NextHop{{ID: 1, Via: addr("10.1.0.1"), Dev: 100}, {ID: 2, Via: addr("10.1.0.3"), Dev: 100}, {ID: 9, Group: []Member{{1, 1}, {2, 3}}, Resilient: &Resilient{Buckets: 32}}}
	err := AddNextHops(t.Context(), ns, hops...)
	testutil.NeedKernel(t, 5, 13, "resilient groups", err)
	buckets, err := ListBuckets(t.Context(), ns, 9)
	n := map[uint32]int{}
	for i, b := range buckets {
		if n[b.Member]++; int(b.Index) != i {
			t.Errorf("bucket %d is %+v", i, b)
		}
	}
	if err != nil || n[1] != 8 || n[2] != 24 {
		t.Errorf("%d buckets %v, %v, want 8 and 24", len(buckets), n, err)
	}
	if got, err := GetNextHop(t.Context(), ns, 9); err != nil || got.Resilient == nil || got.Resilient.IdleTimer == nil || *got.Resilient.IdleTimer != 120*time.Second {
		t.Errorf("the kernel's default: %+v, %v", got, err)
	}
	if _, err := ListBuckets(t.Context(), ns, 77); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such group: %v", err)
	}
}

// The kernel chooses a free id.
func TestAddNextHopChoosesAnID(t *testing.T) {
	t.Parallel()
	ns := box(t)
	testutil.Run(t, ns, "ip", "nexthop", "add", "id", "1", "blackhole")
	var group []Member
	for _, n := range []NextHop{{Via: addr("10.1.0.3"), Dev: 100}, {Via: addr("10.1.0.4"), Dev: 100}, {ID: 77, Dev: 100}} {
		made, err := AddNextHop(t.Context(), ns, n)
		if err != nil || made.ID < 2 || n.ID != 0 && made.ID != n.ID {
			t.Fatalf("%v became %v, %v", n, made, err)
		}
		if n.ID = made.ID; !made.Equal(n) {
			t.Errorf("%v became %v", n, made)
		}
		group = append(group, Member{ID: made.ID, Weight: 1})
	}
	made, err := AddNextHop(t.Context(), ns, NextHop{Group: group[:2]})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[float64]string{}
	for _, n := range ipNextHops(t, ns) {
		ids[n["id"].(float64)], _ = n["gateway"].(string)
	}
	if len(ids) != 5 || ids[float64(group[0].ID)] != "10.1.0.3" || ids[float64(group[1].ID)] != "10.1.0.4" {
		t.Errorf("ip shows %v", ids)
	}
	if err := Add(t.Context(), ns, Route{Dst: prefix("10.9.0.0/16"), NextHop: made.ID}); err != nil {
		t.Error(err)
	}
	if _, err := AddNextHop(t.Context(), ns, NextHop{ID: 77, Blackhole: true}); !errors.Is(err, os.ErrExist) {
		t.Errorf("an id that is taken: %v", err)
	}
	if _, err := AddNextHop(t.Context(), ns, NextHop{}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("no link: %v", err)
	}
}

func TestBadNextHops(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	via := addr("10.1.0.1")
	for _, tt := range []struct {
		hop  NextHop
		says string
	}{
		{NextHop{Dev: 1}, "no id"},
		{NextHop{ID: 1}, "no link"},
		{NextHop{ID: 1, Via: via}, "no link"},
		{NextHop{ID: 1, Dev: -1}, "not the index"},
		{NextHop{ID: 1, Via: via, Dev: 1, Family: IPv6}, "another family"},
		{NextHop{ID: 1, Via: netip.IPv6Unspecified(), Dev: 1}, "unspecified"},
		{NextHop{ID: 1, Blackhole: true, Dev: 1}, "drops"},
		{NextHop{ID: 1, FDB: true, Dev: 1}, "forwarding table"},
		{NextHop{ID: 1, Dev: 1, OnLink: true}, "onlink"},
		{NextHop{ID: 1, Dev: 1, Resilient: &Resilient{Buckets: 1}}, "only a group"},
		{NextHop{ID: 1, Group: []Member{{2, 1}}, Resilient: &Resilient{}}, "no buckets"},
		{NextHop{ID: 1, Group: []Member{{2, 1}}, Resilient: &Resilient{Buckets: 2, IdleTimer: new(time.Millisecond)}}, "multiple"},
		{NextHop{ID: 1, Group: []Member{{2, 1}}, Dev: 1}, "nothing but its members"},
		{NextHop{ID: 1, Group: []Member{{2, 0}}}, "weight 0"},
		{NextHop{ID: 1, Group: []Member{{2, 257}}}, "weight 257"},
		{NextHop{ID: 1, Group: []Member{{2, 1}, {2, 1}}}, "twice"},
		{NextHop{ID: 1, Group: []Member{{1, 1}}}, "itself"},
		{NextHop{ID: 1, Group: []Member{{0, 1}}}, "no id"},
	} {
		err := AddNextHops(t.Context(), ns, NextHop{ID: 7, Blackhole: true}, tt.hop)
		if !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v: %v, want %q", tt.hop, err, tt.says)
		}
	}
	if err := DeleteNextHops(t.Context(), ns, 0); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("delete 0: %v", err)
	}
	if got := ipNextHops(t, ns); len(got) != 0 {
		t.Errorf("something was sent: %v", got)
	}
}

func FuzzDecodeNextHop(f *testing.F) {
	for _, tt := range nextHopFeatures {
		for _, n := range tt.hops {
			f.Add(n.append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var n, again NextHop
		if decodeNextHop(b, &n) != nil {
			return
		}
		_ = n.String()
		if n.check() != nil {
			return
		}
		if err := decodeNextHop(n.append(nil), &again); err != nil || !again.Equal(n) {
			t.Fatalf("%+v came back as\n%+v (%v)", n, again, err)
		}
	})
}
