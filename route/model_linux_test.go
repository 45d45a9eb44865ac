package route

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// A model holds what a watch has yielded: Present and Changed come, Deleted goes.
type model[T Route | Rule | NextHop] struct {
	mu     sync.Mutex
	what   string
	have   map[string]string // by what the item is known by, all of it
	synced bool
	err    error
	moved  chan struct{} // something was yielded
	known  func(T) string
	whole  func(T) string
	list   func() ([]T, error)
	trace  []string
}

// run follows the events until the context ends.
func (m *model[T]) run(seq iter.Seq2[Event[T], error]) {
	for e, err := range seq {
		m.mu.Lock()
		m.trace = append(m.trace, fmt.Sprintf("%s %s", e.Kind, m.whole(e.Item)))
		switch m.err = err; {
		case err != nil:
		case e.Kind == EventResync:
			m.have, m.synced = map[string]string{}, false
		case e.Kind == EventSynced:
			m.synced = true
		case e.Kind == EventDeleted:
			delete(m.have, m.known(e.Item))
		default:
			m.have[m.known(e.Item)] = m.whole(e.Item)
		}
		m.mu.Unlock()
		select {
		case m.moved <- struct{}{}:
		default:
		}
	}
}

// settles waits until the model is what the list says.
func (m *model[T]) settles(t *testing.T, did string) bool {
	t.Helper()
	bound := time.After(20 * time.Second)
	for {
		items, err := m.list()
		want := []string{}
		for _, i := range items {
			want = append(want, m.whole(i))
		}
		slices.Sort(want)
		m.mu.Lock()
		have := slices.Sorted(maps.Values(m.have))
		same := m.synced && slices.Equal(have, want)
		failed, trace := m.err, slices.Clone(m.trace[max(len(m.trace)-12, 0):])
		m.mu.Unlock()
		if err != nil || failed != nil {
			t.Errorf("%s: %v, %v", m.what, err, failed)
			return false
		}
		if same {
			return true
		}
		select {
		case <-m.moved:
		case <-time.After(50 * time.Millisecond): // the list may have changed
		case <-bound:
			t.Errorf("%s, after %s: yielded\n  %s\nlisted\n  %s\nlast yielded:\n  %s", m.what, did, strings.Join(have, "\n  "), strings.Join(want, "\n  "), strings.Join(trace, "\n  "))
			return false
		}
	}
}

type settler interface {
	settles(t *testing.T, did string) bool
}

func startModel[T Route | Rule | NextHop](t *testing.T, what string, seq func(context.Context) iter.Seq2[Event[T], error], list func() ([]T, error), known, whole func(T) string) settler {
	m := &model[T]{what: what, have: map[string]string{}, moved: make(chan struct{}, 1), known: known, whole: whole, list: list}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.run(seq(ctx))
	}()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

// routeModel follows the routes that a filter chooses.
func routeModel(t *testing.T, ns *netns.NS, f Filter) settler {
	whole := func(r Route) string { r.Expires = 0; return r.String() + fmt.Sprint(" table ", r.Table) }
	known := func(r Route) string {
		r.Flags = 0
		r.Hops = slices.Clone(r.Hops)
		for i := range r.Hops {
			r.Hops[i].Flags = 0
		}
		return whole(r)
	}
	return startModel(t, fmt.Sprintf("%+v", f), func(ctx context.Context) iter.Seq2[Event[Route], error] { return Watch(ctx, ns, f) }, func() ([]Route, error) {
		return List(t.Context(), ns, f)
	}, known, whole)
}

// routeChange returns one random change, in the words of ip -batch.
func routeChange(rnd *rand.Rand, six bool) string {
	one := func(of ...string) string { return of[rnd.Intn(len(of))] }
	fam, dst, via := "", one("10.9.0.0/16", "10.8.0.0/16", "10.7.0.1"), func() string { return one("10.1.0.3", "10.1.0.4", "10.2.0.3") }
	if six {
		fam, dst, via = "-6 ", one("fd09::/64", "fd08::/64", "fd07::1"), func() string { return one("fd01::3", "fd01::4", "fd02::3") }
	}
	more := one("", "", " metric 50") + one("", "", "", " table 100") + one("", " proto 77", " proto 99")
	verb := one("add", "replace", "replace", "append", "append", "prepend", "del", "del", "change")
	switch rnd.Intn(12) {
	case 0:
		return fam + "route " + verb + " " + dst + more + " nexthop via " + via() + " nexthop via " + via()
	case 1:
		return fam + "route " + verb + " blackhole " + dst + more
	case 2:
		return fam + "route " + verb + " " + dst + " dev " + one("v0", "w0") + more
	case 3:
		return fam + "route " + verb + " " + dst + more + " nhid " + one("7", "8")
	case 4:
		if six {
			return "nexthop " + one("replace", "replace", "del") + " id " + one("7 via fd01::3 dev v0", "7 via fd02::3 dev w0", "8 via fd01::4 dev v0")
		}
		return "nexthop " + one("replace", "replace", "del") + " id " + one("7 via 10.1.0.3 dev v0", "7 via 10.2.0.3 dev w0", "8 via 10.1.0.4 dev v0")
	case 5:
		return "link set " + one("v0", "w0", "v1", "w1") + " " + one("down", "up", "up")
	case 6:
		if six {
			return "-6 addr " + one("add", "del") + " fd01::9/64 dev v0" + one("", " nodad")
		}
		return "addr " + one("add", "del") + " 10.1.0.9/16 dev v0"
	case 7:
		return fam + "route " + one("add", "replace") + " " + dst + " via " + via() + " src " + map[bool]string{true: "fd01::9", false: "10.1.0.9"}[six] + more
	case 8:
		return fam + "route del " + dst
	}
	return fam + "route " + verb + " " + dst + " via " + via() + more
}

// Who applies the events of a watch has what List returns, whatever happens, with
// every filter.
func TestWatchIsTrue(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	seeds := 20
	if testing.Short() {
		seeds = 3
	}
	for _, six := range []bool{false, true} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%v/%d", map[bool]string{true: "IPv6", false: "IPv4"}[six], seed), func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewSource(int64(seed)))
				ns := netnstest.New(t)
				reset := []string{
					"link set v0 up", "link set v1 up", "link set w0 up", "link set w1 up", "addr replace 10.1.0.2/16 dev v0", "addr replace 10.2.0.2/16 dev w0",
					"-6 addr replace fd01::2/64 dev v0 nodad", "-6 addr replace fd02::2/64 dev w0 nodad",
				}
				for _, cmd := range append([]string{
					"link add v0 index 100 type veth peer name v1 index 101", "link add w0 index 200 type veth peer name w1 index 201",
					"link set v0 addrgenmode none", "link set v1 addrgenmode none", "link set w0 addrgenmode none", "link set w1 addrgenmode none",
				}, reset...) {
					testutil.Run(t, ns, "ip", strings.Fields(cmd)...)
				}
				if seed%2 == 1 { // IPv6 routes go without a word, too
					_ = ns.SetSysctl(t.Context(), "net/ipv6/route/skip_notify_on_dev_down", "1")
					_ = ns.SetSysctl(t.Context(), "net/ipv4/nexthop_compat_mode", "0")
				}
				change := func() string { // a few changes at once
					cmds := []string{}
					for range 1 + rnd.Intn(3) {
						cmd := routeChange(rnd, six)
						cmds = append(cmds, cmd)
						_, _ = testutil.Try(t, ns, "ip", strings.Fields(cmd)...) // some are refused
					}
					return strings.Join(cmds, "; ")
				}
				for range 5 { // before the watches begin
					change()
				}
				f := IPv4
				if six {
					f = IPv6
				}
				models := []settler{}
				for _, filter := range []Filter{
					{}, {Family: f}, {Table: TableMain}, {Family: f, Table: 100}, {Protocol: 77}, {Family: f, Protocol: 99}, {Dev: 100}, {Dev: 200, Family: f},
					{Type: TypeUnicast}, {Type: TypeBlackhole, Family: f}, {Protocol: 77, Dev: 100, Table: TableMain},
				} {
					models = append(models, routeModel(t, ns, filter))
				}
				models = append(models, startModel(t, "next hops", func(ctx context.Context) iter.Seq2[Event[NextHop], error] { return WatchNextHops(ctx, ns) },
					func() ([]NextHop, error) { return ListNextHops(t.Context(), ns, NextHopFilter{}) },
					func(n NextHop) string { return fmt.Sprint(n.ID) }, func(n NextHop) string { return n.String() }))
				log := []string{}
				for range 15 {
					log = append(log, change())
					for _, m := range models {
						if !m.settles(t, strings.Join(log[max(len(log)-9, 0):], "\n")) {
							return
						}
					}
					if rnd.Intn(3) == 0 {
						for _, cmd := range reset {
							log = append(log, cmd)
							testutil.Run(t, ns, "ip", strings.Fields(cmd)...)
						}
					}
				}
			})
		}
	}
}

// ruleChange returns one random change, in the words of ip.
func ruleChange(rnd *rand.Rand) string {
	one := func(of ...string) string { return of[rnd.Intn(len(of))] }
	pref := one(" pref 10", " pref 20", " pref 30", "")
	switch rnd.Intn(6) {
	case 0:
		return "link add " + one("a0", "b0") + " type bridge"
	case 1:
		return "link del " + one("a0", "b0")
	case 2:
		return "link set " + one("a0 name b0", "b0 name a0", "a0 up", "b0 down")
	case 3:
		return one("-4", "-6") + " rule " + one("add", "del") + pref + " iif " + one("a0", "b0") + " table 100"
	case 4:
		return one("-4", "-6") + " rule " + one("add", "add", "del") + one(" pref 5", " pref 6") + " goto " + one("10", "20", "30")
	}
	return one("-4", "-6") + " rule " + one("add", "add", "del") + pref + " fwmark 3 " + one("table 100", "blackhole", "nop")
}

func TestWatchRulesIsTrue(t *testing.T) {
	t.Parallel()
	seeds := 20
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewSource(int64(seed)))
			ns := netnstest.New(t)
			change := func() string {
				cmd := ruleChange(rnd)
				_, _ = testutil.Try(t, ns, "ip", strings.Fields(cmd)...)
				return cmd
			}
			for range 5 {
				change()
			}
			whole := func(r Rule) string { return fmt.Sprint(r.Family, " ", r, " ", r.Detached) }
			models := []settler{}
			for _, f := range []Family{0, IPv4, IPv6} {
				models = append(models, startModel(t, fmt.Sprint(f), func(ctx context.Context) iter.Seq2[Event[Rule], error] { return WatchRules(ctx, ns, f) },
					func() ([]Rule, error) { return ListRules(t.Context(), ns, f) },
					func(r Rule) string { r.Detached = false; return whole(r) }, whole))
			}
			log := []string{}
			for range 25 {
				log = append(log, change())
				for _, m := range models {
					if !m.settles(t, strings.Join(log[max(len(log)-9, 0):], "\n")) {
						return
					}
				}
			}
		})
	}
}
