package link

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
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

// What the kernel sends by itself and what goes out by a packet socket are the same frames, once each, and no
// neighbour entry stays.
func TestAnnounceSendsEachAddressOnce(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := t.Context()
	host, box := netnstest.New(t), netnstest.New(t)
	l := mustCreate(t, host, Spec{Name: "web0", Up: true, Kind: Veth{Peer: Spec{
		NS: box, Name: "eth0", Up: true, Addrs: prefixes("10.0.0.2/24", "10.0.0.3/24", "10.1.0.2/16", "fd00::2/64", "fd00::3/64"),
	}}})
	eth, err := Get(ctx, box, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.WaitReachable(ctx); err != nil {
		t.Fatal(err)
	}
	all := []netip.Addr{}
	// The last two are not the link's.
	for _, a := range []string{"10.0.0.2", "10.0.0.3", "10.1.0.2", "fd00::2", "fd00::3", "10.0.0.9", "fd00::9"} {
		all = append(all, netip.MustParseAddr(a))
	}
	heard, err := netns.Do(ctx, host, func(context.Context) (int, error) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return fd, err
		}
		return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: l.Index, Protocol: htons(unix.ETH_P_ALL)})
	})
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("needs CAP_NET_RAW: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(heard)
	if err := unix.SetsockoptTimeval(heard, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	announced := func(frame []byte) netip.Addr {
		switch {
		case len(frame) >= 42 && frame[12] == 8 && frame[13] == 6 && slices.Equal(frame[28:32], frame[38:42]):
			a, _ := netip.AddrFromSlice(frame[28:32])
			return a
		case len(frame) >= 86 && frame[12] == 0x86 && frame[54] == 136 && frame[21] == 255 && slices.Equal(frame[80:86], eth.MAC):
			a, _ := netip.AddrFromSlice(frame[62:78])
			return a
		}
		return netip.Addr{}
	}
	for _, noARP := range []bool{false, true} {
		if noARP {
			testutil.Run(t, box, "ip", "link", "set", "eth0", "arp", "off")
		}
		if err := eth.Announce(ctx, all...); err != nil {
			t.Fatal(err)
		}
		last := netip.MustParseAddr("fd00::ffff")
		if err := eth.Announce(ctx, last); err != nil {
			t.Fatal(err)
		}
		times := map[netip.Addr]int{}
		for b := make([]byte, 2048); times[last] == 0 || len(times) <= len(all); { // processors may deliver out of order
			n, _, err := unix.Recvfrom(heard, b, 0)
			if err != nil {
				t.Fatal(err)
			}
			if a := announced(b[:n]); a.IsValid() && slices.Equal(b[6:12], eth.MAC) {
				times[a]++
			}
		}
		for _, a := range all {
			if times[a] != 1 {
				t.Errorf("without ARP %t: %v was announced %d times", noARP, a, times[a])
			}
		}
		if left := showNeighs(t, box, "nud", "all"); len(left) != 0 {
			t.Errorf("entries have stayed: %v", left)
		}
	}
}
