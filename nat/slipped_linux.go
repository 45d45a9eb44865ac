package nat

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/ct"
	"golang.org/x/sys/unix"
)

// Bits of a flow's status (linux/netfilter/nf_conntrack_common.h): what was
// translated.
const (
	statusSNAT = 1 << 4 // IPS_SRC_NAT
	statusDNAT = 1 << 5 // IPS_DST_NAT
)

// slippedIn reports whether a flow that is forwarded is one that the table would
// not have let begin, or not untranslated: it began while the table was away.
// Conntrack takes it for an established connection, which the table lets pass, as
// long as it goes on. What the networks allow is not touched, for which way a
// connection began is known only to its flow.
func slippedIn(nets []NetworkState, f *ct.Flow) bool {
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
