package link

import (
	"net/netip"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// Both ends of a pair have one MTU where only one is given: a packet as long as
// that goes either way, of either family.
func TestEndsOfAPairHaveOneMTU(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := t.Context()
	for name, tt := range map[string]struct {
		outer, peer, master  int
		wantOuter, wantInner int
	}{
		"outer":        {9000, 0, 0, 9000, 9000},
		"peer":         {0, 9000, 0, 9000, 9000},
		"port":         {9000, 0, 9000, 9000, 9000},
		"small":        {1400, 0, 0, 1400, 1400},
		"both":         {9000, 1500, 0, 9000, 1500},
		"neither":      {0, 0, 0, 1500, 1500},
		"small bridge": {9000, 0, 1500, 9000, 9000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, box := netnstest.New(t), netnstest.New(t)
			outerAddrs, innerAddrs := prefixes("10.0.0.1/24", "fd00::1/64"), prefixes("10.0.0.2/24", "fd00::2/64")
			s := Spec{Name: "web0", Up: true, MTU: tt.outer, Addrs: outerAddrs, Kind: Veth{Peer: Spec{NS: box, Name: "eth0", Up: true, MTU: tt.peer, Addrs: innerAddrs}}}
			if tt.master != 0 {
				br := mustCreate(t, host, Spec{Name: "br0", Up: true, MTU: tt.master, Kind: Bridge{}, Addrs: outerAddrs})
				s.Master, s.Addrs = br.Ref(), nil
			}
			l := mustCreate(t, host, s)
			outer, inner := ipLinks(t, host)["web0"], ipLinks(t, box)["eth0"]
			if outer.MTU != tt.wantOuter || inner.MTU != tt.wantInner || l.MTU != tt.wantOuter {
				t.Fatalf("ip shows the MTUs %d and %d, Create returned %d; want %d and %d", outer.MTU, inner.MTU, l.MTU, tt.wantOuter, tt.wantInner)
			}
			again, err := Ensure(ctx, host, s)
			if err != nil || again.MTU != tt.wantOuter || ipLinks(t, box)["eth0"].MTU != tt.wantInner {
				t.Errorf("Ensure: MTU %d, %v", again.MTU, err)
			}
			if tt.wantOuter != tt.wantInner || name == "small bridge" {
				return
			}
			if err := l.WaitReachable(ctx); err != nil {
				t.Fatal(err)
			}
			echoes(t, host)
			echoes(t, box)
			for i, family := range []int{28, 48} { // of the packet's headers
				size := tt.wantInner - family
				if err := goes(ctx, host, innerAddrs[i].Addr(), size); err != nil {
					t.Errorf("%d bytes to %s: %v", size, innerAddrs[i], err)
				}
				if err := goes(ctx, box, outerAddrs[i].Addr(), size); err != nil {
					t.Errorf("%d bytes to %s: %v", size, outerAddrs[i], err)
				}
			}
		})
	}
}

// Ensure gives a change of the MTU to both ends, and an MTU that is too small for
// either end's IPv6 addresses is refused.
func TestMTUOfAPairThatIsThere(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	s := Spec{Name: "a", Kind: Veth{Peer: Spec{Name: "b"}}}
	mustCreate(t, ns, s)
	s.MTU = 9000
	if _, err := Ensure(ctx, ns, s); err != nil {
		t.Fatal(err)
	}
	if w := ipLinks(t, ns); w["a"].MTU != 9000 || w["b"].MTU != 9000 {
		t.Errorf("ip shows the MTUs %d and %d", w["a"].MTU, w["b"].MTU)
	}
	v6 := []netip.Prefix{netip.MustParsePrefix("fd00::1/64")}
	_, err := Create(ctx, ns, Spec{Name: "c", MTU: 1000, Kind: Veth{Peer: Spec{Name: "d", Addrs: v6}}})
	wantErr(t, err, os.ErrInvalid, "MTU 1000 is too small")
	_, err = Create(ctx, ns, Spec{Name: "c", Addrs: v6, Kind: Veth{Peer: Spec{Name: "d", MTU: 1000}}})
	wantErr(t, err, os.ErrInvalid, "MTU 1000", "too small")
	k, err := Create(ctx, ns, Spec{Name: "nk0", MTU: 4000, Kind: Netkit{Peer: Spec{Name: "nk1"}}})
	testutil.NeedKernel(t, 6, 7, "netkit", err)
	if w := ipLinks(t, ns); w["nk0"].MTU != 4000 || w["nk1"].MTU != 4000 || k.MTU != 4000 {
		t.Errorf("ip shows the MTUs %d and %d of a netkit", w["nk0"].MTU, w["nk1"].MTU)
	}
}
