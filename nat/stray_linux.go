package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/nft"
	"golang.org/x/sys/unix"
)

// Bits of a flow's status (linux/netfilter/nf_conntrack_common.h): what was
// translated.
const (
	statusSNAT = 1 << 4 // IPS_SRC_NAT
	statusDNAT = 1 << 5 // IPS_DST_NAT
)

// endStrays ends the flows that the table would not have let begin, or not
// untranslated: those that began while it was away. Conntrack takes them for
// established connections, which the table lets pass, else as long as they go on.
// What the table allows is not touched, for which way a connection began is known
// only to its flow.
func (n *NAT) endStrays(ctx context.Context, c nft.Conn) error {
	nets, err := n.readNetworks(ctx, c)
	if err != nil || len(nets) == 0 {
		return n.explain(ctx, c, err)
	}
	table, err := n.flows()
	if err != nil {
		return err
	}
	flows, err := table.List(ctx, func(f *ct.Flow) bool { return stray(nets, f) })
	if err == nil {
		flows, err = n.withoutHost(ctx, flows)
	}
	if err == nil {
		_, err = table.Delete(ctx, flows...)
	}
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return fmt.Errorf("the change is made, but flows that began without it were not ended: %w", err)
}

// withoutHost leaves out the flows from and to the host itself, which the table
// has no say in.
func (n *NAT) withoutHost(ctx context.Context, flows []ct.Flow) ([]ct.Flow, error) {
	known := make(map[netip.Addr]bool)
	local := func(a netip.Addr) (bool, error) {
		is, ok := known[a]
		if ok {
			return is, nil
		}
		is, err := n.isLocal(ctx, a)
		known[a] = is
		return is, err
	}
	var foreign []ct.Flow
	for _, f := range flows {
		src, err := local(f.Orig.Src.Addr())
		if err != nil {
			return nil, err
		}
		dst, err := local(f.Orig.Dst.Addr())
		if err != nil {
			return nil, err
		}
		if !src && !dst {
			foreign = append(foreign, f)
		}
	}
	return foreign, nil
}

// stray reports whether a flow that is forwarded is one that the networks do not
// allow, or that should have been translated.
func stray(nets []NetworkState, f *ct.Flow) bool {
	if f.Status&statusDNAT != 0 {
		return false // it came through a published port
	}
	src, dst := f.Orig.Src.Addr(), f.Orig.Dst.Addr()
	from, to := networkOf(nets, src), networkOf(nets, dst)
	switch {
	case from == nil && to == nil:
		return false // not of our networks
	case from == to:
		return from.Isolated && f.Orig.Proto != unix.IPPROTO_ICMPV6
	case from != nil && from.reaches(to):
		return false
	case from != nil && from.Internal:
		return true
	case to != nil:
		return !to.opens(f.Orig)
	}
	return f.Status&statusSNAT == 0 && from.translates(src.Is6()) && !dst.IsMulticast()
}

func networkOf(nets []NetworkState, a netip.Addr) *NetworkState {
	for i := range nets {
		if nets[i].contains(a) {
			return &nets[i]
		}
	}
	return nil
}

// reaches reports whether boxes may open connections to those of another network.
func (n Network) reaches(other *NetworkState) bool {
	for _, name := range n.Reaches {
		if other != nil && name == other.Interface {
			return true
		}
	}
	return false
}

// opens reports whether an opening lets a flow in.
func (n Network) opens(t ct.Tuple) bool {
	for _, o := range n.Openings {
		if uint8(o.Proto) == t.Proto && o.Box.Addr() == t.Dst.Addr() && o.Box.Port() <= t.Dst.Port() && t.Dst.Port() <= o.last() {
			return true
		}
	}
	return false
}

// translates reports whether what boxes send to the outside gets another source
// address.
func (n Network) translates(v6 bool) bool {
	for _, a := range n.SNAT {
		if a.Is6() == v6 {
			return true
		}
	}
	return n.Masquerade
}
