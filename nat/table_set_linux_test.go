package nat

import (
	"github.com/boxwire/boxwire/netns/netnstest"
	"reflect"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
)

// Keys of one length are of different meanings: same6 and pair, of 32 bytes, are two.
func TestAnElementIsWhatItsSetSays(t *testing.T) {
	t.Parallel()
	for _, n := range allOptions() {
		for _, it := range n.items() {
			want := n.Interface
			if kindOf(it.set) == kindOwned { // a pinhole, which is of its address
				want = ""
			}
			if got := it.network(); got != want {
				t.Errorf("an element of %s of the network %s is of %q", it.set, n.Interface, got)
			}
		}
	}
	for _, p := range keyPorts() {
		it := p.item()
		if got := it.network(); got != "" {
			t.Errorf("%v is of the network %q", p, got)
		}
		if is6 := p.Host.Addr().Is6(); is6 != (familyOfSet(it.set) == families[1]) {
			t.Errorf("%v is in %s", p, it.set)
		}
		for _, f := range families { // a key of the other sets
			for _, set := range []string{f.pub, f.any, f.rng} {
				if got, err := decodeItem(item{set, it.elem}); set != it.set && err == nil {
					t.Errorf("an element of %s is read as %v of %s", it.set, got, set)
				}
			}
		}
	}
}

// A state with Owners and networks of both families may be repeated, beside networks
// that another program keeps, and repairs what is damaged.
func TestAPartialSyncOfNetworksMayBeRepeated(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	gw := open(t, ns)
	all := allOptions()
	theirs, ours := all[:2], all[2:]
	for _, n := range theirs {
		if err := gw.AddNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	state := State{Networks: ours, Owners: func(o string) bool { return o != "theirs" }}
	var before any
	for i, damage := range []string{"", "", "delete element inet boxwire ifs { \"br2\" }", "flush set inet boxwire same6", "flush chain inet boxwire guard"} {
		if damage != "" {
			testutil.Run(t, ns, "nft", damage)
		}
		if strings.Contains(damage, "flush set") { // of their networks it is theirs to put back
			for _, n := range theirs {
				if err := gw.SetNetwork(t.Context(), n); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := gw.Sync(t.Context(), state); err != nil {
			t.Fatalf("Sync %d, after %q: %v", i, damage, err)
		}
		got, err := gw.ListNetworks(t.Context())
		if err != nil || !reflect.DeepEqual(plain(got), all) {
			t.Errorf("Sync %d, after %q: %+v, %v", i, damage, got, err)
		}
		now := objects(t, ns)
		if before != nil && !reflect.DeepEqual(now, before) {
			t.Errorf("Sync %d, after %q:\n%s", i, damage, listing(t, ns))
		}
		before = now
	}
	// Less of ours leaves theirs.
	state.Networks = ours[:1]
	if err := gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
}
