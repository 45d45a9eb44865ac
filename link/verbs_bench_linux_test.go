package link

import (
	"context"
	"encoding/binary"
	"iter"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// manyTopology is a bridge with n addresses and n neighbours.
func manyTopology(t testing.TB, n int) (*netns.NS, Link) {
	t.Helper()
	ns := netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	addrs, neighs := make([]netip.Prefix, n), make([]Neighbour, n)
	for i := range n {
		ip := [4]byte{10, 0, byte(i >> 8), byte(i)}
		addrs[i] = netip.PrefixFrom(netip.AddrFrom4(ip), 32)
		ip[1] = 1
		neighs[i] = Neighbour{Addr: netip.AddrFrom4(ip), MAC: mac(byte(i))}
	}
	if addrs[0].Addr().As4()[3] == 0 {
		addrs[0] = netip.MustParsePrefix("10.9.9.9/32")
	}
	if err := br.AddPrefixes(t.Context(), addrs...); err != nil {
		t.Fatal(err)
	}
	if err := br.AddNeighbours(t.Context(), neighs...); err != nil {
		t.Fatal(err)
	}
	return ns, br
}

// A list of 1,000 costs no allocation an entry.
func TestListAllocs(t *testing.T) {
	ctx := context.Background()
	ns, br := manyTopology(t, 1000)
	for name, list := range map[string]func() (int, error){
		"Neighbours": func() (int, error) {
			l, err := ListNeighbours(ctx, ns, NeighbourFilter{Link: br.Ref()})
			return len(l), err
		},
		"Addrs": func() (int, error) { l, err := br.Addrs(ctx); return len(l), err },
	} {
		n := allocs.PerRun(t, 10, func() {
			if n, err := list(); err != nil || n < 1000 {
				t.Fatal(n, err)
			}
		})

		if n > 32 {
			t.Errorf("%s: %v allocations for 1,000 entries, want at most 32", name, n)
		}
	}
}

func TestEventAllocs(t *testing.T) {
	w := watcher{}
	w.on[TopicAddrs], w.on[TopicNeighbours] = true, true
	n := Neighbour{Addr: netip.MustParseAddr("10.0.0.1"), MAC: mac(1)}
	for name, c := range map[string]struct {
		m    nl.Message
		most float64 // the thing itself, and its hardware address
	}{
		"address":   {nl.Message{Type: unix.RTM_NEWADDR, Body: encodeAddr(3, &Addr{Prefix: netip.MustParsePrefix("10.0.0.1/24")}, editAdd).Body}, 1},
		"neighbour": {nl.Message{Type: unix.RTM_NEWNEIGH, Body: encodeNeighbour(3, &n, editReplace).Body}, 3},
	} {
		if n := allocs.PerRun(t, 100, func() { _, _, _ = w.decode(t.Context(), nl.NoID, c.m) }); n > c.most {
			t.Errorf("%s: %v allocations an event, want at most %v", name, n, c.most)
		}
	}
}

// The baseline reads the same dump with plain system calls and decodes nothing.
func BenchmarkLists(b *testing.B) {
	ctx := context.Background()
	ns, br := manyTopology(b, 1000)
	neighs, addrs := NeighbourFilter{Link: br.Ref()}, getAddrs(br.Index)
	for _, c := range []struct {
		name string
		list func() error
		req  nl.Request
	}{
		{"neighbours", func() error { _, err := ListNeighbours(ctx, ns, neighs); return err }, neighs.request()},
		{"addresses", func() error { _, err := br.Addrs(ctx); return err }, addrs},
	} {
		b.Run(c.name+"/List", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.list(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/baseline", func(b *testing.B) {
			fd := rawSocket(b, ns)
			if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
				b.Fatal(err)
			}
			msg, buf := frame(c.req.Body, c.req.Type, unix.NLM_F_DUMP), make([]byte, 1<<16)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := unix.Write(fd, msg); err != nil {
					b.Fatal(err)
				}
				for done := false; !done; {
					n, err := unix.Read(fd, buf)
					if err != nil || n < 16 {
						b.Fatal(n, err)
					}
					for at := 0; at < n; at += int(binary.NativeEndian.Uint32(buf[at:])+3) &^ 3 {
						done = done || binary.NativeEndian.Uint16(buf[at+4:]) == unix.NLMSG_DONE
					}
				}
			}
		})
	}
}

// An address comes and goes, and both are heard of: by Watch, and by a plain
// socket that decodes nothing.
func BenchmarkEvents(b *testing.B) {
	setup := func(b *testing.B) (ns *netns.NS, toggle func()) {
		ns = netnstest.New(b)
		br := mustCreate(b, ns, Spec{Name: "br0", Kind: Bridge{}})
		fd := rawSocket(b, ns)
		a := StaticAddr(netip.MustParsePrefix("10.0.0.1/32"))
		both := append(frame(encodeAddr(br.Index, &a, editAdd).Body, unix.RTM_NEWADDR, unix.NLM_F_CREATE),
			frame(encodeAddr(br.Index, &a, editDelete).Body, unix.RTM_DELADDR, unix.NLM_F_ACK)...)
		return ns, func() { exchange(b, fd, both) }
	}
	b.Run("Watch", func(b *testing.B) {
		ns, toggle := setup(b)
		next, stop := iter.Pull2(Watch(b.Context(), ns, TopicAddrs))
		defer stop()
		for e, err, _ := next(); e.Kind != EventSynced; e, err, _ = next() {
			if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportAllocs()
		for b.Loop() {
			toggle()
			for range 2 {
				if _, err, ok := next(); err != nil || !ok {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("baseline", func(b *testing.B) {
		ns, toggle := setup(b)
		fd, buf := rawSocket(b, ns), make([]byte, 1<<16)
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			b.Fatal(err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_IPV4_IFADDR); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			toggle()
			for range 2 {
				if _, err := unix.Read(fd, buf); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
