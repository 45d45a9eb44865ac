package route

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// hosts returns routes by lo to n addresses, from the first on in the kernel's
// order.
func hosts(f Family, n int) []Route {
	routes := make([]Route, n)
	for i := range routes {
		a := netip.AddrFrom4([4]byte{10, 100 + byte(i>>16), byte(i >> 8), byte(i)})
		if f == IPv6 {
			a = netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
		}
		routes[i] = Route{Dst: netip.PrefixFrom(a, a.BitLen()), Dev: 1}
	}
	return routes
}

// again returns another handle on a namespace: exchanges on one wait for each
// other.
func again(t testing.TB, ns *netns.NS) *netns.NS {
	t.Helper()
	var other *netns.NS
	err := ns.WithFd(func(fd int) (err error) {
		other, err = netns.OpenPath(t.Context(), fmt.Sprintf("/proc/self/fd/%d", fd))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return other
}

// churn adds and deletes routes, one after the other and without a pause, until
// the returned function is called.
func churn(t testing.TB, ns *netns.NS, routes []Route) (stop func()) {
	ns = again(t, ns)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i = (i + 1) % len(routes) {
			if err := errors.Join(Add(context.Background(), ns, routes[i]), Delete(context.Background(), ns, routes[i])); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// complete says what is wrong with a list that has to hold each steady route
// once.
func complete(got, steady []Route) error {
	n := map[netip.Prefix]int{}
	for _, r := range got {
		n[r.Dst]++
	}
	for _, r := range steady {
		if n[r.Dst] != 1 {
			return fmt.Errorf("%v is %d times in a list of %d routes", r.Dst, n[r.Dst], len(got))
		}
	}
	return nil
}

// Routes come and go without a pause before those that stay, in the kernel's
// order: unguarded, every second list of 3,000 IPv6 routes lacks some. A list is
// complete, or says that it is not.
func TestListIsCompleteUnderChurn(t *testing.T) {
	t.Parallel()
	for _, f := range []Family{IPv4, IPv6} {
		t.Run(fmt.Sprint("IPv", f), func(t *testing.T) {
			t.Parallel()
			if f == IPv6 {
				netnstest.NeedIPv6(t)
			}
			ns := netnstest.New(t)
			all := hosts(f, 1500)
			moving, steady := all[:200], all[200:]
			if err := Add(t.Context(), ns, steady...); err != nil {
				t.Fatal(err)
			}
			stop := churn(t, ns, moving)
			defer stop()
			tries := 30
			if testing.Short() {
				tries = 5
			}
			filter, wholeLists, wholePasses := Filter{Family: f, Table: TableMain}, 0, 0
			for range tries {
				got, err := List(t.Context(), ns, filter)
				switch {
				case errors.Is(err, ErrInterrupted) && f == IPv6:
				case err != nil:
					t.Fatal(err)
				default:
					wholeLists++
					if err := complete(got, steady); err != nil {
						t.Fatal(err)
					}
				}
				var passed []Route
				var last error
				for r, err := range All(t.Context(), ns, filter) {
					if last = err; err == nil {
						passed = append(passed, r)
					}
				}
				switch {
				case errors.Is(last, ErrInterrupted):
				case last != nil:
					t.Fatal(last)
				default:
					wholePasses++
					if err := complete(passed, steady); err != nil {
						t.Fatal(err)
					}
				}
			}
			t.Logf("of %d lists %d were complete, the others said no; of as many passes %d", tries, wholeLists, wholePasses)
			if wholeLists == 0 && f == IPv4 {
				t.Error("no list was complete")
			}
			stop()
			if got, err := List(t.Context(), ns, filter); err != nil || complete(got, steady) != nil {
				t.Errorf("when all is still: %v, %v", complete(got, steady), err)
			}
		})
	}
}

// Routes of one address are distinguished by number after a break: a change there
// makes a list begin again, one anywhere else does not.
func TestGuardOfIPv4(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	other := again(t, ns)
	var routes []Route
	for i := range 3000 {
		routes = append(routes, Route{Dst: prefix("10.7.0.0/16"), Dev: 1, Metric: uint32(i + 1)})
	}
	if err := Add(t.Context(), ns, append(routes, hosts(IPv4, 10)...)...); err != nil {
		t.Fatal(err)
	}
	pass := func(change Route) (n int, last error) {
		for r, err := range All(t.Context(), ns, Filter{Table: TableMain, Family: IPv4}) {
			if n++; err != nil {
				return n, err
			}
			if r.Metric == 1 {
				if err := Delete(t.Context(), other, change); err != nil {
					t.Error(err)
				}
			}
		}
		return n, nil
	}
	if n, err := pass(hosts(IPv4, 1)[0]); err != nil || n < 3000 {
		t.Errorf("a change elsewhere: %d routes, %v", n, err)
	}
	if n, err := pass(routes[1]); !errors.Is(err, ErrInterrupted) {
		t.Errorf("a change at the address where the kernel let go: %d routes, %v", n, err)
	}
}

func TestAllStopsWithTheLoop(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	routes := hosts(IPv4, 2000)
	if err := Add(t.Context(), ns, routes...); err != nil {
		t.Fatal(err)
	}
	n := 0
	for r, err := range All(t.Context(), ns, Filter{Table: TableMain}) {
		if err != nil {
			t.Fatal(err)
		}
		// The loop may use the package: what it reads is on a connection of its own.
		if err := Delete(t.Context(), ns, r); err != nil {
			t.Fatal(err)
		}
		if n++; n == 5 {
			break
		}
	}
	if got, err := List(t.Context(), ns, Filter{Table: TableMain}); err != nil || len(got) != len(routes)-5 {
		t.Errorf("%d routes left, %v", len(got), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, last = range All(ctx, ns, Filter{Table: TableMain}) {
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("ended with %v", last)
	}
}

// A pass over a table takes no more memory for ten times the routes.
func TestAllHoldsOneReply(t *testing.T) {
	const few, many = 1000, 10000
	ns := netnstest.New(t)
	pass := func(want int) (allocs uint64, bytes uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n := 0
		for r, err := range All(t.Context(), ns, Filter{Family: IPv4, Table: TableMain}) {
			if err != nil || !r.Dst.IsValid() {
				t.Fatal(r, err)
			}
			n++
		}
		runtime.ReadMemStats(&after)
		if n != want {
			t.Fatalf("%d routes, want %d", n, want)
		}
		return after.Mallocs - before.Mallocs, after.TotalAlloc - before.TotalAlloc
	}
	routes := hosts(IPv4, many)
	if err := Add(t.Context(), ns, routes[:few]...); err != nil {
		t.Fatal(err)
	}
	pass(few)
	allocs1, bytes1 := pass(few)
	if err := Add(t.Context(), ns, routes[few:]...); err != nil {
		t.Fatal(err)
	}
	allocs2, bytes2 := pass(many)
	t.Logf("%d routes: %d allocations, %d bytes; %d routes: %d and %d", few, allocs1, bytes1, many, allocs2, bytes2)
	if allocs2 > allocs1+200 || bytes2 > bytes1+256<<10 {
		t.Error("memory grows with the table")
	}
}

func TestFlush(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	mine, theirs := hosts(IPv4, 1500), hosts(IPv6, 30)
	for i := range mine {
		mine[i].Protocol = ProtoBird
	}
	if err := Add(t.Context(), ns, append(mine, theirs...)...); err != nil {
		t.Fatal(err)
	}
	if n, err := Flush(t.Context(), ns, Filter{Protocol: ProtoBird}); err != nil || n != len(mine) {
		t.Errorf("flushed %d, %v", n, err)
	}
	if got := ipRoutes(t, ns, TableMain); len(got) != len(theirs) {
		t.Errorf("ip shows %d routes, want %d", len(got), len(theirs))
	}
	if n, err := Flush(t.Context(), ns, Filter{Protocol: ProtoBird}); err != nil || n != 0 {
		t.Errorf("flushed again: %d, %v", n, err)
	}
	for _, f := range []Filter{{}, {Family: IPv4}} {
		if _, err := Flush(t.Context(), ns, f); err == nil || !strings.Contains(err.Error(), "every route") {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

// sorted returns the routes' texts in order.
func sorted(routes []Route) []string {
	var s []string
	for _, r := range routes {
		s = append(s, r.String())
	}
	slices.Sort(s)
	return s
}
