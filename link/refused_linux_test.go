package link

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// What the kernel would take and not do is refused by name.
func TestNothingIsIgnored(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br9", Kind: Bridge{}})
	for what, s := range map[string]Spec{
		"bridge":  {Kind: Bridge{}},
		"veth":    {Kind: Veth{Peer: Spec{Name: "p"}}},
		"vxlan":   {Kind: VXLAN{ID: new(uint32(1)), Port: 4789}},
		"ifb":     {Kind: IFB{}},
		"dummy":   {Kind: Dummy{}},
		"tun":     {Kind: Tun{Persist: true}},
		"vrf":     {Kind: VRF{Table: 10}},
		"bond":    {Kind: Bond{}},
		"wg":      {Kind: WireGuard{}},
		"the end": {Kind: Netkit{}},
	} {
		s.Name, s.Parent = "x", br.Ref()
		_, err := Create(ctx, ns, s)
		wantErr(t, err, os.ErrInvalid, "Parent")
		_, err = Ensure(ctx, ns, s)
		if wantErr(t, err, os.ErrInvalid, "Parent"); t.Failed() {
			t.Fatal(what)
		}
	}
	for _, flag := range []AddrFlags{AddrOptimistic, AddrHome, AddrManageTemp} {
		a := StaticAddr(prefixes("10.0.0.1/24")[0])
		a.Flags |= flag
		wantErr(t, br.AddAddrs(ctx, a), os.ErrInvalid, "10.0.0.1/24", "IPv6")
		wantErr(t, br.ReplaceAddrs(ctx, a), os.ErrInvalid, "10.0.0.1/24", "IPv6")
	}
	for _, name := range []string{"all", "default"} {
		_, err := Create(ctx, ns, Spec{Name: name, Kind: Bridge{}})
		wantErr(t, err, os.ErrInvalid, name)
		_, err = br.Update(ctx, Spec{Name: name})
		wantErr(t, err, os.ErrInvalid, name)
	}
	for words, limit := range map[string]Limit{
		"holds no frame":  {Rate: Mbit, Burst: 1400},
		"holds no frame ": {Rate: Gbit, Burst: 100},
		"takes longer":    {Rate: Mbit, Burst: 64 << 20},
		"4 GiB":           {Rate: 100 * Gbit, Burst: 1 << 20, Latency: time.Minute},
	} {
		words = strings.TrimSpace(words)
		wantErr(t, br.SetRate(ctx, limit, Limit{}), os.ErrInvalid, "egress", words)
		wantErr(t, br.SetRate(ctx, Limit{}, limit), os.ErrInvalid, "ingress", words)
	}
	onlyThese(t, ns, "lo", "br9")
}

// Limits that are read can be set, and fit every MTU that the link gets.
func TestRatesReadCanBeSet(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "a", Kind: Veth{Peer: Spec{Name: "b"}}})
	for _, m := range []Limit{{Rate: 8}, {Rate: Kbit}, {Rate: Mbit}, {Rate: Mbit, Burst: 32 << 20}, {Rate: 100 * Gbit}, {Rate: 10 * Gbit, Burst: 1<<31 - 1}, {Rate: Mbit, Burst: 1518}} {
		err := l.SetRate(ctx, m, Limit{})
		if m.Rate == 8 {
			wantErr(t, err, os.ErrInvalid, "takes longer") // a frame takes 25 minutes
			continue
		}
		if needTC(t, err); err != nil {
			t.Fatal(err)
		}
		got, _, err := l.Rates(ctx)
		want := m.filled(1500)
		if off := got.Burst - want.Burst; err != nil || got.Rate != m.Rate || off > want.Burst/1000+1 || off < -want.Burst/1000-1 {
			t.Errorf("%+v is read as %+v, %v", want, got, err)
		}
		if err := l.SetRate(ctx, got, Limit{}); err != nil {
			t.Errorf("%+v was read and is refused: %v", got, err)
		}
	}
	_, err := l.Update(ctx, Spec{MTU: 9000})
	wantErr(t, err, os.ErrInvalid, "MTU", "burst")
	if err := l.SetRate(ctx, Limit{Rate: Mbit}, Limit{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Update(ctx, Spec{MTU: 9000}); err != nil {
		t.Error(err)
	}
}

// needTC skips where the kernel has no token bucket.
func needTC(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, errors.ErrUnsupported) {
		testutil.NeedKernel(t, 2, 6, "tbf", err)
	}
}

func TestTakeAway(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Alias: "old", Group: 7, AltNames: []string{"one", "two", "three"}, Kind: Bridge{}})
	other := mustCreate(t, ns, Spec{Name: "br1", AltNames: []string{"four"}, Kind: Bridge{}})
	show := func() (list []struct {
		Alias    string   `json:"ifalias"`
		Group    string   `json:"group"`
		AltNames []string `json:"altnames"`
	}) {
		testutil.JSON(t, ns, &list, "ip", "-j", "link", "show", "dev", "br0")
		return list
	}
	for _, err := range []error{l.SetAlias(ctx, "new"), l.SetGroup(ctx, 9), l.DeleteAltNames(ctx, "one")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if s := show()[0]; s.Alias != "new" || s.Group != "9" || len(s.AltNames) != 2 {
		t.Errorf("ip shows %+v", s)
	}
	wantErr(t, l.DeleteAltNames(ctx, "none", "four", "two", "br0"), os.ErrNotExist, "alternative name none of link br0", "alternative name four of", "alternative name br0 of")
	for _, err := range []error{l.SetAlias(ctx, ""), l.SetGroup(ctx, 0), l.DeleteAltNames(ctx, "three"), l.DeleteAltNames(ctx)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if s := show()[0]; s.Alias != "" || s.Group != "default" || len(s.AltNames) != 0 {
		t.Errorf("ip shows %+v", s)
	}
	wantErr(t, l.SetAlias(ctx, strings.Repeat("x", 256)), os.ErrInvalid)
	wantErr(t, l.DeleteAltNames(ctx, ""), os.ErrInvalid)
	if _, err := Get(ctx, ns, "four"); err != nil || other.Delete(ctx) != nil {
		t.Error(err)
	}
	wantErr(t, other.SetAlias(ctx, "x"), os.ErrNotExist)
}

// Errors say whose the taken name is, which module lacks, and what lies in the way.
func TestErrorsNameTheHolder(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br0", AltNames: []string{"other"}, Kind: Bridge{}})
	_, err := Create(ctx, ns, Spec{Name: "other", Kind: Bridge{}})
	wantErr(t, err, os.ErrExist, "alternative name of link br0")
	_, err = Create(ctx, ns, Spec{Name: "br1", AltNames: []string{"fine", "other"}, Kind: Bridge{}})
	wantErr(t, err, os.ErrExist, "other is one of link br0")
	l := mustCreate(t, ns, Spec{Name: "a", Master: br.Ref(), Kind: Veth{Peer: Spec{Name: "b"}}})
	_, err = l.Update(ctx, Spec{AltNames: []string{"other"}})
	wantErr(t, err, os.ErrExist, "other is one of link br0")
	_, err = Create(ctx, ns, Spec{Name: "m", Parent: l.Ref(), Kind: Macvlan{}})
	if testutil.NeedKernel(t, 2, 6, "macvlan", unsupported(err)); err != nil {
		wantErr(t, err, unix.EBUSY, "a port of br0", "macvlan")
	} else {
		t.Error("a macvlan lies on a port")
	}
	lo, err := Get(ctx, ns, "lo")
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, lo.Delete(ctx), unix.EOPNOTSUPP, "cannot be deleted")
	onlyThese(t, ns, "lo", "br0", "a", "b")
}

func unsupported(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

func TestModuleOfAKind(t *testing.T) {
	t.Parallel()
	for kind, module := range map[string]string{"vlan": "8021q", "bond": "bonding", "gre": "ip_gre", "dummy": "dummy", "ip6gretap": "ip6_gre"} {
		if got := moduleOf(kind); got != module {
			t.Errorf("the module of %s is %s, want %s", kind, got, module)
		}
	}
	if s := optionNames(declare(Bridge{VLANFiltering: new(true)}).fields); !strings.Contains(s, "IFLA_BR_VLAN_FILTERING") {
		t.Errorf("the options are %s", s)
	}
	if s := optionNames(declare(Other{Name: "gtp", Data: []Attr{{Type: 1, Data: make([]byte, 4)}}}).fields); s != "attribute 1" {
		t.Errorf("the options are %s", s)
	}
}

// What the kernel does not show of a kind without a type here is taken on trust, and
// what it shows is compared.
func TestOtherAttributesThatAreNotShown(t *testing.T) {
	t.Parallel()
	k := Other{Name: "gtp", Data: []Attr{{Type: 1, Data: []byte{5, 0, 0, 0}}, {Type: 3, Data: []byte{0, 4, 0, 0}}}}
	for shown, want := range map[string]int{"": 0, "\x00\x04\x00\x00": 0, "\x00\x08\x00\x00": 1} {
		var have state
		if shown != "" {
			have.at[placeData][3] = []byte(shown)
		}
		k.addUnreported(&have.at[placeData])
		m, o := message{have: &have}, declare(k)
		if m.data(&o); len(m.names) != want {
			t.Errorf("with %q shown, %v differ", shown, m.names)
		}
	}
}
