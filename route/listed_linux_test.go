package route

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// made runs ip for each command and returns those that this ip and kernel take.
func made(t *testing.T, ns *netns.NS, before string, cmds []string) (took []string) {
	t.Helper()
	for _, cmd := range cmds {
		out, err := testutil.Try(t, ns, "ip", strings.Fields(before+cmd)...)
		if err != nil {
			t.Logf("not here: %s: %s", cmd, strings.TrimSpace(out))
			continue
		}
		took = append(took, cmd)
	}
	return took
}

// ruleSelectors are one rule of each selector, in the words of ip-rule(8).
var ruleSelectors = map[string][]string{
	"both": {
		"pref 0 table 100", "pref 0 fwmark 1 table 100", "pref 1 table 100", "pref 4294967295 table 100", "table 100", "table 70000",
		"not pref 20 fwmark 9 table 100", "fwmark 1 table 100", "fwmark 1/0 table 101", "fwmark 1/0x1 table 102", "fwmark 0x11/0x10 table 103",
		"fwmark 0/0xff table 104", "fwmark 0 table 105", "fwmark 0x1/0xffffffff table 106", "iif lo table 107", "iif gone0 table 108",
		"oif v0 table 109", "uidrange 0-0 table 110", "ipproto tcp table 111", "ipproto udp sport 53 table 112", "ipproto udp dport 100-200 table 113",
		"ipproto icmp table 114", "tos 0x10 table 115", "suppress_prefixlength 0 table main", "suppress_prefixlength 128 table main",
		"suppress_ifgroup 0 table main", "suppress_ifgroup 7 table main", "suppress_prefixlength 8 suppress_ifgroup 7 table main",
		"pref 31 blackhole", "pref 32 unreachable", "pref 33 prohibit", "pref 34 nop", "pref 35 goto 32766", "pref 36 goto 40",
		"l3mdev pref 37", "pref 38 table local", "pref 39 table main protocol 99", "pref 40 table default protocol kernel",
		"dscp 46 table 116", "dscp 8/0x38 table 117", "dscp 0/0 table 118", "dscp 0 table 119",
		"ipproto udp dport 80/0xfff0 table 120",
	},
	"-4": {
		"from 10.1.0.0/16 table 100", "from 10.1.0.0/16 to 10.2.0.0/24 table 101", "to 10.2.0.1 table 102", "from 0/0 to 0/0 table 103",
		"not from 10.3.0.0/16 table 104", "from 10.4.0.0/16 realms 3/4 table 105", "from 10.5.0.0/16 realms 4 table 106", "tun_id 77 table 107",
	},
	"-6": {
		"from fd01::/64 table 100", "from fd01::/64 to fd02::/64 table 101", "to fd02::1 table 102", "from ::/0 table 103",
		"not from fd03::/64 table 104", "flowlabel 0x12345 table 105", "flowlabel 0x12300/0xfff00 table 106",
	},
}

// A rule that ip made is deleted, added and left by a sync as listed.
func TestListedRulesCanBeUsed(t *testing.T) {
	t.Parallel()
	for _, family := range []string{"-4", "-6"} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			cmds := slices.Concat(ruleSelectors["both"], ruleSelectors[family])
			ours := Family(family[1] - '0')
			kernels := map[Family]int{IPv4: 3, IPv6: 2}[ours]
			for i, cmd := range cmds {
				if !testutil.Spread(i, 3) {
					continue
				}
				if len(made(t, ns, family+" rule add ", []string{cmd})) == 0 {
					continue
				}
				t.Run(cmd, func(t *testing.T) {
					before := shown(t, ns, family+" rule")
					listed, err := ListRules(t.Context(), ns, ours)
					if err != nil {
						t.Fatal(err)
					}
					mine := slices.DeleteFunc(slices.Clone(listed), func(r Rule) bool {
						return r.Protocol == ProtoKernel && (r.First || r.Priority == 32766 || r.Priority == 32767)
					})
					if len(mine) != 1 {
						t.Fatalf("listed %v", mine)
					}
					rule := mine[0]
					if again := rule.as(&rule); !again.Equal(rule) {
						t.Errorf("%v is not equal to itself", rule)
					}
					if err := AddRules(t.Context(), ns, rule); !errors.Is(err, os.ErrExist) {
						t.Errorf("added as listed: %v", err)
					}
					if diff := differs(before, shown(t, ns, family+" rule")); diff != "" {
						t.Fatalf("after AddRules ip shows\n%s", diff)
					}
					if rule.Protocol == ProtoUnspec { // a sync has an owner of its own
						testutil.Run(t, ns, "ip", strings.Fields(family+" rule add "+cmd+" protocol 77")...)
						owned := rule
						owned.Protocol = 77
						if listed, err = ListRules(t.Context(), ns, ours); err != nil {
							t.Fatal(err)
						}
						for _, r := range listed {
							if r.Protocol == 77 {
								owned = r
							}
						}
						both := shown(t, ns, family+" rule")
						if did, err := SyncRules(t.Context(), ns, 77, owned); err != nil || did != (Changes{}) {
							t.Errorf("synced as listed: %+v, %v", did, err)
						}
						if diff := differs(both, shown(t, ns, family+" rule")); diff != "" {
							t.Fatalf("after SyncRules ip shows\n%s", diff)
						}
						if did, err := SyncRules(t.Context(), ns, 77); err != nil || did != (Changes{Deleted: 1}) {
							t.Errorf("synced away: %+v, %v", did, err)
						}
						if diff := differs(before, shown(t, ns, family+" rule")); diff != "" {
							t.Fatalf("after the sync that deletes, ip shows\n%s", diff)
						}
					}
					if err := DeleteRules(t.Context(), ns, rule); err != nil {
						t.Errorf("deleted as listed: %v", err)
					}
					if got := shown(t, ns, family+" rule"); strings.Count(got, `"priority"`) != kernels {
						t.Fatalf("after DeleteRules ip shows\n%s", got)
					}
					if err := AddRules(t.Context(), ns, rule); err != nil {
						t.Errorf("added when it is gone: %v", err)
					}
					if diff := differs(before, shown(t, ns, family+" rule")); diff != "" {
						t.Fatalf("added back, ip shows\n%s", diff)
					}
					if err := DeleteRules(t.Context(), ns, rule); err != nil {
						t.Fatal(err)
					}
				})
			}
		})
	}
}

// A zero field of a rule to delete matches any value, the action as well.
func TestDeleteRulesByLittle(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, family := range []string{"-4", "-6"} {
		for _, act := range []string{"blackhole", "unreachable", "prohibit", "nop", "goto 32766", "table 100", "table local"} {
			t.Run(family+act, func(t *testing.T) {
				t.Parallel()
				ns := netnstest.New(t)
				before := shown(t, ns, "-4 rule", "-6 rule")
				f := Family(family[1] - '0')
				testutil.Run(t, ns, "ip", strings.Fields(family+" rule add pref 9 fwmark 3 "+act)...)
				if err := DeleteRules(t.Context(), ns, Rule{Family: f, Priority: 9}); err != nil {
					t.Error(err)
				}
				testutil.Run(t, ns, "ip", strings.Fields(family+" rule add pref 9 fwmark 3 "+act)...)
				if err := DeleteRules(t.Context(), ns, Rule{Family: f, Mark: 3}); err != nil {
					t.Error(err)
				}
				if diff := differs(before, shown(t, ns, "-4 rule", "-6 rule")); diff != "" {
					t.Errorf("ip shows\n%s", diff)
				}
			})
		}
	}
}

// The kernel's rule at 0 goes only when it is meant, and comes back.
func TestRuleAtZero(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, f := range []Family{IPv4, IPv6} {
		t.Run(fmt.Sprint(f), func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			before := shown(t, ns, "-4 rule", "-6 rule")
			for _, r := range []Rule{
				{Family: f}, {Family: f, Action: ActionToTable}, {Family: f, Protocol: ProtoKernel}, {Family: f, Not: true},
				{Family: f, MarkMask: new(uint32(0))}, {Family: f, From: Default(map[Family]netip.Addr{IPv4: addr("10.0.0.1"), IPv6: addr("fd00::1")}[f]).Dst},
			} {
				if err := DeleteRules(t.Context(), ns, r); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "every rule") {
					t.Errorf("%+v: %v", r, err)
				}
			}
			if diff := differs(before, shown(t, ns, "-4 rule", "-6 rule")); diff != "" {
				t.Fatalf("ip shows\n%s", diff)
			}
			listed, err := ListRules(t.Context(), ns, f)
			if err != nil || !listed[0].First || listed[1].First {
				t.Fatalf("listed %v, %v", listed, err)
			}
			if err := DeleteRules(t.Context(), ns, Rule{Family: f, First: true}); err != nil {
				t.Fatal(err)
			}
			if got := shown(t, ns, "-4 rule", "-6 rule"); strings.Count(got, `"priority":0,`) != 1 {
				t.Fatalf("ip shows\n%s", got)
			}
			if err := AddRules(t.Context(), ns, listed[0]); err != nil {
				t.Fatal(err)
			}
			if diff := differs(before, shown(t, ns, "-4 rule", "-6 rule")); diff != "" {
				t.Errorf("ip shows\n%s", diff)
			}
			if err := AddRules(t.Context(), ns, Rule{Family: f, First: true, Priority: 1, Table: 100}); !errors.Is(err, os.ErrInvalid) {
				t.Errorf("two places: %v", err)
			}
		})
	}
}

// listedRoutes are routes of each kind, in the words of ip-route(8).
var listedRoutes = map[string][]string{
	"-4": {
		"10.9.0.0/16 via 10.1.0.3", "10.9.0.0/16 via 10.1.0.3 metric 7 table 100", "10.9.0.0/16 dev v0", "10.9.0.0/16 dev v0 scope global",
		"10.9.0.1 dev v0 scope host", "10.9.0.0/16 dev v0 src 10.1.0.2 proto 99", "10.9.0.0/16 via 10.1.0.3 proto 0", "default via 10.1.0.1",
		"10.9.0.0/16 tos 0x10 via 10.1.0.3", "10.9.0.0/16 via 192.0.2.1 dev v0 onlink", "10.9.0.0/16 via inet6 fd01::3 dev v0",
		"10.9.0.0/16 via 10.1.0.3 realm 3/4", "10.9.0.0/16 via 10.1.0.3 mtu lock 1400 advmss 1200 window 5 rtt 100ms rttvar 20ms rto_min 50ms ssthresh 4 cwnd lock 9 initcwnd 10 initrwnd 20 reordering 5 hoplimit 7 quickack 1 features ecn",
		"10.9.0.0/16 via 10.1.0.3 congctl cubic", "10.9.0.0/16 via 10.1.0.3 congctl lock reno", "10.9.0.0/16 via 10.1.0.3 fastopen_no_cookie 1",
		"blackhole 10.9.0.0/16", "unreachable 10.9.0.0/16 metric 5", "prohibit 10.9.0.0/16 table 70000", "throw 10.9.0.0/16 table 100",
		"local 10.9.0.0/16 dev lo", "local 10.9.0.1 dev lo table 100 src 10.1.0.2", "broadcast 10.9.255.255 dev v0", "multicast 239.1.0.0/16 dev v0 table 100",
		"10.9.0.0/16 nexthop via 10.1.0.3 weight 2 nexthop via 10.1.0.4 weight 256", "10.9.0.0/16 nexthop via 192.0.2.1 dev v0 onlink nexthop dev v0 weight 3",
		"10.9.0.0/16 nexthop via 10.1.0.3 realm 3 nexthop via inet6 fd01::3 dev v0", "10.9.0.0/16 nhid 5", "10.9.0.0/16 nhid 6", "10.9.0.0/16 nhid 7", "10.9.0.0/16 nhid 8",
		"10.9.0.0/16 encap ip id 7 dst 192.0.2.2 ttl 9 dev v0", "10.9.0.0/16 encap ip id 7 src 192.0.2.1 dst 192.0.2.2 tos 4 dev v0",
	},
	"-6": {
		"fd09::/64 via fd01::3", "fd09::/64 via fd01::3 metric 7 table 100", "fd09::/64 dev v0", "fd09::1 dev v0", "fd09::/64 via fe80::1 dev v0",
		"fd09::/64 dev v0 src fd01::2 proto 99", "default via fd01::1", "default dev v0",
		"fd09::/64 via fd77::1 dev v0 onlink", "fd09::/64 from fd01::/64 via fd01::3", "default from fd01::/64 via fd01::3",
		"fd09::/64 via fd01::3 mtu 1400 hoplimit 7 advmss 1200 features ecn", "fd09::/64 via fd01::3 mtu lock 1400", "fd09::/64 via fd01::3 pref high", "fd09::/64 via fd01::3 pref low",
		"fd09::/64 via fd01::3 expires 1000", "blackhole fd09::/64", "unreachable fd09::/64 metric 5", "prohibit fd09::/64 table 70000", "throw fd09::/64 table 100",
		"local fd09::1 dev lo", "anycast fd09::1 dev v0", "multicast ff0e::/64 dev v0 table 100",
		"fd09::/64 nexthop via fd01::3 weight 2 nexthop via fd01::4 weight 256", "fd09::/64 nexthop via fe80::1 dev v0 nexthop via fe80::2 dev v0",
		"fd09::/64 nexthop via fd77::1 dev v0 onlink nexthop via fd01::3 dev v0", "fd09::/64 nhid 9", "fd09::/64 nhid 10", "fd09::/64 nhid 11",
		"fd09::/64 encap ip6 id 7 dst fd02::2 hoplimit 9 dev v0", "fd09::/64 encap seg6 mode encap segs fd02::1,fd02::2 dev v0", "fd09::/64 encap seg6local action End dev v0",
	},
}

// listedNextHops are objects of each kind, in the words of ip-nexthop(8).
var listedNextHops = []string{
	"id 21 via 10.1.0.3 dev v0", "id 4294967295 via fd01::3 dev v0", "id 22 dev v0", "-6 id 22 dev v0", "id 23 blackhole", "-6 id 23 blackhole",
	"id 24 via 192.0.2.1 dev v0 onlink", "id 24 via fe80::1 dev v0", "id 25 group 5", "id 25 group 5,2/12,3", "id 26 via 10.1.0.3 dev v0 proto 99",
	"id 27 via 10.1.0.3 fdb", "id 28 group 5/12 type resilient buckets 8", "id 28 group 5,4/12 type resilient buckets 8 idle_timer 60 unbalanced_timer 300",
	"id 29 encap ip id 7 dst 192.0.2.2 dev v0",
}

// hopped is a namespace with a link and next-hop objects to refer to.
func hopped(t *testing.T) *netns.NS {
	ns := box(t)
	for _, cmd := range []string{
		"nexthop add id 5 via 10.1.0.9 dev v0", "nexthop add id 12 via 10.1.0.8 dev v0", "nexthop add id 6 group 5/12", "nexthop add id 7 blackhole",
		"nexthop add id 8 via fd01::9 dev v0", "nexthop add id 9 via fd01::8 dev v0", "nexthop add id 10 group 8/9", "-6 nexthop add id 11 blackhole",
	} {
		testutil.Run(t, ns, "ip", strings.Fields(cmd)...)
	}
	return ns
}

// A route that ip made is deleted, added and left by a sync as listed, and
// its text is read back.
func TestListedRoutesCanBeUsed(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, family := range []string{"-4", "-6"} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			ns := hopped(t)
			// From here on nothing but the routes of this test changes.
			empty := ownRoutes(t, ns, family)
			for i, cmd := range listedRoutes[family] {
				if !testutil.Spread(i, 3) {
					continue
				}
				owned := cmd
				if !strings.Contains(cmd, " proto ") {
					owned = cmd + " proto 77"
					if before, after, multi := strings.Cut(cmd, " nexthop "); multi {
						owned = before + " proto 77 nexthop " + after
					}
				}
				if len(made(t, ns, family+" route add ", []string{owned})) == 0 {
					continue
				}
				t.Run(cmd, func(t *testing.T) {
					before := ownRoutes(t, ns, family)
					mine := func() (mine []Route) {
						all, err := List(t.Context(), ns, Filter{Family: Family(family[1] - '0')})
						if err != nil {
							t.Fatal(err)
						}
						for _, r := range all {
							if p := r.Protocol; p == 77 || p == 99 || p == ProtoUnspec && r.Dst == prefix("10.9.0.0/16") {
								mine = append(mine, r)
							}
						}
						return mine
					}
					listed := mine()
					if len(listed) != 1 {
						t.Fatalf("listed %v", listed)
					}
					r := listed[0]
					if back, err := Parse(r.String()); err != nil || !back.Equal(r) {
						t.Errorf("%s is read back as %v, %v", r, back, err)
					}
					if err := Add(t.Context(), ns, r); !errors.Is(err, os.ErrExist) {
						t.Errorf("added as listed: %v", err)
					}
					if err := Replace(t.Context(), ns, r); err != nil {
						t.Errorf("replaced as listed: %v", err)
					}
					if r.Protocol != ProtoUnspec {
						if did, err := Sync(t.Context(), ns, r.Protocol, r); err != nil || did != (Changes{}) {
							t.Errorf("synced as listed: %+v, %v", did, err)
						}
					}
					if diff := differs(before, ownRoutes(t, ns, family)); diff != "" {
						t.Fatalf("ip shows\n%s", diff)
					}
					if err := Delete(t.Context(), ns, r); err != nil {
						t.Errorf("deleted as listed: %v", err)
					}
					if diff := differs(empty, ownRoutes(t, ns, family)); diff != "" {
						t.Fatalf("deleted, ip shows\n%s", diff)
					}
					if err := Add(t.Context(), ns, r); err != nil {
						t.Errorf("added when it is gone: %v", err)
					}
					if diff := differs(before, ownRoutes(t, ns, family)); diff != "" {
						t.Fatalf("added back, ip shows\n%s", diff)
					}
					if r.Protocol == ProtoUnspec {
						if err := Delete(t.Context(), ns, r); err != nil {
							t.Fatal(err)
						}
					} else if did, err := Sync(t.Context(), ns, r.Protocol); err != nil || did != (Changes{Deleted: 1}) {
						t.Errorf("synced away: %+v, %v", did, err)
					}
					if diff := differs(empty, ownRoutes(t, ns, family)); diff != "" {
						t.Fatalf("synced away, ip shows\n%s", diff)
					}
				})
			}
		})
	}
}

// ownRoutes is what ip shows of routes that the kernel did not make; what is left
// of a life is not compared.
func ownRoutes(t testing.TB, ns *netns.NS, family string) string {
	var b strings.Builder
	for line := range strings.Lines(shown(t, ns, family+" route show table all")) {
		if !strings.Contains(line, `"protocol":"kernel"`) {
			b.WriteString(expiry.ReplaceAllString(line, ""))
		}
	}
	return b.String()
}

var expiry = regexp.MustCompile(`"expires":\d+,`)

// A next hop that ip made is deleted, added and replaced as listed.
func TestListedNextHopsCanBeUsed(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := hopped(t)
	empty := shown(t, ns, "nexthop")
	for _, cmd := range listedNextHops {
		family := ""
		if rest, six := strings.CutPrefix(cmd, "-6 "); six {
			family, cmd = "-6 ", rest
		}
		if len(made(t, ns, family+"nexthop add ", []string{cmd})) == 0 {
			continue
		}
		t.Run(family+cmd, func(t *testing.T) {
			before := shown(t, ns, "nexthop")
			all, err := ListNextHops(t.Context(), ns, NextHopFilter{})
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(all, func(n NextHop) bool { return n.ID > 20 })
			if i < 0 {
				t.Fatalf("listed %v", all)
			}
			n := all[i]
			if err := AddNextHops(t.Context(), ns, n); !errors.Is(err, os.ErrExist) {
				t.Errorf("added as listed: %v", err)
			}
			if err := ReplaceNextHops(t.Context(), ns, n); err != nil {
				t.Errorf("replaced as listed: %v", err)
			}
			if diff := differs(before, shown(t, ns, "nexthop")); diff != "" {
				t.Fatalf("ip shows\n%s", diff)
			}
			if err := DeleteNextHops(t.Context(), ns, n.ID); err != nil {
				t.Error(err)
			}
			if diff := differs(empty, shown(t, ns, "nexthop")); diff != "" {
				t.Fatalf("deleted, ip shows\n%s", diff)
			}
			if err := AddNextHops(t.Context(), ns, n); err != nil {
				t.Errorf("added when it is gone: %v", err)
			}
			if diff := differs(before, shown(t, ns, "nexthop")); diff != "" {
				t.Fatalf("added back, ip shows\n%s", diff)
			}
			if err := DeleteNextHops(t.Context(), ns, n.ID); err != nil {
				t.Fatal(err)
			}
		})
	}
}
