package nat

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// frames are what arrived at a link, whomever it was for.
type frames struct {
	mu  sync.Mutex // guards all
	all [][]byte
}

// sniff hears every frame that arrives at a link.
func sniff(t *testing.T, ns *netns.NS, dev string) *frames {
	t.Helper()
	fd, err := netns.Do(t.Context(), ns, func(context.Context) (int, error) {
		l, err := net.InterfaceByName(dev)
		if err != nil {
			return 0, err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000})
		}
		if err == nil {
			err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(l.Index), Type: unix.PACKET_MR_PROMISC})
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: l.Index}) // ETH_P_ALL
		}
		return fd, err
	})
	if err != nil {
		t.Fatal(err)
	}
	f, done, ended := new(frames), make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(done); <-ended; unix.Close(fd) })
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			select {
			case <-done:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if ll, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && ll.Pkttype != unix.PACKET_OUTGOING {
				f.mu.Lock()
				f.all = append(f.all, bytes.Clone(buf[:n]))
				f.mu.Unlock()
			}
		}
	}()
	return f
}

// has reports whether a frame with the mark has arrived.
func (f *frames) has(mark string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.all, func(frame []byte) bool { return bytes.Contains(frame, []byte(mark)) })
}

// arp is a frame's type and an ARP packet (RFC 826) with a mark behind.
func arp(op byte, sender net.HardwareAddr, from, to string, mark string) []byte {
	a, b := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
	return slices.Concat([]byte{8, 6, 0, 1, 8, 0, 6, 4, 0, op}, sender, a[:], make([]byte, 6), b[:], []byte(mark))
}

// icmp6Packet is a frame's type and an ICMPv6 packet: type, code and checksum, then body, then a mark in
// an option (RFC 4861: type and length, 6 bytes of text).
func icmp6Packet(src, dst string, typ byte, body []byte, mark string) []byte {
	text := append([]byte(mark), make([]byte, 6)...)[:6]
	p := slices.Concat([]byte{typ, 0, 0, 0}, body, []byte{14, 1}, text)
	return ipPacket(netip.MustParseAddr(src), netip.MustParseAddr(dst), unix.IPPROTO_ICMPV6, 255, p, 2)
}

// aboutAddr is the body of a neighbour solicitation or advertisement.
func aboutAddr(target string) []byte {
	a := netip.MustParseAddr(target).As16()
	return append(make([]byte, 4), a[:]...)
}

// behind puts an extension header of 8 bytes before the payload of an IPv6 packet. Its first byte, the
// type of what follows, is filled in.
func behind(packet []byte, typ byte, header [8]byte) []byte {
	p := slices.Clone(packet)
	header[0], p[2+6] = p[2+6], typ
	binary.BigEndian.PutUint16(p[2+4:], binary.BigEndian.Uint16(p[2+4:])+8)
	return slices.Insert(p, 2+40, header[:]...)
}

// fragments splits an IPv6 packet in two.
func fragments(packet []byte) [][]byte {
	head, payload := packet[:2+40], packet[2+40:]
	at := 8
	var all [][]byte
	for _, f := range []struct {
		part   []byte
		offset uint16
	}{{payload[:at], 1}, {payload[at:], uint16(at)}} { // 1: more follow
		p := slices.Concat(head, f.part)
		binary.BigEndian.PutUint16(p[2+4:], uint16(len(f.part)))
		header := [8]byte{4: 0, 7: 77}
		binary.BigEndian.PutUint16(header[2:], f.offset)
		all = append(all, behind(p, unix.IPPROTO_FRAGMENT, header))
	}
	return all
}

// forgery is a frame that a guarded box has no business to send.
type forgery struct {
	name   string
	from   net.HardwareAddr // nil: its own
	to     net.HardwareAddr
	frames func(mark string) [][]byte
	at     *frames // who must not hear it
	open   string  // for nft: what lets it through
	silent bool    // it is not counted as forged
}

// guardAttack is a topology with guards, and an attacker in the box.
type guardAttack struct {
	topology
	state State
	end   wireEnd
	sent  int
}

// send sends frames, and after them one that arrives everywhere. It returns when that one has arrived.
func (g *guardAttack) send(t *testing.T, f forgery, mark string) {
	t.Helper()
	end := g.end
	if f.from != nil {
		end.from = f.from
	}
	g.sent++
	after := fmt.Sprintf("after%d.", g.sent)
	if !until(func() bool {
		for _, frame := range f.frames(mark) {
			end.sendFrame(t, f.to, frame)
		}
		g.end.sendFrame(t, broadcastMAC, arp(1, g.end.from, "10.88.0.2", "10.88.9.9", after))
		return f.at.has(after)
	}) {
		t.Fatalf("%s: what is allowed does not arrive either", f.name)
	}
}

var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func (g *guardAttack) forged(t *testing.T) uint64 {
	t.Helper()
	for _, s := range g.list(t) {
		if s.Port == "box0" {
			return s.Forged
		}
	}
	t.Fatal("no guard")
	return 0
}

// expectBlocked shows that a forgery does not arrive, that it is counted, and that it arrives when what
// is against it is taken away.
func (g *guardAttack) expectBlocked(t *testing.T, f forgery) {
	t.Helper()
	if err := g.gw.Sync(t.Context(), g.state); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, g.host, "ip", "neigh", "flush", "dev", "br0") // which a forgery before may have changed
	before := g.forged(t)
	g.sent++
	mark := fmt.Sprintf("F%d.", g.sent)
	g.send(t, f, mark)
	if f.at.has(mark) {
		t.Errorf("%s: arrived", f.name)
	}
	if now := g.forged(t); (now > before) == f.silent {
		t.Errorf("%s: %d frames are counted, then %d\n%s", f.name, before, now, testutil.Run(t, g.host, "nft", "list", "table", "bridge", "boxwire"))
	}
	testutil.Run(t, g.host, "nft", f.open)
	opened := fmt.Sprintf("O%d.", g.sent)
	if !until(func() bool { g.send(t, f, opened); return f.at.has(opened) }) {
		t.Errorf("%s: does not arrive after %q either: the test proves nothing", f.name, f.open)
	}
}

// Every way of a box to pass for another one, or for the host.
func TestAGuardedBoxForgesNothing(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := newGuarded(t, filtered)
		s.waitReady(t)
		g := &guardAttack{topology: s, end: newWireEnd(t, s.box, "eth0"), state: State{Networks: []Network{network0()}, Guards: s.guards(t)}}
		own, sib, gate := g.end.from, macOf(t, s.sibling, "eth0"), macOf(t, s.host, "br0")
		sibling, host := sniff(t, s.sibling, "eth0"), sniff(t, s.host, "br0")
		all := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
		me, other, link, alien := "10.88.0.2", "10.88.0.7", Guard{MAC: own}.linkLocal().String(), "fe80::bad"
		const me6, other6, allNodes = "fd88::2", "fd88::7", "ff02::1"
		one := func(f func(mark string) []byte) func(string) [][]byte {
			return func(mark string) [][]byte { return [][]byte{f(mark)} }
		}
		dgram := func(src, dst string) func(string) [][]byte {
			return one(func(mark string) []byte { return datagram(ap(src), ap(dst), mark) })
		}
		type6 := func(src, dst string, typ byte, body []byte) func(string) [][]byte {
			return one(func(mark string) []byte { return icmp6Packet(src, dst, typ, body, mark) })
		}
		tagged := func(tag ...byte) func(string) [][]byte {
			return one(func(mark string) []byte {
				return append(slices.Clone(tag), datagram(ap(me+":7"), ap("10.88.0.3:80"), mark)...)
			})
		}
		element := func(set, key string) string {
			return fmt.Sprintf("add element bridge boxwire %s { \"box0\" . %s }", set, key)
		}
		pass := func(chains ...string) (cmd string) {
			for _, c := range chains {
				cmd += "insert rule bridge boxwire " + c + " iifname box0 accept; "
			}
			return cmd
		}
		padding, alert := [8]byte{2: 1, 3: 4}, [8]byte{2: 5, 3: 2, 6: 1} // destination options; hop by hop with a router alert (RFC 2711)
		behindPadding := func(f func(string) [][]byte) func(string) [][]byte {
			return one(func(mark string) []byte { return behind(f(mark)[0], unix.IPPROTO_DSTOPTS, padding) })
		}
		inTwo := func(f func(string) [][]byte) func(string) [][]byte {
			return func(mark string) [][]byte { return fragments(f(mark)[0]) }
		}
		advert := type6(me6, allNodes, icmp6NeighbourAdvert, aboutAddr("fd88::1"))
		routerAdvert := type6(link, allNodes, icmp6RouterAdvert, make([]byte, 12))
		redirect := type6(link, "fd88::1", icmp6Redirect, append(aboutAddr(me6), make([]byte, 16)...))
		query := one(func(mark string) []byte {
			return behind(icmp6Packet(link, allNodes, icmp6ListenerQuery, make([]byte, 20), mark), unix.IPPROTO_HOPOPTS, alert)
		})
		probe := one(func(mark string) []byte {
			return icmp6Packet("::", allNodes, icmp6NeighbourSolicit, aboutAddr(other6), mark)
		})
		igmp := func(typ byte) func(string) [][]byte {
			return one(func(mark string) []byte {
				// Like that of ICMP, the checksum is of the payload alone.
				p := ipPacket(netip.MustParseAddr(me), netip.MustParseAddr("224.0.0.1"), unix.IPPROTO_ICMP, 1, append([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, mark...), 2)
				p[2+9], p[2+10], p[2+11] = unix.IPPROTO_IGMP, 0, 0
				binary.BigEndian.PutUint16(p[2+10:], checksum(p[2:22]))
				return p
			})
		}
		alsoMAC := "; " + element("mac", other2.String())
		attacks := []forgery{
			{name: "another MAC", from: other2, to: sib, frames: dgram(me+":7", "10.88.0.3:80"), at: sibling, open: element("mac", other2.String())},
			{name: "the sibling's MAC, to the host", from: sib, to: gate, frames: dgram(me+":7", "10.88.0.1:80"), at: host, open: element("mac", sib.String())},
			{name: "another's address", to: sib, frames: dgram(other+":7", "10.88.0.3:80"), at: sibling, open: element("src4", other)},
			{name: "another's address, by way of the host", to: gate, frames: dgram(other+":7", "10.88.0.3:80"), at: sibling, open: element("src4", other)},
			{name: "another's IPv6 address", to: sib, frames: dgram("["+other6+"]:7", "[fd88::3]:80"), at: sibling, open: element("src6", other6)},
			{name: "both", from: other2, to: sib, frames: dgram(other+":7", "10.88.0.3:80"), at: sibling, open: element("src4", other) + alsoMAC},
			{name: "no address", to: gate, frames: dgram("0.0.0.0:7", "10.88.0.1:80"), at: host, open: element("src4", "0.0.0.0")},
			{name: "no IPv6 address", to: gate, frames: dgram("[::]:7", "[fd88::1]:80"), at: host, open: element("src6", "::")},
			{name: "a link-local address", to: gate, frames: dgram("["+alien+"]:7", "[fd88::1]:80"), at: host, open: element("src6", alien)},
			{name: "a link-local address, behind an extension header", to: gate, frames: behindPadding(dgram("["+alien+"]:7", "[fd88::1]:80")), at: host, open: element("src6", alien)},
			{name: "another's address, in fragments", to: gate, frames: inTwo(dgram("["+other6+"]:7", "[fd88::3]:80")), at: sibling, open: element("src6", other6)},

			{name: "ARP request of the gateway", to: broadcastMAC, frames: one(func(m string) []byte { return arp(1, own, "10.88.0.1", me, m) }), at: sibling, open: element("src4", "10.88.0.1")},
			{name: "ARP reply of the gateway", to: sib, frames: one(func(m string) []byte { return arp(2, own, "10.88.0.1", "10.88.0.3", m) }), at: sibling, open: element("src4", "10.88.0.1")},
			{name: "ARP reply of the sibling, to the host", to: gate, frames: one(func(m string) []byte { return arp(2, own, "10.88.0.3", "10.88.0.1", m) }), at: host, open: element("src4", "10.88.0.3")},
			{name: "ARP with another MAC inside", to: sib, frames: one(func(m string) []byte { return arp(2, other2, me, "10.88.0.3", m) }), at: sibling, open: element("mac", other2.String())},
			{name: "ARP probe for another's address", to: broadcastMAC, frames: one(func(m string) []byte { return arp(1, own, "0.0.0.0", other, m) }), at: sibling, open: element("src4", other)},
			{name: "ARP of another kind", to: broadcastMAC, frames: one(func(m string) []byte { p := arp(2, own, me, me, m); p[6] = 7; return p }), at: sibling, open: pass("is_arp")},
			{name: "RARP in ARP", to: broadcastMAC, frames: one(func(m string) []byte { return arp(4, own, me, me, m) }), at: sibling, open: pass("is_arp")},

			{name: "advertisement of the gateway", to: all, frames: advert, at: sibling, open: element("src6", "fd88::1")},
			{name: "advertisement of the gateway, to one", to: sib, frames: type6(me6, "fd88::3", icmp6NeighbourAdvert, aboutAddr("fd88::1")), at: sibling, open: element("src6", "fd88::1")},
			{name: "advertisement from another's address", to: all, frames: type6(other6, allNodes, icmp6NeighbourAdvert, aboutAddr(me6)), at: sibling, open: element("src6", other6)},
			{name: "advertisement behind an extension header", to: all, frames: behindPadding(advert), at: sibling, open: pass("is_ip6", "between")},
			{name: "advertisement in fragments", to: all, frames: inTwo(advert), at: sibling, open: pass("is_ip6", "between")},
			{name: "solicitation from another's address", to: all, frames: type6(other6, allNodes, icmp6NeighbourSolicit, aboutAddr("fd88::3")), at: sibling, open: element("src6", other6)},
			{name: "duplicate address detection of another's address", to: all, frames: probe, at: sibling, open: element("src6", other6)},
			{name: "router advertisement", to: all, frames: routerAdvert, at: host, open: pass("is_icmp6")},
			{name: "router advertisement to a sibling", to: all, frames: routerAdvert, at: sibling, open: pass("is_icmp6", "between")},
			{name: "router advertisement behind an extension header", to: all, frames: behindPadding(routerAdvert), at: host, open: pass("is_ip6")},
			{name: "router advertisement in fragments", to: all, frames: inTwo(routerAdvert), at: host, open: pass("is_ip6")},
			{name: "redirect", to: gate, frames: redirect, at: host, open: pass("is_icmp6")},
			{name: "redirect behind an extension header", to: gate, frames: behindPadding(redirect), at: host, open: pass("is_ip6")},
			{name: "query for multicast listeners", to: all, frames: query, at: host, open: pass("is_ip6")},
			{name: "IGMP query", to: net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}, frames: igmp(0x11), at: host, open: pass("group4")},
			{name: "multicast router advertisement", to: net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}, frames: igmp(0x30), at: host, open: pass("group4")},

			{name: "DHCP server", to: broadcastMAC, frames: dgram(me+":67", "255.255.255.255:68"), at: host, open: pass("own4")},
			{name: "DHCP server, to the sibling", to: sib, frames: dgram(me+":67", "10.88.0.3:68"), at: sibling, open: "flush chain bridge boxwire own4; add rule bridge boxwire own4 ether daddr set iifname map @lift meta pkttype set host accept"},
			{name: "DHCPv6 server", to: all, frames: dgram("["+link+"]:547", "[ff02::1]:546"), at: host, open: pass("own6")},

			{name: "VLAN tag", to: sib, frames: tagged(0x81, 0, 0, 5), at: sibling, open: pass("guarded", "between")},
			{name: "VLAN tag of no VLAN", to: sib, frames: tagged(0x81, 0, 0, 0), at: sibling, open: pass("guarded", "between")},
			{name: "VLAN tag, to the host", to: gate, frames: tagged(0x81, 0, 0, 0), at: host, open: pass("guarded")},
			{name: "VLAN tag of a provider", to: sib, frames: tagged(0x88, 0xa8, 0, 0, 0x81, 0, 0, 5), at: sibling, open: pass("guarded", "between")},
			{name: "ARP with a VLAN tag", to: sib, frames: one(func(m string) []byte { return append([]byte{0x81, 0, 0, 0}, arp(2, own, me, "10.88.0.3", m)...) }), at: sibling, open: pass("guarded")},
			{name: "another type", to: sib, frames: one(func(m string) []byte { return append([]byte{0x88, 0xb5}, m...) }), at: sibling, open: pass("guarded", "between")},
			{name: "802.3", to: broadcastMAC, frames: one(func(m string) []byte { return append([]byte{0, 40, 0x42, 0x42, 3}, m...) }), at: sibling, open: pass("guarded", "between")},
			{name: "PPP over Ethernet", to: sib, frames: one(func(m string) []byte { return append([]byte{0x88, 0x63, 0x11, 9, 0, 0}, m...) }), at: sibling, open: pass("guarded", "between")},

			{name: "broadcast to siblings", silent: true, to: broadcastMAC, frames: dgram(me+":7", "255.255.255.255:80"), at: sibling, open: pass("between")},
			{name: "a sibling's address in a broadcast frame", silent: true, to: broadcastMAC, frames: dgram(me+":7", "10.88.0.3:80"), at: sibling, open: pass("between")},
			{name: "multicast to siblings", silent: true, to: all, frames: dgram("["+me6+"]:7", "[ff02::1]:80"), at: sibling, open: pass("between")},
			{name: "router solicitation to siblings", silent: true, to: all, frames: type6(link, allNodes, icmp6RouterSolicit, make([]byte, 4)), at: sibling, open: pass("between")},
		}
		for i, a := range attacks {
			if testutil.Spread(i, 8) {
				g.expectBlocked(t, a)
			}
		}
	})
}

var other2 = net.HardwareAddr{2, 0, 0, 0, 0, 0x77}

// What a guarded box needs to come up arrives.
func TestAGuardedBoxComesUp(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := newGuarded(t, filtered)
		s.waitReady(t)
		end, host, sibling := newWireEnd(t, s.box, "eth0"), sniff(t, s.host, "br0"), sniff(t, s.sibling, "eth0")
		link, all := Guard{MAC: end.from}.linkLocal().String(), net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
		alert := [8]byte{2: 5, 3: 2, 6: 1}
		before := s.list(t)[0].Forged
		for name, c := range map[string]struct {
			to    net.HardwareAddr
			frame []byte
			at    *frames
		}{
			"DHCP":                    {broadcastMAC, datagram(ap("0.0.0.0:68"), ap("255.255.255.255:67"), "N1."), host},
			"DHCP renewal":            {broadcastMAC, datagram(ap("10.88.0.2:68"), ap("255.255.255.255:67"), "N2."), host},
			"DHCPv6":                  {all, datagram(ap("["+link+"]:546"), ap("[ff02::1:2]:547"), "N3."), host},
			"router solicitation":     {all, icmp6Packet("::", "ff02::2", icmp6RouterSolicit, make([]byte, 4), "N4."), host},
			"router solicitation, up": {all, icmp6Packet(link, "ff02::2", icmp6RouterSolicit, make([]byte, 4), "N5."), host},
			"detection":               {all, icmp6Packet("::", "ff02::1", icmp6NeighbourSolicit, aboutAddr("fd88::2"), "N6."), sibling},
			"detection, link-local":   {all, icmp6Packet("::", "ff02::1", icmp6NeighbourSolicit, aboutAddr(link), "N7."), sibling},
			"solicitation":            {all, icmp6Packet("fd88::2", "ff02::1", icmp6NeighbourSolicit, aboutAddr("fd88::3"), "N8."), sibling},
			"advertisement":           {all, icmp6Packet("fd88::2", "ff02::1", icmp6NeighbourAdvert, aboutAddr("fd88::2"), "N9."), sibling},
			"report":                  {all, behind(icmp6Packet("::", "ff02::1", icmp6ListenerReport, make([]byte, 20), "NA."), unix.IPPROTO_HOPOPTS, alert), host},
			"ARP probe":               {broadcastMAC, arp(1, end.from, "0.0.0.0", "10.88.0.2", "NB."), sibling},
			"ARP":                     {broadcastMAC, arp(2, end.from, "10.88.0.2", "10.88.0.2", "NC."), sibling},
			"multicast":               {all, datagram(ap("[fd88::2]:5353"), ap("[ff02::fb]:5353"), "ND."), host},
		} {
			mark := string(bytes.TrimRight(c.frame[bytes.LastIndexByte(c.frame, 'N'):], "\x00"))
			if !until(func() bool { end.sendFrame(t, c.to, c.frame); return c.at.has(mark) }) {
				t.Errorf("%s does not arrive", name)
			}
		}
		if now := s.list(t)[0].Forged; now != before {
			t.Errorf("%d frames are taken for forged", now-before)
		}
	})
}

// Bridges take frames to some group addresses for themselves, and show them to no firewall of bridges
// (IEEE 802.1D; br_handle_frame). Their packets arrive on the port.
func TestAGuardedPortIsNoWayAroundItsBridge(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := newGuarded(t, filtered)
		s.waitReady(t)
		end, heard := newWireEnd(t, s.box, "eth0"), listen(t, s.host, ":7777")
		// Spanning trees would have the bridge take 01:80:c2:00:00:00, too.
		testutil.Run(t, s.host, "ip", "link", "set", "br0", "type", "bridge", "stp_state", "1", "forward_delay", "0")
		groups := []net.HardwareAddr{{1, 0x80, 0xc2, 0, 0, 0}, {1, 0x80, 0xc2, 0, 0, 3}, {1, 0x80, 0xc2, 0, 0, 0x0e}}
		attack := func(text string) (texts []string) {
			for i, to := range groups {
				for _, c := range [][2]string{{"192.0.2.77:7", "10.88.0.1:7777"}, {"[2001:db8:77::7]:7", "[fd88::1]:7777"}} {
					texts = append(texts, fmt.Sprint(text, i, c[0]))
					end.sendFrame(t, to, datagram(ap(c[0]), ap(c[1]), texts[len(texts)-1]))
				}
			}
			return texts
		}
		after := func(text string) bool {
			end.sendFrame(t, macOf(t, s.host, "br0"), datagram(ap("10.88.0.2:7"), ap("10.88.0.1:7777"), text))
			return heard.has(text)
		}
		texts := attack("guarded")
		if !until(func() bool { attack("guarded"); return after("after") }) {
			t.Fatal("the box does not reach the host")
		}
		for _, text := range texts {
			if heard.has(text) {
				t.Errorf("%s has arrived", text)
			}
		}
		testutil.Run(t, s.host, "nft", "flush set inet boxwire guarded")
		if !until(func() bool {
			return !slices.ContainsFunc(attack("open"), func(text string) bool { return !heard.has(text) })
		}) {
			t.Error("they do not arrive without the guard either: the test proves nothing")
		}
	})
}

// The bridge learns from those frames where a MAC is, and a box that claims its sibling's hears nothing
// by that.
func TestAGuardedPortHearsNothingOfOthers(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newGuarded(t, false)
	s.waitReady(t)
	end, box, sib := newWireEnd(t, s.box, "eth0"), sniff(t, s.box, "eth0"), macOf(t, s.sibling, "eth0")
	// The sibling does not say where it is.
	mute(t, s.sibling)
	host := newWireEnd(t, s.host, "br0")
	thief := end
	thief.from = sib
	steal := func(mark string) {
		thief.sendFrame(t, net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, []byte{0x88, 0xcc, 0, 0})
		host.sendFrame(t, sib, datagram(ap("10.88.0.1:7"), ap("10.88.0.3:80"), "stolen"+mark))
		host.sendFrame(t, end.from, datagram(ap("10.88.0.1:7"), ap("10.88.0.2:80"), "own"+mark))
	}
	if !until(func() bool { steal("1."); return box.has("own1.") }) {
		t.Fatal("the box hears nothing")
	}
	if box.has("stolen1.") {
		t.Error("the box hears what is for its sibling")
	}
	testutil.Run(t, s.host, "nft", "insert rule bridge boxwire delivered accept")
	if !until(func() bool { steal("2."); return box.has("stolen2.") }) {
		t.Error("it does not without the rule either: the test proves nothing")
	}
}

// The host sends boxes no redirects to each other, and would without the rule.
func TestGuardedBoxesGetNoRedirects(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	four, six := redirectsAmongBoxes(t, "")
	if four || six {
		t.Errorf("redirects of IPv4: %v, of IPv6: %v", four, six)
	}
	// Those of IPv4 are not shown without the rule: the kernel sends them now and then only.
	for tries := 0; tries < 8 && !six; tries++ {
		_, six = redirectsAmongBoxes(t, "insert rule bridge boxwire delivered accept")
	}
	if !six {
		t.Error("without the rule there are no redirects of IPv6 either: the test proves nothing")
	}
}

// redirectsAmongBoxes has a guarded box talk to its sibling, and reports whether it hears redirects.
func redirectsAmongBoxes(t *testing.T, change string) (four, six bool) {
	t.Helper()
	s := newGuarded(t, false)
	if change != "" {
		testutil.Run(t, s.host, "nft", change)
	}
	s.waitReady(t)
	serve(t, s.sibling, ":80")
	box := sniff(t, s.box, "eth0")
	// The kernel begins with redirects of IPv6 a second after the first packet (ndisc_send_redirect).
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline) && !six; time.Sleep(20 * time.Millisecond) {
		expectReach(t, s.box, map[string]bool{"10.88.0.3:80": true, "[fd88::3]:80": true})
		box.mu.Lock()
		for _, f := range box.all {
			p, ok := parse(f)
			four = four || ok && p.proto == unix.IPPROTO_ICMP && p.payload[0] == icmpRedirect
			six = six || ok && p.proto == unix.IPPROTO_ICMPV6 && p.payload[0] == icmp6Redirect
		}
		box.all = nil
		box.mu.Unlock()
	}
	return four, six
}
