package route

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// everything is what ip shows of routes, rules and next hops of both families.
func everything(t testing.TB, ns *netns.NS) string {
	t.Helper()
	return shown(t, ns, "-4 route show table all", "-6 route show table all", "-4 rule", "-6 rule", "nexthop")
}

// shown is what ip -j -d shows for each of the arguments, an item a line.
func shown(t testing.TB, ns *netns.NS, what ...string) string {
	t.Helper()
	var b strings.Builder
	for _, args := range what {
		var all []map[string]any
		testutil.JSON(t, ns, &all, "ip", strings.Fields("-j -d "+args)...)
		for _, item := range all {
			if item["dst"] == "ff00::/8" || item["type"] == "multicast" || item["type"] == "anycast" {
				continue
			}
			j, _ := json.Marshal(item)
			b.Write(append(j, '\n'))
		}
	}
	return b.String()
}

// differs says which lines of two texts differ, or that their order does; nothing
// if they are equal.
func differs(before, after string) string {
	if before == after {
		return ""
	}
	var b strings.Builder
	for mark, texts := range map[string][2]string{"-": {before, after}, "+": {after, before}} {
		for line := range strings.Lines(texts[0]) {
			if !strings.Contains(texts[1], line) {
				b.WriteString(mark + line)
			}
		}
	}
	if b.Len() == 0 {
		return "another order:\n" + after + "before:\n" + before
	}
	return b.String()
}

// endsAfter is a context that is done once Err was asked n times.
type endsAfter struct {
	context.Context
	left *int
}

func (c endsAfter) Err() error {
	if *c.left--; *c.left < 0 {
		return context.Canceled
	}
	return c.Context.Err()
}

// lived is a namespace with things of others in it.
func lived(t testing.TB) *netns.NS {
	ns := netnstest.New(t)
	for _, cmd := range []string{
		"link add v0 index 100 type veth peer name v1", "link set v0 addrgenmode none", // so that no address comes later
		"link set v1 addrgenmode none up",
		"addr add 10.1.0.2/16 dev v0",
		"addr add fd01::2/64 dev v0 nodad",
		"link set v0 up",
		"route add 10.50.0.0/16 via 10.1.0.9 src 10.1.0.2 mtu 1400 proto static",
		"route append 10.50.0.0/16 via 10.1.0.8 proto static",
		"-6 route add fd50::/64 via fd01::9 metric 100 proto static",
		"-6 route add fd50::/64 via fd01::8 proto static",
		"-6 route append fd50::/64 via fd01::7 proto static",
		"-6 route add fd51::/64 via fd01::9 metric 100 proto static",
		"route add 10.51.0.0/16 via 10.1.0.9 proto 99",
		"route add 10.52.0.0/16 via 10.1.0.9 proto 77",
		"rule add pref 500 from 10.2.0.0/16 table 100 protocol static",
		"rule add pref 500 fwmark 7 table 100 protocol 99",
		"rule add pref 500 to 10.3.0.0/16 table 101 protocol 77",
		"rule add from 10.2.0.0/16 table 100 protocol 99",
		"-6 rule add pref 500 from fd02::/64 table 100 protocol static",
		"nexthop add id 5 via 10.1.0.9 dev v0",
		"nexthop add id 6 group 5",
	} {
		testutil.Run(t, ns, "ip", strings.Fields(cmd)...)
	}
	for !strings.Contains(testutil.Run(t, ns, "ip", "-6", "route", "show", "table", "local"), "fd01::2") {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
	return ns
}

// A call that fails leaves what was there, whatever step it fails in.
func TestUndoIsExact(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	routes := []Route{
		{Dst: prefix("10.60.0.0/16"), Via: addr("10.1.0.3")},
		{Dst: prefix("fd51::/64"), Via: addr("fd01::9")}, // beside one with a metric of 100
		{Dst: prefix("10.51.0.0/16"), Via: addr("10.1.0.9"), Metric: 5},
		{Dst: prefix("fd61::/64"), Hops: []Hop{{Via: addr("fd01::3"), Weight: 1}, {Via: addr("fd01::4"), Weight: 2}}},
	}
	appended := []Route{
		{Dst: prefix("10.50.0.0/16"), Via: addr("10.1.0.9")}, // less than what stands before
		{Dst: prefix("fd50::/64"), Via: addr("fd01::9")},     // as the one of another metric
		{Dst: prefix("fd50::/64"), Hops: []Hop{{Via: addr("fd01::3"), Weight: 1}, {Via: addr("fd01::4"), Weight: 1}}},
		{Dst: prefix("fd50::/64"), Dev: 100},
		{Dst: prefix("10.62.0.0/16"), Via: addr("10.1.0.3")},
	}
	refused := Route{Dst: prefix("10.61.0.0/16"), Via: addr("192.0.2.1"), Dev: 100}
	rules := []Rule{
		{Family: IPv4, Table: 100, Priority: 500, Protocol: 99, To: prefix("10.9.0.0/16")},
		{Family: IPv4, Table: 100, From: prefix("10.2.0.0/16")}, // as one of another owner; the kernel chooses the priority
		{Family: IPv4, Mark: 7, Table: 100, Priority: 500},
		{Family: IPv6, Table: 100, Priority: 501},
		{Family: IPv4, Action: ActionGoto, Goto: 32766, Priority: 9},
	}
	refusedRule := Rule{Family: IPv4, Table: 100, Priority: 3, UIDs: &UIDRange{1<<32 - 1, 1<<32 - 1}}
	hops := []NextHop{{ID: 1, Via: addr("10.1.0.3"), Dev: 100}, {ID: 2, Blackhole: true}, {ID: 3, Group: []Member{{1, 1}}}}
	refusedHop := NextHop{ID: 5, Blackhole: true} // is there

	verbs := map[string]func(ctx context.Context, ns *netns.NS, at int) error{
		"Add": func(ctx context.Context, ns *netns.NS, at int) error {
			return Add(ctx, ns, put(routes, at, refused)...)
		},
		"Append": func(ctx context.Context, ns *netns.NS, at int) error {
			return Append(ctx, ns, put(appended, at, refused)...)
		},
		"AddRules": func(ctx context.Context, ns *netns.NS, at int) error {
			return AddRules(ctx, ns, put(rules, at, refusedRule)...)
		},
		"SyncRules": func(ctx context.Context, ns *netns.NS, at int) error {
			want := slices.Clone(put(rules, at, refusedRule))
			for i := range want {
				want[i].Protocol = 77
			}
			_, err := SyncRules(ctx, ns, 77, want...)
			return err
		},
		"AddNextHops": func(ctx context.Context, ns *netns.NS, at int) error {
			return AddNextHops(ctx, ns, put(hops, at, refusedHop)...)
		},
	}
	for name, verb := range verbs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := lived(t)
			before := everything(t, ns)
			for at := range 5 {
				if err := verb(t.Context(), ns, at); err == nil {
					t.Fatalf("refused at %d: no error", at)
				}
				if diff := differs(before, everything(t, ns)); diff != "" {
					t.Fatalf("refused at %d: ip shows\n%s", at, diff)
				}
			}
			for n := 0; ; n++ { // the context ends in each of the steps
				left := n
				if err := verb(endsAfter{t.Context(), &left}, ns, -1); err == nil {
					break
				}
				if diff := differs(before, everything(t, ns)); diff != "" {
					t.Fatalf("ended at %d: ip shows\n%s", n, diff)
				}
			}
		})
	}
}

// put returns the items with one more at a place, or behind them; at -1 without
// it.
func put[T any](items []T, at int, one T) []T {
	if at < 0 {
		return items
	}
	return slices.Insert(slices.Clone(items), min(at, len(items)), one)
}

// The verbs that go on past a refusal change what the error does not name, and
// nothing else.
func TestFailedItemsAreLeftAlone(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	refused := Route{Dst: prefix("10.51.0.0/16"), Via: addr("192.0.2.1"), Dev: 100}
	for at := range 3 {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			ns := lived(t)
			before := everything(t, ns)
			good := []Route{{Dst: prefix("10.60.0.0/16"), Via: addr("10.1.0.3")}, {Dst: prefix("fd60::/64"), Via: addr("fd01::3")}}
			if err := Replace(t.Context(), ns, put(good, at, refused)...); err == nil || !strings.Contains(err.Error(), "10.51.0.0/16") {
				t.Errorf("Replace: %v", err)
			}
			if err := Delete(t.Context(), ns, put(good, at, Route{Dst: prefix("10.99.0.0/16")})...); err == nil || !strings.Contains(err.Error(), "10.99.0.0/16") {
				t.Errorf("Delete: %v", err)
			}
			if diff := differs(before, everything(t, ns)); diff != "" {
				t.Fatalf("routes: ip shows\n%s", diff)
			}
			rules := []Rule{{Family: IPv6, Table: 100, Priority: 501}}
			if err := AddRules(t.Context(), ns, rules...); err != nil {
				t.Fatal(err)
			}
			gone := Rule{Family: IPv4, Table: 100, Priority: 777}
			if err := DeleteRules(t.Context(), ns, put(rules, at, gone)...); err == nil || !strings.Contains(err.Error(), "777") {
				t.Errorf("DeleteRules: %v", err)
			}
			hops := []NextHop{{ID: 1, Blackhole: true}, {ID: 2, Blackhole: true}}
			if err := ReplaceNextHops(t.Context(), ns, put(hops, at, NextHop{ID: 6, Blackhole: true})...); err == nil || !strings.Contains(err.Error(), "id 6") {
				t.Errorf("ReplaceNextHops: %v", err)
			}
			if err := DeleteNextHops(t.Context(), ns, put([]uint32{1, 2}, at, 77)...); err == nil || !strings.Contains(err.Error(), "77") {
				t.Errorf("DeleteNextHops: %v", err)
			}
			if diff := differs(before, everything(t, ns)); diff != "" {
				t.Fatalf("ip shows\n%s", diff)
			}
		})
	}
}

// A rule is deleted as it was listed, though others of its priority have more
// selectors, and their order stays.
func TestDeleteRulesExactly(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	// ip adds the rule that is open last: the kernel would say that it is there.
	for _, cmd := range []string{
		"rule add pref 100 table 100 protocol 77", "rule add pref 100 from 10.2.0.0/16 table 100 protocol 77",
		"rule add pref 100 not to 10.3.0.0/16 table 100 protocol 77", "rule add pref 100 fwmark 1 table 101 protocol 99",
	} {
		testutil.Run(t, ns, "ip", strings.Fields(cmd)...)
	}
	listed, err := ListRules(t.Context(), ns, IPv4)
	if err != nil {
		t.Fatal(err)
	}
	open := listed[1]
	conn, err := nsconn.Shared(ns, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Now the open one stands behind the others.
	if err := conn.Call(t.Context(), open.request(nil, verbAppend), nil); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "ip", "rule", "del", "pref", "100", "from", "0/0", "table", "100", "protocol", "77")
	if err := DeleteRules(t.Context(), ns, open); err != nil {
		t.Fatal(err)
	}
	rules := ipRules(t, ns)
	if len(rules) != 3 || rules[0]["src"] != "10.2.0.0" || rules[1]["dst"] != "10.3.0.0" || rules[2]["fwmark"] != "0x1" {
		t.Errorf("ip shows %v", rules)
	}
	// SyncRules deletes exactly, too.
	if err := conn.Call(t.Context(), open.request(nil, verbAppend), nil); err != nil {
		t.Fatal(err)
	}
	keep := listed[2:4]
	if did, err := SyncRules(t.Context(), ns, 77, keep...); err != nil || did != (Changes{Deleted: 1}) {
		t.Errorf("SyncRules: %+v, %v", did, err)
	}
	if rules := ipRules(t, ns); len(rules) != 3 || rules[0]["src"] != "10.2.0.0" || rules[1]["dst"] != "10.3.0.0" {
		t.Errorf("after SyncRules ip shows %v", rules)
	}
}
