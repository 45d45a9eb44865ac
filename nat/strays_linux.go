package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/ct"
)

// A stray is a flow that is not what the table says: its mapping was changed by a
// program that ended before it could flush it, or it began while the table was
// away.

// strays finds strays.
type strays struct {
	single map[spot]Port
	ranges []Port
	nets   []NetworkState
}

func newStrays(items []item) (*strays, error) {
	s := &strays{single: make(map[spot]Port)}
	for _, it := range items {
		if !isPortSet(it.set) {
			continue
		}
		p, err := decodeItem(it)
		if err != nil {
			return nil, err
		}
		if p.HostLast != 0 {
			s.ranges = append(s.ranges, p)
		} else {
			s.single[spot{p.Proto, p.Host}] = p
		}
	}
	var err error
	s.nets, err = networksOf(items)
	return s, err
}

// box is where a flow for a host's address and port is to go, if it is published.
func (s *strays) box(proto Proto, to netip.AddrPort) (netip.AddrPort, bool) {
	if p, ok := s.single[spot{proto, to}]; ok {
		return p.Box, true
	}
	if p, ok := s.single[spot{proto, netip.AddrPortFrom(unspecified(to.Addr()), to.Port())}]; ok {
		return p.Box, true
	}
	c := claim{proto, to.Addr(), to.Port(), to.Port()}
	for _, p := range s.ranges {
		if p.claim().meets(c) {
			return netip.AddrPortFrom(p.Box.Addr(), to.Port()), true
		}
	}
	return netip.AddrPort{}, false
}

// match reports whether a flow is a stray, if it is for an address of the host. A
// connection that a program of the host has answered stays with it. Of flows to
// where nothing is published, only those into our networks are ours.
func (s *strays) match(f *ct.Flow) bool {
	proto, to, from := Proto(f.Orig.Proto), f.Orig.Dst, f.Reply.Src
	if proto.check() != nil {
		return false
	}
	translated := from != to
	box, published := s.box(proto, to)
	switch {
	case published && from == box:
		return false
	case published:
		return translated || proto == UDP || !f.Answered()
	case !translated:
		return false
	}
	return networkOf(s.nets, from.Addr()) != nil
}

// flushStrays flushes the strays, given what the table has.
func (n *NAT) flushStrays(ctx context.Context, items []item) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	s, err := newStrays(items)
	if err != nil || len(s.single)+len(s.ranges)+len(s.nets) == 0 {
		return err
	}
	table, err := n.flows()
	if err != nil {
		return err
	}
	found, err := table.List(ctx, func(f *ct.Flow) bool { return s.match(f) || slippedIn(s.nets, f) })
	known := make(map[netip.Addr]bool)
	local := func(a netip.Addr) bool {
		is, asked := known[a]
		if err == nil && !asked {
			is, err = n.isLocal(ctx, a)
			known[a] = is
		}
		return is
	}
	stray := found[:0]
	for _, f := range found {
		// What is for the host is a matter of ports; what passes it, of networks.
		if local(f.Orig.Dst.Addr()) {
			if s.match(&f) {
				stray = append(stray, f)
			}
		} else if !local(f.Orig.Src.Addr()) && slippedIn(s.nets, &f) {
			stray = append(stray, f)
		}
	}
	if err == nil {
		_, err = table.Delete(ctx, stray...)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // no conntrack, no flows
	}
	if err != nil {
		return fmt.Errorf("the change is made, but older flows were not ended: %w", err)
	}
	return nil
}
