package route

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/ipv6"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// box returns a namespace with a link v0 (10.1.0.2/16, fd01::2/64) whose index
// is 100. Where namespaces have no IPv6, it has IPv4 alone.
func box(t testing.TB) *netns.NS {
	t.Helper()
	ns := netnstest.New(t)
	for _, cmd := range []string{
		"link add v0 index 100 type veth peer name v1",
		"addr add 10.1.0.2/16 dev v0",
		"addr add fd01::2/64 dev v0 nodad",
		"link set v1 up",
		"link set v0 up",
	} {
		if cmd := ipv6.Lines(cmd); cmd != "" {
			testutil.Run(t, ns, "ip", strings.Fields(cmd)...)
		}
	}
	return ns
}

// needFamily skips a subtest that is named by what has an IPv6 address where
// namespaces have no IPv6.
func needFamily(t *testing.T) {
	t.Helper()
	_, name, _ := strings.Cut(t.Name(), "/")
	if ipv6.Among(strings.ReplaceAll(name, "_", " ")) {
		netnstest.NeedIPv6(t)
	}
}

// seen is a route as ip -j prints it.
type seen struct {
	Type, Dst, Gateway, Dev, Protocol, Scope, Table string
	PrefSrc                                         string
	Metric                                          int
	Flags                                           []string
}

// witness returns the routes that ip shows, but for those that the kernel made.
func witness(t testing.TB, ns *netns.NS, args ...string) (routes []seen) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		out, err := testutil.Try(t, ns, "ip", append([]string{"-j", "-d", family, "route", "show"}, args...)...)
		if err != nil && strings.Contains(out, "FIB table does not exist") {
			continue
		}
		var all []seen
		if err == nil {
			err = json.Unmarshal([]byte(out), &all)
		}
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, r := range all {
			if r.Protocol != "kernel" {
				routes = append(routes, r)
			}
		}
	}
	return routes
}

func TestAddReadByIP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		route Route
		want  seen
	}{
		{Default(addr("10.1.0.1")), seen{Dst: "default", Gateway: "10.1.0.1", Dev: "v0", Protocol: "static", Scope: "global"}},
		{Default(addr("fd01::1")), seen{Dst: "default", Gateway: "fd01::1", Dev: "v0", Protocol: "static", Scope: "global", Metric: 1024}},
		{To(prefix("10.9.0.0/16"), addr("10.1.0.7")), seen{Dst: "10.9.0.0/16", Gateway: "10.1.0.7", Dev: "v0", Protocol: "static", Scope: "global"}},
		{To(prefix("fd09::/48"), addr("fd01::7")), seen{Dst: "fd09::/48", Gateway: "fd01::7", Dev: "v0", Protocol: "static", Scope: "global", Metric: 1024}},
		{Route{Dst: prefix("192.0.2.1/32"), Dev: 100, Metric: 7}, seen{Dst: "192.0.2.1", Dev: "v0", Protocol: "static", Scope: "link", Metric: 7}},
		{Route{Dst: prefix("192.0.2.0/24"), Dev: 100, Scope: ScopeUniverse}, seen{Dst: "192.0.2.0/24", Dev: "v0", Protocol: "static", Scope: "global"}},
		{Route{Dst: prefix("10.8.0.0/16"), Via: addr("10.1.0.3"), Src: addr("10.1.0.2"), Protocol: ProtoBoot},
			seen{Dst: "10.8.0.0/16", Gateway: "10.1.0.3", Dev: "v0", Protocol: "boot", Scope: "global", PrefSrc: "10.1.0.2"}},
		{Route{Dst: prefix("198.51.100.0/24"), Via: addr("172.16.0.1"), Dev: 100, OnLink: true},
			seen{Dst: "198.51.100.0/24", Gateway: "172.16.0.1", Dev: "v0", Protocol: "static", Scope: "global", Flags: []string{"onlink"}}},
		{Route{Dst: prefix("203.0.113.0/24"), Type: TypeBlackhole}, seen{Type: "blackhole", Dst: "203.0.113.0/24", Protocol: "static", Scope: "global"}},
		{Route{Dst: prefix("10.7.0.0/16"), Via: addr("10.1.0.3"), Table: 100}, seen{Dst: "10.7.0.0/16", Gateway: "10.1.0.3", Dev: "v0", Protocol: "static", Scope: "global"}},
		{Route{Dst: prefix("fd07::/64"), Via: addr("fd01::3"), Table: 70000}, seen{Dst: "fd07::/64", Gateway: "fd01::3", Dev: "v0", Protocol: "static", Scope: "global", Metric: 1024}},
	} {
		t.Run(tt.route.String(), func(t *testing.T) {
			needFamily(t)
			t.Parallel()
			ns := box(t)
			if err := Add(t.Context(), ns, tt.route); err != nil {
				t.Fatal(err)
			}
			table := max(tt.route.Table, TableMain)
			if tt.route.Table == 100 {
				table = 100
			}
			args := []string{"table", table.String()}
			if tt.want.Type == "" {
				tt.want.Type = "unicast"
			}
			got := witness(t, ns, args...)
			for i := range got {
				got[i].Table = ""
			}
			if len(got) != 1 || !equal(got[0], tt.want) {
				t.Fatalf("ip shows %+v, want %+v", got, tt.want)
			}
			if err := Add(t.Context(), ns, tt.route); !errors.Is(err, os.ErrExist) {
				t.Errorf("added again: %v", err)
			}
			listed, err := List(t.Context(), ns, Filter{Table: table, Protocol: max(tt.route.Protocol, 3)})
			if tt.route.Protocol == 0 {
				listed, err = List(t.Context(), ns, Filter{Table: table, Protocol: ProtoStatic})
			}
			if err != nil || len(listed) != 1 {
				t.Fatalf("List: %v, %v", listed, err)
			}
			// What List returns can be deleted and added again unchanged.
			if err := Delete(t.Context(), ns, listed[0]); err != nil {
				t.Fatal(err)
			}
			if got := witness(t, ns, args...); len(got) != 0 {
				t.Errorf("after Delete ip shows %+v", got)
			}
			if err := Delete(t.Context(), ns, tt.route); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("deleted again: %v", err)
			}
		})
	}
}

func equal(a, b seen) bool {
	return a.Type == b.Type && a.Dst == b.Dst && a.Gateway == b.Gateway && a.Dev == b.Dev && a.Protocol == b.Protocol &&
		a.Scope == b.Scope && a.PrefSrc == b.PrefSrc && a.Metric == b.Metric && slices.Equal(a.Flags, b.Flags)
}

func TestReplace(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	for _, via := range []string{"10.1.0.1", "10.1.0.9", "fd01::1", "fd01::9"} {
		if err := Replace(t.Context(), ns, Default(addr(via))); err != nil {
			t.Fatal(err)
		}
	}
	got := witness(t, ns)
	if len(got) != 2 || got[0].Gateway != "10.1.0.9" || got[1].Gateway != "fd01::9" {
		t.Errorf("ip shows %+v", got)
	}
}

func TestAddIsAllOrNothing(t *testing.T) {
	t.Parallel()
	ns := box(t)
	var routes []Route
	for i := range 250 { // three sends
		routes = append(routes, To(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 50, byte(i), 0}), 24), addr("10.1.0.1")))
	}
	bad := To(prefix("10.51.0.0/16"), addr("172.31.0.1"))
	err := Add(t.Context(), ns, slices.Insert(slices.Clone(routes), 150, bad)...)
	if !errors.Is(err, syscall.ENETUNREACH) || !strings.Contains(err.Error(), "10.51.0.0/16 via 172.31.0.1") ||
		!strings.Contains(err.Error(), "invalid gateway") {
		t.Errorf("the error does not name route and reason: %v", err)
	}
	if got := witness(t, ns); len(got) != 0 {
		t.Errorf("%d routes are left", len(got))
	}
	if err := Add(t.Context(), ns, routes...); err != nil {
		t.Fatal(err)
	}
	if got := witness(t, ns); len(got) != len(routes) {
		t.Errorf("ip shows %d routes, want %d", len(got), len(routes))
	}
	if err := Delete(t.Context(), ns, append(routes, bad)...); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "10.51") {
		t.Errorf("Delete: %v", err)
	}
	if got := witness(t, ns); len(got) != 0 {
		t.Errorf("after Delete %d routes are left", len(got))
	}
}

// TestAddUndoesWhenCancelled cancels between two sends of one call.
func TestAddUndoesWhenCancelled(t *testing.T) {
	t.Parallel()
	ns := box(t)
	var routes []Route
	for i := range 250 {
		routes = append(routes, To(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 50, byte(i), 0}), 24), addr("10.1.0.1")))
	}
	ctx := &lateContext{Context: t.Context(), after: 2}
	if err := Add(ctx, ns, routes...); !errors.Is(err, context.Canceled) {
		t.Errorf("Add: %v", err)
	}
	if got := witness(t, ns); len(got) != 0 {
		t.Errorf("%d routes are left", len(got))
	}
	if err := Add(ctx, ns, routes...); !errors.Is(err, context.Canceled) {
		t.Errorf("Add with a context that is done: %v", err)
	}
}

// lateContext is cancelled once it was asked a number of times.
type lateContext struct {
	context.Context
	mu    sync.Mutex
	asked int
	after int
}

func (c *lateContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked++; c.asked > c.after {
		return context.Canceled
	}
	return nil
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	static := []Route{
		Default(addr("10.1.0.1")), Default(addr("fd01::1")),
		{Dst: prefix("10.7.0.0/16"), Via: addr("10.1.0.3"), Table: 100},
		{Dst: prefix("10.6.0.0/16"), Type: TypeUnreachable},
	}
	if err := Add(t.Context(), ns, static...); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		filter Filter
		want   string
	}{
		{Filter{Protocol: ProtoStatic, Family: IPv4}, "default via 10.1.0.1 dev 100 proto static;unreachable 10.6.0.0/16 proto static;10.7.0.0/16 via 10.1.0.3 dev 100 table 100 proto static"},
		{Filter{Protocol: ProtoStatic, Family: IPv6}, "default via fd01::1 dev 100 proto static metric 1024"},
		{Filter{Table: 100}, "10.7.0.0/16 via 10.1.0.3 dev 100 table 100 proto static"},
		{Filter{Table: 4711}, ""},
		{Filter{Type: TypeUnreachable}, "unreachable 10.6.0.0/16 proto static"},
		{Filter{Family: IPv4, Table: TableMain, Dev: 100, Protocol: ProtoKernel}, "10.1.0.0/16 dev 100 proto kernel scope link src 10.1.0.2"},
		{Filter{Dev: 1, Protocol: ProtoStatic}, ""},
	} {
		routes, err := List(t.Context(), ns, tt.filter)
		var got []string
		for _, r := range routes {
			got = append(got, r.String())
		}
		slices.SortFunc(got, func(a, b string) int {
			return strings.Compare(strings.TrimPrefix(a, "unreachable "), strings.TrimPrefix(b, "unreachable "))
		})
		want := strings.FieldsFunc(tt.want, func(r rune) bool { return r == ';' })
		slices.SortFunc(want, func(a, b string) int {
			return strings.Compare(strings.TrimPrefix(a, "unreachable "), strings.TrimPrefix(b, "unreachable "))
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%+v: %q, %v; want %q", tt.filter, got, err, want)
		}
	}
	if _, err := List(t.Context(), ns, Filter{Dev: 99}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link that is not there: %v", err)
	}
	all, err := List(t.Context(), ns, Filter{})
	if err != nil || !slices.ContainsFunc(all, func(r Route) bool { return r.Table == TableLocal && r.Type == TypeLocal }) {
		t.Errorf("the zero Filter gives %v, %v; want the local table, too", all, err)
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	ns := box(t)
	via := addr("10.1.0.1")
	for _, tt := range []struct {
		route Route
		says  string
	}{
		{Route{Via: via}, "no valid prefix"},
		{To(prefix("10.0.0.1/8"), via), "host bits"},
		{To(prefix("fd09::/64"), via), "another family"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, Src: addr("fd01::2")}, "another family"},
		{To(prefix("::ffff:10.0.0.0/104"), addr("fd01::1")), "IPv4 written as IPv6"},
		{To(prefix("fd09::/64"), addr("::ffff:10.0.0.1")), "IPv4 written as IPv6"},
		{To(prefix("fd09::/64"), addr("fe80::1%v0")), "zone"},
		{To(prefix("10.0.0.0/8"), addr("0.0.0.0")), "unspecified"},
		{To(prefix("10.0.0.0/8"), addr("224.0.0.1")), "multicast"},
		{Route{Dst: prefix("10.0.0.0/8")}, "neither a gateway nor a link"},
		{Route{Dst: prefix("10.0.0.0/8"), Dev: -1}, "not the index"},
		{Route{Dst: prefix("10.0.0.0/8"), Type: TypeBlackhole, Via: via}, "no gateway"},
		{Route{Dst: prefix("10.0.0.0/8"), Type: 77, Via: via}, "unknown"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, OnLink: true}, "onlink"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, Scope: 300}, "scope"},
		{Default(netip.Addr{}), "neither"},
		{Route{Dst: prefix("10.0.0.0/8"), From: prefix("10.1.0.0/16"), Via: via}, "use a rule"},
		{Route{Dst: prefix("fd09::/64"), From: prefix("10.1.0.0/16"), Dev: 1}, "another family"},
		{Route{Dst: prefix("fd09::/64"), From: prefix("fd01::1/64"), Dev: 1}, "host bits"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, TOS: 1}, "low bits"},
		{Route{Dst: prefix("fd09::/64"), Dev: 1, TOS: 4}, "type of service"},
		{Route{Dst: prefix("fd09::/64"), Dev: 1, Realm: Realm{To: 1}}, "realm"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, Expires: time.Second}, "do not expire"},
		{Route{Dst: prefix("fd09::/64"), Dev: 1, Expires: time.Millisecond}, "whole seconds"},
		{Route{Dst: prefix("fd09::/64"), Dev: 1, Pref: 2}, "preference 2"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, Pref: PrefLow}, "preference"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, NextHop: 1}, "next-hop object 1"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, Hops: []Hop{{Via: via, Weight: 1}}}, "in Hops alone"},
		{Route{Dst: prefix("10.0.0.0/8"), Hops: []Hop{{Via: via}}}, "weight 0"},
		{Route{Dst: prefix("10.0.0.0/8"), Hops: []Hop{{Via: via, Weight: 257}}}, "weight 257"},
		{Route{Dst: prefix("10.0.0.0/8"), Hops: []Hop{{Weight: 1}}}, "neither a gateway nor a link"},
		{Route{Dst: prefix("fd09::/64"), Hops: []Hop{{Via: via, Weight: 1}}}, "another family"},
		{Route{Dst: prefix("10.0.0.0/8"), Type: TypeProhibit, Dev: 1}, "no link"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, Metrics: &Metrics{HopLimit: 256}}, "hoplimit"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, Metrics: &Metrics{RTOMin: time.Microsecond}}, "multiple"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, Metrics: &Metrics{Congestion: "a name that is long"}}, "congestion"},
		{Route{Dst: prefix("10.0.0.0/8"), Via: via, Metrics: &Metrics{Lock: LockMTU}}, "locked"},
		{Route{Dst: prefix("10.0.0.0/8"), Dev: 1, Encap: IPEncap{}}, "no destination"},
		{Route{Dst: prefix("10.0.0.0/8"), Dev: 1, Encap: IPEncap{Src: addr("fd00::1"), Dst: via}}, "another family"},
		{Route{Dst: prefix("10.0.0.0/8"), Dev: 1, Encap: MPLSEncap{}}, "labels"},
		{Route{Dst: prefix("10.0.0.0/8"), Dev: 1, Encap: MPLSEncap{Labels: []uint32{1 << 20}}}, "20 bits"},
		{Route{Dst: prefix("fd09::/64"), Dev: 1, Encap: Seg6Encap{}}, "segments"},
		{Route{Dst: prefix("fd09::/64"), Dev: 1, Encap: Seg6Encap{Segments: []netip.Addr{via}}}, "no plain IPv6"},
		{Route{Dst: prefix("fd09::/64"), Dev: 1, Encap: Seg6LocalEncap{}}, "no action"},
		{Route{Dst: prefix("fd09::/64"), Dev: 1, Encap: RawEncap{Data: []byte{1}}}, "no kind"},
	} {
		good := To(prefix("10.77.0.0/16"), via)
		err := Add(t.Context(), ns, good, tt.route)
		var e *netns.Error
		if !errors.Is(err, os.ErrInvalid) || !errors.As(err, &e) || e.Op != "route.Add" || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v: %v, want %q", tt.route, err, tt.says)
		}
	}
	if err := Add(t.Context(), ns, Default(via), Default(via)); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a route twice: %v", err)
	}
	if err := Add(t.Context(), nil, Default(via)); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("no namespace: %v", err)
	}
	if _, err := List(t.Context(), ns, Filter{Family: 9}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("family 9: %v", err)
	}
	if got := witness(t, ns); len(got) != 0 {
		t.Errorf("something was sent: %+v", got)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	ns := box(t)
	r := To(prefix("10.9.0.0/16"), addr("10.1.0.1"))
	if err := Add(t.Context(), ns, Route{Dst: prefix("10.9.0.0/16"), Dev: 4711}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link that is not there: %v", err)
	}
	closed, err := netns.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	_, lerr := List(t.Context(), closed, Filter{})
	for i, err := range []error{Add(t.Context(), closed, r), Delete(t.Context(), closed, r), Replace(t.Context(), closed, r), lerr} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%d on a closed namespace: %v", i, err)
		}
	}
	if err := errors.Join(Add(t.Context(), ns), Delete(t.Context(), ns), Replace(t.Context(), ns)); err != nil {
		t.Errorf("no routes at all: %v", err)
	}
	// A thread without CAP_NET_ADMIN sends: the kernel asks the sender.
	_, err = netns.Do(t.Context(), ns, func(ctx context.Context) (int, error) {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			return 0, err
		}
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			return 0, err
		}
		defer func() {
			data[0].Effective |= 1 << unix.CAP_NET_ADMIN
			unix.Capset(&hdr, &data[0])
		}()
		return 0, Add(ctx, ns, r)
	})
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("without CAP_NET_ADMIN: %v", err)
	}
}
