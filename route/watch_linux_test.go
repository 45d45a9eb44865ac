package route

import (
	"context"
	"errors"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// A watched is a watch that a test reads event by event.
type watched[T Route | Rule | NextHop] struct {
	t    *testing.T
	next func() (Event[T], error, bool)
	have map[string]bool // the items that are there, by what of says
	of   func(T) string
	n    map[EventKind]int
}

func follow[T Route | Rule | NextHop](t *testing.T, seq func(context.Context) iter.Seq2[Event[T], error], of func(T) string) *watched[T] {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // a bound
	t.Cleanup(cancel)
	next, stop := iter.Pull2(seq(ctx))
	t.Cleanup(stop)
	w := &watched[T]{t: t, next: next, of: of, n: map[EventKind]int{}}
	w.until("synced", func() bool { return w.n[EventSynced] == 1 })
	return w
}

// until reads events until done says so.
func (w *watched[T]) until(what string, done func() bool) {
	w.t.Helper()
	for !done() {
		e, err, ok := w.next()
		if err != nil || !ok {
			w.t.Fatalf("waiting for %s: %v; %v is there", what, err, w.have)
		}
		w.n[e.Kind]++
		switch e.Kind {
		case EventResync:
			w.have = nil
		case EventPresent, EventChanged:
			if w.have == nil {
				w.have = map[string]bool{}
			}
			w.have[w.of(e.Item)] = true
		case EventDeleted:
			delete(w.have, w.of(e.Item))
		}
	}
}

func (w *watched[T]) has(what string, yes bool) {
	w.t.Helper()
	w.until(what, func() bool { return w.have[what] == yes && w.n[EventSynced] > w.n[EventResync] })
}

func TestWatch(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	if err := Add(t.Context(), ns, Default(addr("10.1.0.1"))); err != nil {
		t.Fatal(err)
	}
	dst := func(r Route) string { return r.Dst.String() }
	w := follow(t, func(ctx context.Context) iter.Seq2[Event[Route], error] {
		return Watch(ctx, ns, Filter{Table: TableMain})
	}, dst)
	if !w.have["0.0.0.0/0"] || !w.have["10.1.0.0/16"] || !w.have["fd01::/64"] || w.have["127.0.0.0/8"] {
		t.Errorf("it begins with %v", w.have)
	}
	testutil.Run(t, ns, "ip", "route", "add", "10.9.0.0/16", "via", "10.1.0.3")
	w.has("10.9.0.0/16", true)
	testutil.Run(t, ns, "ip", "route", "add", "10.10.0.0/16", "via", "10.1.0.3", "table", "100") // not chosen
	testutil.Run(t, ns, "ip", "-6", "route", "add", "fd09::/64", "via", "fd01::3")
	w.has("fd09::/64", true)
	if w.have["10.10.0.0/16"] {
		t.Error("a route of another table was yielded")
	}
	testutil.Run(t, ns, "ip", "route", "del", "10.9.0.0/16")
	w.has("10.9.0.0/16", false)
	if w.n[EventResync] != 0 {
		t.Errorf("%d resyncs", w.n[EventResync])
	}
}

// The kernel takes IPv4 routes away without a word.
func TestWatchSeesWhatGoesInSilence(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, act := range map[string]string{
		"link down":    "link set v0 down",
		"link deleted": "link del v0",
		"address":      "addr del 10.1.0.2/16 dev v0",
		"next hop":     "nexthop del id 7",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := box(t)
			testutil.Run(t, ns, "ip", "nexthop", "add", "id", "7", "via", "10.1.0.1", "dev", "v0")
			if err := Add(t.Context(), ns, Route{Dst: prefix("10.9.0.0/16"), NextHop: 7}, Route{Dst: prefix("10.8.0.0/16"), Dev: 100, Src: addr("10.1.0.2")}, Route{Dst: prefix("fd09::/64"), Via: addr("fd01::3")}); err != nil {
				t.Fatal(err)
			}
			w := follow(t, func(ctx context.Context) iter.Seq2[Event[Route], error] { return Watch(ctx, ns, Filter{}) }, func(r Route) string { return r.Dst.String() })
			if !w.have["10.9.0.0/16"] || !w.have["10.8.0.0/16"] {
				t.Fatalf("it begins with %v", w.have)
			}
			testutil.Run(t, ns, "ip", strings.Fields(act)...)
			left := map[string]bool{}
			for _, r := range ipRoutes(t, ns, TableMain) {
				left[r["dst"].(string)] = true
			}
			for _, dst := range []string{"10.9.0.0/16", "10.8.0.0/16", "fd09::/64"} {
				w.has(dst, left[dst])
			}
			if left["10.9.0.0/16"] && left["10.8.0.0/16"] {
				t.Error("nothing went")
			}
		})
	}
}

// A watcher that does not read while 20,000 routes come and go sees the end state.
func TestWatchRecoversFromALoss(t *testing.T) {
	t.Parallel()
	ns := box(t)
	w := follow(t, func(ctx context.Context) iter.Seq2[Event[Route], error] {
		return Watch(ctx, ns, Filter{Table: TableMain})
	}, func(r Route) string { return r.Dst.String() })
	routes := hosts(IPv4, 20000)
	if err := Add(t.Context(), ns, routes...); err != nil {
		t.Fatal(err)
	}
	if err := Delete(t.Context(), ns, routes[:19999]...); err != nil {
		t.Fatal(err)
	}
	w.until("a resync", func() bool { return w.n[EventResync] > 0 && w.n[EventSynced] > w.n[EventResync] })
	w.has(routes[19999].Dst.String(), true)
	for _, r := range routes[:19999] {
		if w.have[r.Dst.String()] {
			t.Fatalf("%v is still there", r)
		}
	}
}

func TestWatchRules(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	w := follow(t, func(ctx context.Context) iter.Seq2[Event[Rule], error] { return WatchRules(ctx, ns, 0) }, func(r Rule) string { r.Protocol = 0; return r.String() })
	if len(w.have) != 3 || !w.have["0: from all lookup local"] { // both families' are alike
		t.Errorf("it begins with %v", w.have)
	}
	testutil.Run(t, ns, "ip", "rule", "add", "pref", "7", "fwmark", "3", "table", "100")
	w.has("7: from all fwmark 0x3 lookup 100", true)
	testutil.Run(t, ns, "ip", "-6", "rule", "add", "pref", "8", "table", "100")
	w.has("8: from all lookup 100", true)
	testutil.Run(t, ns, "ip", "rule", "del", "pref", "7")
	w.has("7: from all fwmark 0x3 lookup 100", false)
}

func TestWatchNextHops(t *testing.T) {
	t.Parallel()
	ns := box(t)
	testutil.Run(t, ns, "ip", "nexthop", "add", "id", "7", "via", "10.1.0.1", "dev", "v0")
	w := follow(t, func(ctx context.Context) iter.Seq2[Event[NextHop], error] { return WatchNextHops(ctx, ns) }, func(n NextHop) string { return n.Via.String() })
	w.has("10.1.0.1", true)
	testutil.Run(t, ns, "ip", "nexthop", "replace", "id", "7", "via", "10.1.0.3", "dev", "v0")
	w.has("10.1.0.3", true)
	testutil.Run(t, ns, "ip", "nexthop", "add", "id", "8", "blackhole")
	testutil.Run(t, ns, "ip", "nexthop", "del", "id", "7")
	w.has("10.1.0.3", false)
	testutil.Run(t, ns, "ip", "nexthop", "add", "id", "9", "via", "10.1.0.5", "dev", "v0")
	w.has("10.1.0.5", true)
	testutil.Run(t, ns, "ip", "link", "set", "v0", "down")
	w.has("10.1.0.5", false)
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	ns := box(t)
	ctx, cancel := context.WithCancel(t.Context())
	var last error
	for e, err := range Watch(ctx, ns, Filter{}) {
		if last = err; e.Kind == EventSynced {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) || !strings.Contains(last.Error(), "route.Watch routes") {
		t.Errorf("ended with %v", last)
	}
	cancel()
	for _, last = range Watch(t.Context(), ns, Filter{Family: 9}) {
	}
	if !errors.Is(last, os.ErrInvalid) {
		t.Errorf("family 9: %v", last)
	}
	for _, last = range Watch(t.Context(), nil, Filter{}) {
	}
	if !errors.Is(last, os.ErrInvalid) {
		t.Errorf("no namespace: %v", last)
	}
}
