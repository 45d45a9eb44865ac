package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/ct"
)

// A stray is a flow whose translation is not what the table says: its mapping was
// changed by a program that ended before it could flush it.

// strays finds strays.
type strays struct {
	single  map[spot]Port
	ranges  []Port
	subnets []netip.Prefix
}

func newStrays(items []item) (*strays, error) {
	s := &strays{single: make(map[spot]Port)}
	for _, it := range items {
		switch {
		case it.set == families[0].same, it.set == families[1].same:
			subnet, _, err := decodeSame(it.elem)
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", it.set, err)
			}
			s.subnets = append(s.subnets, subnet)
		case isPortSet(it.set):
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
	}
	return s, nil
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
	for _, subnet := range s.subnets {
		if subnet.Contains(from.Addr()) {
			return true
		}
	}
	return false
}

// flushStrays flushes the strays, given what the table has.
func (n *NAT) flushStrays(ctx context.Context, items []item) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	s, err := newStrays(items)
	if err != nil || len(s.single)+len(s.ranges)+len(s.subnets) == 0 {
		return err
	}
	table, err := n.flows()
	if err != nil {
		return err
	}
	found, err := table.List(ctx, s.match)
	known := make(map[netip.Addr]bool)
	stray := found[:0]
	for _, f := range found {
		a := f.Orig.Dst.Addr()
		local, asked := known[a]
		if err == nil && !asked {
			local, err = n.isLocal(ctx, a)
			known[a] = local
		}
		if local {
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
