package link

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

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

// Items come and go without a pause before those that stay, in the kernel's
// order. A list of the latter, which takes several replies, has every one of
// them or says that it has not.
func TestListsAreCompleteUnderChurn(t *testing.T) {
	t.Parallel()
	const moving, all = 200, 2200
	hw := func(i int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 1, byte(i >> 8), byte(i)} }
	ip4 := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}) }
	ip6 := func(i int) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}) }
	ctx := t.Context()
	neighbours := func(ip func(int) netip.Addr) churned {
		n := func(i int) Neighbour { return Neighbour{Addr: ip(i), MAC: hw(i)} }
		return churned{
			func(l Link, i int) error { return l.AddNeighbours(ctx, n(i)) },
			func(l Link, i int) error { return l.DeleteNeighbours(ctx, n(i)) },
			func(l Link, seen func(string)) error {
				list, err := l.Neighbours(ctx)
				for _, n := range list {
					seen(n.MAC.String())
				}
				return err
			},
			func(i int) string { return hw(i).String() },
		}
	}
	addrs := func(ip func(int) netip.Addr) churned {
		p := func(i int) netip.Prefix { return netip.PrefixFrom(ip(i), ip(i).BitLen()) }
		return churned{
			func(l Link, i int) error { return l.AddPrefixes(ctx, p(i)) },
			func(l Link, i int) error { return l.DeleteAddrs(ctx, p(i)) },
			func(l Link, seen func(string)) error {
				list, err := l.Addrs(ctx)
				for _, a := range list {
					seen(a.Prefix.String())
				}
				return err
			},
			func(i int) string { return p(i).String() },
		}
	}
	entry := func(i int) FDBEntry { return FDBEntry{MAC: hw(i), Self: true, Dst: ip4(1)} }
	tables := map[string]churned{
		"neighbours of IPv4": neighbours(ip4),
		"neighbours of IPv6": neighbours(ip6),
		"addresses of IPv4":  addrs(ip4),
		"addresses of IPv6":  addrs(ip6),
		"FDB": {
			func(l Link, i int) error { return l.AddFDBEntries(ctx, entry(i)) },
			func(l Link, i int) error { return l.DeleteFDBEntries(ctx, entry(i)) },
			func(l Link, seen func(string)) error {
				list, err := ListFDB(ctx, l.NS(), FDBFilter{Link: l.Ref()})
				for _, e := range list {
					seen(e.MAC.String())
				}
				return err
			},
			func(i int) string { return hw(i).String() },
		},
	}
	for turn, name := range slices.Sorted(maps.Keys(tables)) {
		if !testutil.Spread(turn, 4) {
			continue
		}
		c := tables[name]
		t.Run(name, func(t *testing.T) {
			if strings.HasSuffix(name, "IPv6") {
				netnstest.NeedIPv6(t)
			}
			t.Parallel()
			ns := netnstest.New(t)
			l := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
			if name == "FDB" {
				l = mustCreate(t, ns, Spec{Name: "vx0", Up: true, Kind: VXLAN{ID: new(uint32(7))}})
				if err := c.add(l, all); err != nil {
					t.Fatal(err)
				}
				needFDBDelete(t, c.del(l, all))
			}
			for i := range all {
				if err := c.add(l, i); err != nil {
					t.Fatal(err)
				}
			}
			c.test(t, l, moving, all)
		})
	}
}

// churned is how to change and read one sort of items.
type churned struct {
	add, del func(l Link, i int) error
	list     func(l Link, seen func(key string)) error
	key      func(i int) string
}

func (c *churned) test(t *testing.T, l Link, moving, all int) {
	other, err := Get(t.Context(), again(t, l.NS()), l.Name)
	if err != nil {
		t.Fatal(err)
	}
	done, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; done.Err() == nil; i = (i + 1) % moving {
			if err := errors.Join(c.del(other, i), c.add(other, i)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer func() { stop(); wg.Wait() }()
	tries := 30
	if testing.Short() {
		tries = 5
	}
	whole, lacking, twice := 0, 0, 0
	for range tries {
		n := map[string]int{}
		err := c.list(l, func(key string) { n[key]++ })
		if errors.Is(err, ErrInterrupted) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		whole++
		for i := moving; i < all; i++ {
			switch n[c.key(i)] {
			case 0:
				lacking++
			case 1:
			default:
				twice++
			}
		}
	}
	t.Logf("%d of %d lists ended without an error: %d items lacking, %d twice", whole, tries, lacking, twice)
	if lacking+twice > 0 {
		t.Error("lists are not complete")
	}
}
