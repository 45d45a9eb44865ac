package nat

import (
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/portlock"
	"golang.org/x/sys/unix"
)

// hostPort is a protocol, address and port of the host.
type hostPort struct {
	proto Proto
	host  netip.AddrPort
}

// A flowPolicy says whether a table would let a flow begin, with the translation that it has.
// Conntrack evaluates the rules for the first packet of a flow only. So a change evaluates them
// again here, for the flows that exist.
//
// The rules match interfaces, but a flow has only addresses. The address of a box identifies its
// network, because the rules accept no other source from the network's interface.
type flowPolicy struct {
	single  map[hostPort]Port
	kept    *portMatch // more of single
	size    int        // how many ports and ranges there are
	ranges  []Port
	nets    []NetworkState
	enabled [2]map[string]bool  // links that forward for the networks only, by family
	limited map[netip.Addr]bool // boxes with a policy for Egress
}

// newFlowPolicy returns the policy of a table with these items and networks, and with the kept ports.
func newFlowPolicy(items []item, nets []NetworkState, kept *portMatch) (*flowPolicy, error) {
	r := &flowPolicy{single: make(map[hostPort]Port), kept: kept, nets: nets, limited: make(map[netip.Addr]bool)}
	for i, f := range families {
		r.enabled[i] = make(map[string]bool)
		for _, it := range items {
			switch it.set {
			case f.enabled:
				r.enabled[i][nameOf(it.elem.Key)] = true
			case f.out.limited:
				if a, ok := netip.AddrFromSlice(it.elem.Key); ok {
					r.limited[a] = true
				}
			}
		}
	}
	ports, err := decodeItems(items)
	for _, p := range ports {
		if p.HostLast != 0 {
			r.ranges = append(r.ranges, p)
		} else {
			r.single[hostPort{p.Proto, p.Host}] = p
		}
	}
	r.size = len(ports)
	for p := range kept.published {
		r.size++
		if p.isRange() {
			r.ranges = append(r.ranges, p.normal())
		}
	}
	return r, err
}

// port returns the single port that is published on exactly this address and number.
func (r *flowPolicy) port(proto Proto, host netip.AddrPort) (Port, bool) {
	if p, ok := r.single[hostPort{proto, host}]; ok {
		return p, true
	}
	return r.kept.has(proto, host)
}

// flowVerdict is what a flowPolicy says about a flow.
type flowVerdict int

const (
	// flowRight: the table would let it begin, with the translation that it has.
	flowRight flowVerdict = iota

	// flowWrong: the table would not let it begin, or would translate it otherwise.
	flowWrong

	// flowClosed: it goes to a closed port of a box. A pinhole that was deleted later may have let
	// it in.
	flowClosed

	// flowMoved: it is translated to a box, and no published port of the table does that. A port
	// that was unpublished later may have done it, or another program.
	flowMoved

	// flowForeign: it is let through, with another translation than the table's. A former option of
	// the network may have done it, or another program.
	flowForeign

	// flowHidden: it is let through, with a source that a masquerade may have chosen.
	flowHidden

	// flowStranger: it belongs to no network. It is let through, unless it comes in by a link that
	// forwards for networks only.
	flowStranger
)

// Bits of a flow's status (linux/netfilter/nf_conntrack_common.h).
const statusExpected = 1 << 0 // IPS_EXPECTED: belongs to another flow, announced by its helper

// verdict decides about a flow. toHost says that its destination is an address of the host,
// fromHost that its source is one.
func (r *flowPolicy) verdict(f *ct.Flow, fromHost, toHost bool) flowVerdict {
	switch {
	case f.Status&statusExpected != 0: // the rules let it pass as they did the other
		return flowRight
	case !fromHost && r.unlimited(f.Orig.Src.Addr()) && !(target{host: toHost, proto: f.Orig.Proto, port: f.Orig.Dst.Port()}).isDHCP():
		return flowWrong
	case toHost:
		return r.verdictToHost(f, fromHost)
	case fromHost: // what the host sends is neither filtered nor translated
		return flowRight
	}
	return r.verdictPassing(f)
}

// unlimited reports whether an address is that of a box without a policy in a Strict network.
func (r *flowPolicy) unlimited(a netip.Addr) bool {
	if r.limited[a] {
		return false
	}
	net := networkOf(r.nets, a)
	return net != nil && net.Strict && net.contains(a)
}

// verdictToHost decides about a flow to an address of the host, by the published ports. A
// connection that a program of the host has answered is right.
func (r *flowPolicy) verdictToHost(f *ct.Flow, fromHost bool) flowVerdict {
	proto, to, is := Proto(f.Orig.Proto), f.Orig.Dst, f.Reply.Src
	box, published := r.box(f)
	switch {
	case published && is == box:
		if fromHost {
			return r.verdictFromHost(f)
		}
		return r.verdictIntoBox(f)
	case published && (is != to || proto == UDP || !f.Answered()):
		return flowWrong
	case is == to:
		return flowRight
	case networkOf(r.nets, is.Addr()) != nil:
		return flowMoved
	}
	return flowForeign
}

// verdictFromHost decides about a flow of the host itself through a published port. Its source is
// translated on the way to a box of another host; that of 127.0.0.1 in any case.
func (r *flowPolicy) verdictFromHost(f *ct.Flow) flowVerdict {
	box := f.Reply.Src.Addr()
	a, far := r.seenAs(box)
	switch {
	case networkOf(r.nets, box) != nil:
	case far && f.Reply.Dst.Addr() != a:
		return flowWrong
	case !far && hidden(f) && !f.Orig.Src.Addr().IsLoopback():
		return flowForeign
	}
	return flowRight
}

// verdictIntoBox decides about a flow through a published port.
func (r *flowPolicy) verdictIntoBox(f *ct.Flow) flowVerdict {
	from, to := networkOf(r.nets, f.Orig.Src.Addr()), networkOf(r.nets, f.Reply.Src.Addr())
	if from != nil && from != to && from.Internal && !from.allows(to) {
		return flowWrong
	}
	return r.verdictOfSource(f, from, to)
}

// verdictPassing decides about a flow that is forwarded, by the networks.
func (r *flowPolicy) verdictPassing(f *ct.Flow) flowVerdict {
	from, to := networkOf(r.nets, f.Orig.Src.Addr()), networkOf(r.nets, f.Reply.Src.Addr())
	switch {
	case f.Orig.Dst.Addr().IsMulticast(), from != nil && from != to && from.allows(to):
	case from == nil && to == nil:
		if !hidden(f) && !moved(f) {
			return flowStranger
		}
	case from == to:
		if from.Isolated && !moved(f) && !discovers(f) {
			return flowWrong
		}
	case from != nil && from.Internal:
		return flowWrong
	case to != nil:
		if !moved(f) && !to.opens(f.Orig) && (from != nil || !to.trusts(f.Orig.Src.Addr())) {
			return flowClosed
		}
	}
	return r.verdictOfSource(f, from, to)
}

// seenAs returns the address by which a box of another host sees who comes in by a published port.
func (r *flowPolicy) seenAs(box netip.Addr) (netip.Addr, bool) {
	for i := range r.nets {
		if a, ok := r.nets[i].seenAs(box.Is6()); ok && r.nets[i].trusts(box) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// verdictOfSource decides by the translated source of a flow from one network to another; nil is
// the outside (chain postrouting).
func (r *flowPolicy) verdictOfSource(f *ct.Flow, from, to *NetworkState) flowVerdict {
	hides := false // by a masquerade
	behind := func(a netip.Addr) flowVerdict {
		if f.Reply.Dst.Addr() != a {
			return flowWrong
		}
		return flowRight
	}
	switch {
	case to != nil: // a box and its sibling meet behind the bridge's address
		hides = from == to && moved(f) && to.contains(f.Orig.Src.Addr())
	case f.Orig.Dst.Addr().IsMulticast() || from != nil && from.trusts(f.Reply.Src.Addr()):
	default:
		if a, ok := r.seenAs(f.Reply.Src.Addr()); ok && moved(f) {
			return behind(a)
		}
		if from == nil {
			break
		}
		if a, ok := from.fixed(f.Orig.Src.Addr().Is6()); ok {
			return behind(a)
		}
		hides = from.Masquerade
		if hides && hidden(f) {
			return flowHidden
		}
	}
	switch {
	case hides == hidden(f):
		return flowRight
	case hides:
		return flowWrong
	}
	return flowForeign
}

// moved reports whether the destination is translated.
func moved(f *ct.Flow) bool { return f.Reply.Src.Addr() != f.Orig.Dst.Addr() }

// hidden reports whether the source is translated.
func hidden(f *ct.Flow) bool { return f.Reply.Dst.Addr() != f.Orig.Src.Addr() }

// discovers reports whether a flow is neighbour discovery or MLD, which boxes of an isolated
// network need of each other (chain icc_off).
func discovers(f *ct.Flow) bool {
	if f.Orig.Proto != unix.IPPROTO_ICMPV6 {
		return false
	}
	return slices.Contains(discoveryTypes, f.Orig.ICMP.Type)
}

// box returns where the table translates a flow to an address of the host, if its port is
// published.
func (r *flowPolicy) box(f *ct.Flow) (netip.AddrPort, bool) {
	proto, to := Proto(f.Orig.Proto), f.Orig.Dst
	if proto.check() != nil || r.size == 0 {
		return netip.AddrPort{}, false
	}
	if src := f.Orig.Src.Addr(); src.Is6() && (src.IsLinkLocalUnicast() || to.Addr().IsLoopback()) {
		return netip.AddrPort{}, false // prerouting and output leave these alone
	}
	if p, ok := r.port(proto, to); ok {
		return p.Box, true
	}
	if p, ok := r.port(proto, netip.AddrPortFrom(unspecified(to.Addr()), to.Port())); ok {
		return p.Box, true
	}
	c := portlock.Range{Proto: uint8(proto), Addr: to.Addr(), First: to.Port(), Last: to.Port()}
	for _, p := range r.ranges {
		if p.claim().Overlaps(c) {
			return netip.AddrPortFrom(p.Box.Addr(), to.Port()), true
		}
	}
	return netip.AddrPort{}, false
}

// networkOf returns the network of an address: by its subnets, or by the prefixes behind its boxes.
// A network with 0.0.0.0/0 or ::/0 behind it is not considered, because only the routes say which
// addresses are there.
func networkOf(nets []NetworkState, a netip.Addr) *NetworkState {
	for i := range nets {
		if nets[i].contains(a) {
			return &nets[i]
		}
	}
	var of *NetworkState
	bits := 0
	for i := range nets {
		for _, p := range nets[i].Behind {
			if p.Bits() > bits && p.Contains(a) {
				of, bits = &nets[i], p.Bits()
			}
		}
	}
	return of
}

// allows reports whether boxes may open connections to boxes of another network.
func (n Network) allows(other *NetworkState) bool {
	for _, name := range n.AllowTo {
		if other != nil && name == other.Interface {
			return true
		}
	}
	return false
}

// opens reports whether a pinhole lets a flow in.
func (n Network) opens(t ct.Tuple) bool {
	for _, o := range n.Pinholes {
		if uint8(o.Proto) == t.Proto && o.Box.Addr() == t.Dst.Addr() && o.Box.Port() <= t.Dst.Port() && t.Dst.Port() <= o.last() {
			return true
		}
	}
	return false
}

// fixed returns the SNAT address of a family.
func (n Network) fixed(v6 bool) (netip.Addr, bool) { return ofFamily(n.SNAT, v6) }
