package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// coverKeys are the prefixes of the cover items of subnets.
func coverKeys(t *testing.T, nets ...Network) (keys []string) {
	t.Helper()
	var items []item
	for _, n := range nets {
		items = append(items, n.items()...)
	}
	items, err := coverItems(items)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		a, _ := netip.AddrFromSlice(it.elem.Key)
		keys = append(keys, fmt.Sprint(it.set, " ", a))
	}
	return keys
}

// A subnet has an element for each beginning that its addresses have, whatever its length.
func TestCoverItemsHaveEachBeginning(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		subnets, trusted []string
		want             []string
	}{
		{subnets: []string{"10.88.0.0/16"}, want: []string{"cover4 10.88.0.0"}},
		{subnets: []string{"10.88.7.128/25", "10.88.9.1/32"}, want: []string{"cover4 10.88.0.0"}},
		{subnets: []string{"10.88.0.0/15"}, want: []string{"cover4 10.88.0.0", "cover4 10.89.0.0"}},
		{subnets: []string{"255.255.255.0/24"}, want: []string{"cover4 255.255.0.0"}},
		{subnets: []string{"fd88::/64"}, want: []string{"cover6 fd88::"}},
		{subnets: []string{"fd88::/15", "10.88.0.0/24"}, want: []string{"cover4 10.88.0.0", "cover6 fd88::", "cover6 fd89::"}},
		{subnets: []string{"10.88.0.0/14"}, trusted: []string{"10.89.0.0/16"}, want: []string{"cover4 10.88.0.0", "cover4 10.90.0.0", "cover4 10.91.0.0"}},
	} {
		got := coverKeys(t, Network{Interface: "br0", Subnets: prefixes(x.subnets...), Trusted: prefixes(x.trusted...)})
		slices.Sort(got)
		if !reflect.DeepEqual(got, x.want) {
			t.Errorf("%v without %v: %v, want %v", x.subnets, x.trusted, got, x.want)
		}
	}
	for subnet, want := range map[string]int{"10.0.0.0/8": 256, "0.0.0.0/0": 65536, "fd00::/8": 256, "::/0": 65536} {
		if got := coverKeys(t, Network{Interface: "br0", Subnets: prefixes(subnet)}); len(got) != want {
			t.Errorf("%s has %d elements, not %d", subnet, len(got), want)
		}
	}
	if _, err := coverItems([]item{{"nets4", nft.Element{Key: []byte{10, 88}, Comment: "br0"}}}); err == nil {
		t.Error("a key that is too short is no error")
	}
}

// Two networks whose subnets begin alike share an element. It stays until the last of them goes, by
// whatever verb.
func TestNetworksShareHowTheirSubnetsBegin(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	one, two := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/24")}, Network{Interface: "br1", Subnets: prefixes("10.88.1.0/24")}
	far := Network{Interface: "br0", Subnets: prefixes("10.99.0.0/24")}
	sync := func(nets ...Network) func(context.Context) error {
		return func(ctx context.Context) error { return gw.Sync(ctx, State{Networks: nets}) }
	}
	owned := func(nets ...Network) func(context.Context) error {
		return func(ctx context.Context) error {
			return gw.Sync(ctx, State{Networks: nets, Owners: func(owner string) bool { return owner == "web" }})
		}
	}
	add := func(n Network) func(context.Context) error {
		return func(ctx context.Context) error { return gw.AddNetwork(ctx, n) }
	}
	set := func(n Network) func(context.Context) error {
		return func(ctx context.Context) error { return gw.SetNetwork(ctx, n) }
	}
	del := func(iface string) func(context.Context) error {
		return func(ctx context.Context) error { return gw.DeleteNetwork(ctx, iface) }
	}
	both := []any{"10.88.0.0", "10.99.0.0"}
	for i, step := range []struct {
		do   func(context.Context) error
		want []any
	}{
		{add(one), both[:1]}, {add(two), both[:1]}, {set(one), both[:1]}, {del("br0"), both[:1]}, {del("br1"), nil},
		{add(one), both[:1]}, {add(two), both[:1]}, {set(far), both}, {set(one), both[:1]}, {set(far), both}, {del("br1"), both[1:]}, {del("br0"), nil},
		{sync(one, two), both[:1]}, {sync(two), both[:1]}, {sync(two, far), both}, {sync(far), both[1:]}, {sync(), nil},
		{owned(two), both[:1]}, {owned(far), both}, {set(one), both[:1]}, {owned(far), both}, {sync(), nil},
	} {
		if err := step.do(t.Context()); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		got := elements(t, ns, "cover4")
		if slices.SortFunc(got, func(a, b any) int { return netip.MustParseAddr(a.(string)).Compare(netip.MustParseAddr(b.(string))) }); !reflect.DeepEqual(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

// Check misses such an element, and the next change of the network brings it back.
func TestCheckMissesHowASubnetBegins(t *testing.T) {
	t.Parallel()
	for name, mend := range map[string]func(*NAT, Network) error{
		"SetNetwork": func(gw *NAT, n Network) error { return gw.SetNetwork(t.Context(), n) },
		"Sync":       func(gw *NAT, n Network) error { return gw.Sync(t.Context(), State{Networks: []Network{n}}) },
		"Sync of an owner": func(gw *NAT, n Network) error {
			return gw.Sync(t.Context(), State{Networks: []Network{n}, Owners: func(owner string) bool { return owner == "web" }})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			gw, n := open(t, ns), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/24")}
			if err := gw.AddNetwork(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			check := func() error { return Check(t.Context(), ns, "", State{Networks: []Network{n}}) }
			if err := check(); err != nil {
				t.Fatal(err)
			}
			testutil.Run(t, ns, "nft", "flush set inet boxwire cover4")
			if err := check(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "network br0 has no element in the set cover4") {
				t.Errorf("Check: %v", err)
			}
			if err := mend(gw, n); err != nil {
				t.Fatal(err)
			}
			if err := check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A change whose answer was lost is not taken for committed while such an element is not there.
func TestAChangeWithoutHowItsSubnetBeginsIsNotCommitted(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw, n := open(t, ns), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/24")}
	if err := gw.AddNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	c, err := gw.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer gw.unlock()
	tx := &networkTx{iface: "br0", want: n.items()}
	tx.over(gw, c)
	for _, want := range []bool{true, false} {
		if is, err := tx.Committed(t.Context()); is != want || err != nil {
			t.Errorf("committed %t, %v, want %t", is, err, want)
		}
		testutil.Run(t, ns, "nft", "flush set inet boxwire cover4")
	}
}

// Wide subnets have thousands of elements. They come and go as those of others.
func TestWideSubnetsComeAndGo(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw, n := open(t, ns), Network{Interface: "br0", Subnets: bothFamilies("240.0.0.0/4", "e000::/4")}
	count := func(want int) {
		t.Helper()
		all := elementsOnly(objects(t, ns))
		for _, p := range n.Subnets {
			set, _ := all[familyOf(p.Addr()).cover].(map[string]any)
			if got, _ := set["elem"].([]any); len(got) != want {
				t.Errorf("%v has %d elements, want %d", p, len(got), want)
			}
		}
	}
	if err := gw.AddNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	count(1 << 12)
	if err := gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	count(0)
}

// Another program may add an element with a single key to a set of intervals. It is the interval of that
// key, as it is for the kernel, and no change fails because of it.
func TestOneKeyAmongIntervals(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	one, two := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/24")}, Network{Interface: "br1", Subnets: prefixes("10.89.0.0/24")}
	if err := gw.AddNetwork(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	c, err := gw.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = c.Commit(t.Context(), gw.table, nft.BuildFunc(func(context.Context) (*nft.Batch, error) {
		b := nft.NewBatch(gw.table)
		box := pinhole("10.97.0.1:80", 0, "web").item()
		for _, it := range append(Network{Interface: "br7", Subnets: prefixes("10.97.0.1/32")}.items(), box) {
			if it.elem.KeyEnd = nil; slices.Contains([]string{"nets4", "same4", "route4"}, it.set) {
				addItems(b, []item{it})
			}
		}
		addItems(b, []item{{"listed", nft.Element{Key: appendKey(nil, netip.Addr{}, UDP, 53)}}})
		return b, nil
	}))
	gw.unlock()
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return gw.AddNetwork(t.Context(), two) },
		func() error { return gw.SetNetwork(t.Context(), two) },
		func() error { _, err := gw.ListNetworks(t.Context()); return err },
		func() error { return gw.DeleteNetwork(t.Context(), "br0") },
		func() error { return gw.Sync(t.Context(), State{Networks: []Network{two}}) },
	} {
		if err := do(); err != nil {
			t.Error(err)
		}
	}
}

// A neighbour has no way to the host by the address of a box, whatever the lengths of the subnets are and
// were, and beside them it has one. No address beside a subnet differs from it in the sixth byte alone, which
// some kernels ignore (see newFar).
func TestNoNeighbourHasAnAddressOfASubnet(t *testing.T) {
	t.Parallel()
	s := wire(t)
	s.gw = open(t, s.host)
	for _, link := range []string{"all", "up0"} {
		setSysctl(t, s.host, "ipv4/conf/"+link+"/rp_filter", "0")
	}
	gate, outside := macOf(t, s.host, "up0"), newWireEnd(t, s.outside, "wan0")
	heard := map[bool]*receiver{false: listen(t, s.host, "203.0.113.1:9"), true: listen(t, s.host, "[2001:db8:1::1]:9")}
	for i, nets := range [][]Network{
		{{Subnets: prefixes("10.88.0.0/16", "fd88::/64")}},
		{{Subnets: prefixes("10.88.0.0/15", "fd88::/15")}},
		{{Subnets: prefixes("10.88.0.0/11", "fd88::/13")}},
		{{Subnets: prefixes("10.88.0.0/20", "fd88::/32")}, {Subnets: prefixes("10.88.16.0/20", "fd88:1::/32")}},
		{{Subnets: prefixes("10.88.16.0/20", "fd88:1::/32")}},
		{{Subnets: prefixes("10.88.16.0/24", "fd88:1::7/128")}, {Subnets: prefixes("10.88.17.128/25")}},
		{{Subnets: prefixes("10.88.17.128/25", "fd88:1::8/128")}},
	} {
		if err := setAll(t.Context(), s.gw, i, nets); err != nil {
			t.Fatal(err)
		}
		own := func(a netip.Addr) bool {
			return slices.ContainsFunc(nets, func(n Network) bool { return n.contains(a) })
		}
		var closed []string
		for _, n := range nets {
			for _, p := range n.Subnets {
				r, to := rangeOf(p), netip.MustParseAddrPort("203.0.113.1:9")
				if r.first.Is6() {
					to = netip.MustParseAddrPort("[2001:db8:1::1]:9")
				}
				for _, a := range []netip.Addr{r.first.Prev(), r.first, r.last, r.last.Next()} {
					text := fmt.Sprintf("%d: from %v", i, a)
					send := func() { outside.send(t, gate, netip.AddrPortFrom(a, 1000), to, text) }
					if own(a) {
						send()
						closed = append(closed, text)
					} else if !until(func() bool { send(); return heard[a.Is6()].has(text) }) {
						t.Errorf("%v: nothing arrives from %v", nets, a)
					}
				}
			}
		}
		for _, text := range closed {
			if heard[false].has(text) || heard[true].has(text) {
				t.Errorf("%v: arrives %s", nets, text)
			}
		}
	}
}

// setAll makes these the networks of br0 and br1, by Sync or by the verbs of networks.
func setAll(ctx context.Context, gw *NAT, turn int, nets []Network) error {
	for i := range nets {
		nets[i].Interface = fmt.Sprint("br", i)
	}
	if turn%2 == 1 {
		return gw.Sync(ctx, State{Networks: nets})
	}
	if len(nets) == 1 {
		if err := netns.IgnoreNotExist(gw.DeleteNetwork(ctx, "br1")); err != nil {
			return err
		}
	}
	for _, n := range nets {
		if err := gw.SetNetwork(ctx, n); err != nil {
			return err
		}
	}
	return nil
}
