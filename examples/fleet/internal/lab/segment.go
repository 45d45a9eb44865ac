//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// Limits of the addresses. 198.18.0.0/15 is reserved for benchmarks (RFC 2544), 2001:db8::/32 for documentation.
const (
	maxSegments = 64
	maxHosts    = 1000 // of a segment; a bridge has 1,023 ports
)

// core is the bridge of a switch.
const core = "core"

// A segment is a switch, and the router's leg there.
type segment struct {
	number  int // from 0
	ns      *netns.NS
	core    link.Link
	gateway [2]netip.Prefix // IPv4, IPv6 (the zero Prefix without)
	next    int             // which address is the next one
	parts   []link.Link     // bridges of a partition
}

// addSegment makes the switch of a segment and plugs the router in.
func (l *Lab) addSegment(ctx context.Context, number int) error {
	s := &segment{number: number, next: 2}
	s.gateway = s.addrs(1)
	var err error
	if s.ns, err = l.newSpace(ctx, fmt.Sprintf("switch%d", number+1)); err != nil {
		return err
	}
	if s.core, err = link.Create(ctx, s.ns, bridgeSpec(core)); err != nil {
		return err
	}
	port, err := link.Create(ctx, s.ns, link.Spec{
		Name: "router", Up: true, Master: s.core.Ref(), MTU: l.options.MTU,
		Kind: link.Veth{Peer: link.Spec{
			NS: l.Router, Name: fmt.Sprintf("segment%d", number+1), Up: true, Addrs: valid(s.gateway),
		}},
	})
	if err != nil {
		return err
	}
	if err := port.WaitReachable(ctx); err != nil {
		return err
	}
	l.segments = append(l.segments, s)
	return nil
}

// bridgeSpec is a bridge of a switch: it has no address, and floods all groups.
func bridgeSpec(name string) link.Spec {
	return link.Spec{
		Name: name, Up: true, Kind: link.Bridge{MulticastSnooping: new(false)},
		IPv6: link.IPv6Conf{AddrGenMode: noLinkLocal()},
	}
}

// noLinkLocal is a setting that links without IPv6 do not have.
func noLinkLocal() *link.AddrGenMode {
	if !hasIPv6() {
		return nil
	}
	return new(link.AddrGenNone)
}

// addrs are the nth addresses of the segment.
func (s *segment) addrs(n int) [2]netip.Prefix {
	four := netip.AddrFrom4([4]byte{198, 18, byte(4*s.number + n>>8), byte(n)})
	out := [2]netip.Prefix{netip.PrefixFrom(four, 22)}
	if hasIPv6() {
		six := [16]byte{0x20, 0x01, 0x0d, 0xb8, 0, byte(s.number + 1)}
		six[14], six[15] = byte(n>>8), byte(n)
		out[1] = netip.PrefixFrom(netip.AddrFrom16(six), 64)
	}
	return out
}

// take returns addresses of the segment that no host has had.
func (s *segment) take() ([2]netip.Prefix, error) {
	if s.next > maxHosts {
		return [2]netip.Prefix{}, fmt.Errorf("segment %d has given out its %d addresses: %w", s.number+1, maxHosts-1, os.ErrInvalid)
	}
	s.next++
	return s.addrs(s.next - 1), nil
}

// valid leaves out the zero Prefix.
func valid(pair [2]netip.Prefix) []netip.Prefix {
	if !pair[1].IsValid() {
		return pair[:1]
	}
	return pair[:]
}
