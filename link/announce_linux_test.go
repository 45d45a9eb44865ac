package link

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// A neighbour remembers another hardware address for two addresses; announced,
// it remembers the right one.
func TestAnnounceCorrectsANeighbour(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := t.Context()
	host, box := netnstest.New(t), netnstest.New(t)
	mine := prefixes("10.0.0.2/24", "fd00::2/64")
	l := mustCreate(t, host, Spec{Name: "web0", Up: true, Addrs: prefixes("10.0.0.1/24", "fd00::1/64"), Kind: Veth{Peer: Spec{NS: box, Name: "eth0", Up: true, Addrs: mine}}})
	eth, err := Get(ctx, box, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []Link{l, eth} {
		if _, err := w.WaitCarrier(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, announced := range [][]netip.Addr{nil, {mine[0].Addr(), mine[1].Addr()}} {
		wrong := []Neighbour{{Addr: mine[0].Addr(), MAC: mac(9), State: NeighbourStale}, {Addr: mine[1].Addr(), MAC: mac(9), State: NeighbourStale}}
		if err := l.ReplaceNeighbours(ctx, wrong...); err != nil {
			t.Fatal(err)
		}
		right := map[netip.Addr]bool{}
		for e, err := range Watch(ctx, host, TopicNeighbours) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind == EventSynced {
				if err := eth.Announce(ctx, announced...); err != nil {
					t.Fatal(err)
				}
			}
			if n := e.Neighbour; n != nil && slices.Equal(n.MAC, eth.MAC) && !n.Addr.IsLinkLocalUnicast() {
				right[n.Addr] = true
			}
			if len(right) == 2 {
				break
			}
		}
		show := showNeighs(t, host, "nud", "all")
		for _, p := range mine {
			if n := show[p.Addr().String()]; n.MAC != eth.MAC.String() {
				t.Errorf("ip shows %+v, the box has %s", n, eth.MAC)
			}
		}
	}
	wantErr(t, eth.Announce(ctx, netip.MustParseAddr("224.0.0.1")), os.ErrInvalid, "224.0.0.1")
	lo, err := Get(ctx, box, "lo")
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, lo.Announce(ctx), os.ErrInvalid, "no Ethernet address")
	if err := l.SetDown(ctx); err != nil {
		t.Fatal(err)
	}
	wantErr(t, l.Announce(ctx), unix.ENETDOWN, "no carrier")
	if err := l.Delete(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantErr(t, l.Announce(ctx), os.ErrNotExist)
}

func TestAdvertisementChecksum(t *testing.T) {
	t.Parallel()
	b := neighbourAdvertisement(mac(1), netip.MustParseAddr("fe80::1"))
	sum := checksum(b[8:]) + 32 + unix.IPPROTO_ICMPV6
	if sum = sum>>16 + sum&0xffff; sum != 0xffff {
		t.Errorf("the checksum adds up to %#x", sum)
	}
	if len(b) != 72 {
		t.Errorf("%d bytes", len(b))
	}
}
