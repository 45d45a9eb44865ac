package link

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestAddressesAddListDelete(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	all := prefixes("10.0.0.1/24", "10.0.1.1/24", "fd88::1/64", "fd88::2/128")
	if err := l.AddPrefixes(ctx, all...); err != nil {
		t.Fatal(err)
	}
	if got := ipLinks(t, ns)["br0"].addrs(); !sameSet(got, all) {
		t.Errorf("ip shows %v, want %v", got, all)
	}
	addrs, err := l.Addrs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []netip.Prefix
	for _, a := range addrs {
		if a.Scope == AddrScopeLink {
			continue
		}
		got = append(got, a.Prefix)
		if a.Tentative() || a.DADFailed() || a.Flags&AddrPermanent == 0 || a.Peer.IsValid() {
			t.Errorf("address %+v", a)
		}
		if a.Prefix.Addr().Is6() != (a.Flags&AddrNoDAD != 0) || a.Prefix.Addr().Is4() != a.Broadcast.IsValid() {
			t.Errorf("address %+v", a)
		}
	}
	if !sameSet(got, all) {
		t.Errorf("Addrs: %v, want %v", got, all)
	}
	if err := l.DeleteAddrs(ctx, all[1], all[2]); err != nil {
		t.Fatal(err)
	}
	if got, want := ipLinks(t, ns)["br0"].addrs(), prefixes("10.0.0.1/24", "fd88::2/128"); !sameSet(got, want) {
		t.Errorf("ip shows %v, want %v", got, want)
	}
	wantErr(t, l.DeleteAddrs(ctx, all[1]), os.ErrNotExist, "address 10.0.1.1/24 on link br0", "does not have")
	wantErr(t, l.DeleteAddrs(ctx, all[2]), os.ErrNotExist, "address fd88::1/64 on link br0")
	if err := l.AddPrefixes(ctx); err != nil {
		t.Error(err)
	}
}

func TestAddAddrAllOrNone(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}, Addrs: prefixes("10.0.0.1/24", "fd88::1/64")})
	before := ipLinks(t, ns)["br0"].addrs()
	err := l.AddPrefixes(ctx, prefixes("10.0.0.2/24", "10.0.0.1/24", "10.1.0.1/24", "fd88::1/64", "fd88::2/64")...)
	wantErr(t, err, os.ErrExist, "address 10.0.0.1/24 on link br0", "address fd88::1/64 on link br0", "already")
	if got := ipLinks(t, ns)["br0"].addrs(); !reflect.DeepEqual(got, before) {
		t.Errorf("ip shows %v, want %v", got, before)
	}
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("224.0.0.1/8")} {
		wantErr(t, l.AddPrefixes(ctx, bad), os.ErrInvalid)
	}
	if err := l.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	wantErr(t, l.AddPrefixes(ctx, prefixes("10.0.0.2/24")...), os.ErrNotExist, "the link is gone")
}

func TestAddrsReadsWhatIPMade(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	testutil.Witness(t, "ip")
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	testutil.Run(t, ns, "ip", "address", "add", "10.0.0.1", "peer", "10.0.9.9/24", "dev", "br0", "scope", "link")
	testutil.Run(t, ns, "ip", "address", "add", "fd88::1", "peer", "fd88::9/128", "dev", "br0", "nodad", "noprefixroute")
	addrs, err := l.Addrs(ctx)
	if err != nil || len(addrs) != 2 {
		t.Fatalf("%v, %v", addrs, err)
	}
	if a := addrs[0]; a.Prefix.String() != "10.0.0.1/24" || a.Peer.String() != "10.0.9.9" || a.Scope != AddrScopeLink {
		t.Errorf("IPv4: %+v", a)
	}
	if a := addrs[1]; a.Prefix.String() != "fd88::1/128" || a.Peer.String() != "fd88::9" || a.Flags&(AddrNoPrefixRoute|AddrNoDAD) != AddrNoPrefixRoute|AddrNoDAD {
		t.Errorf("IPv6: %+v", a)
	}
}

func TestAddAddrWhereMTUIsTooSmallForIPv6(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}, MTU: 1000}) // too small for IPv6
	err := l.AddPrefixes(context.Background(), prefixes("10.0.0.1/24", "fd88::1/64")...)
	if err == nil {
		t.Skip("this kernel runs IPv6 on a link with an MTU of 1000")
	}
	t.Log(err)
	wantErr(t, err, unix.EINVAL, "fd88::1/64", "MTU below 1280")
	if got := ipLinks(t, ns)["br0"].addrs(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestBroadcastOf(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"10.88.0.2/16": "10.88.255.255", "10.0.0.1/30": "10.0.0.3", "10.0.0.130/25": "10.0.0.255",
		"10.0.0.1/0": "255.255.255.255", "10.0.0.1/31": "invalid IP", "10.0.0.1/32": "invalid IP", "fd88::1/64": "invalid IP",
	} {
		if got := broadcastOf(netip.MustParsePrefix(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func sameSet(a, b []netip.Prefix) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Prefix.Compare)
	slices.SortFunc(b, netip.Prefix.Compare)
	return slices.Equal(a, b)
}

func TestAddAddrWhereIPv6IsDisabled(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	_, err := netns.Do(ctx, ns, func(context.Context) (struct{}, error) {
		return struct{}{}, os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	if err != nil {
		t.Skip(err)
	}
	_, err = Create(ctx, ns, Spec{Name: "br0", Kind: Bridge{}, Addrs: prefixes("10.0.0.1/24", "fd88::1/64")})
	wantErr(t, err, errors.ErrUnsupported, "address fd88::1/64 on link br0", "disable_ipv6")
	onlyLo(t, ns)
}

func TestDeleteAddrGoesOnPastWhatIsMissing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	var all []netip.Prefix
	for i := range 230 {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 1}), 32))
	}
	if err := l.AddPrefixes(ctx, all...); err != nil {
		t.Fatal(err)
	}
	missing := prefixes("192.0.2.1/32", "192.0.2.2/32")
	err := l.DeleteAddrs(ctx, slices.Concat(missing[:1], all[:220], missing[1:], all[220:])...)
	wantErr(t, err, os.ErrNotExist, "192.0.2.1/32", "192.0.2.2/32")
	if got := ipLinks(t, ns)["br0"].addrs(); len(got) != 0 {
		t.Errorf("%d addresses are left", len(got))
	}
}
