//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// allocatorType is the IPAM type that needs no other plugin. Its keys are those
// of host-local, so that a configuration needs no other change.
const allocatorType = "boxwire"

// A pool is the built-in allocator: one address of each set of ranges for every
// container.
type pool struct {
	Ranges  [][]addrRange  `json:"ranges"`
	Routes  []*types.Route `json:"routes"`
	DataDir string         `json:"dataDir"` // of the state; by default /run/boxwire-cni
	addrRange

	// ResolvConf is a file like /etc/resolv.conf, whose contents are the DNS of the
	// result.
	ResolvConf string `json:"resolvConf"`

	// Of the IPAM plugins static and dhcp, whose work this is not.
	Addresses        []json.RawMessage `json:"addresses"`
	DaemonSocketPath string            `json:"daemonSocketPath"`
	Provide          []json.RawMessage `json:"provide"`
	Request          []json.RawMessage `json:"request"`
	Priority         int               `json:"priority"`

	onLink map[*types.Route]bool // routes with the key "onlink"
}

// An addrRange is a subnet, or a part of it.
type addrRange struct {
	Subnet  netip.Prefix `json:"subnet"`
	Start   netip.Addr   `json:"rangeStart"` // by default the first behind the gateway's usual place
	End     netip.Addr   `json:"rangeEnd"`   // by default the last
	Gateway netip.Addr   `json:"gateway"`    // by default the first address of the subnet; for IPv6 a link-local one will do
}

func parsePool(stdin []byte) (*pool, error) {
	var c struct {
		IPAM          pool `json:"ipam"`
		RuntimeConfig struct {
			IPRanges [][]addrRange `json:"ipRanges"`
		} `json:"runtimeConfig"`
	}
	var more struct { // types.Route reads itself, without what it does not know
		IPAM struct {
			Routes []struct {
				OnLink bool `json:"onlink"`
			} `json:"routes"`
		} `json:"ipam"`
	}
	if err := errors.Join(json.Unmarshal(stdin, &c), json.Unmarshal(stdin, &more)); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "ipam cannot be read", oneLine(err))
	}
	p := &c.IPAM
	p.onLink = map[*types.Route]bool{}
	for i, r := range more.IPAM.Routes {
		p.onLink[p.Routes[i]] = r.OnLink
	}
	if p.Subnet.IsValid() {
		p.Ranges = append([][]addrRange{{p.addrRange}}, p.Ranges...)
	}
	p.Ranges = append(c.RuntimeConfig.IPRanges, p.Ranges...)
	if p.DataDir == "" {
		p.DataDir = runDir
	}
	return p, nil
}

// check refuses ranges that cannot be, and fills in what is not given.
func (p *pool) check() error {
	for _, k := range []struct {
		key    string
		asked  bool
		value  any
		plugin string
	}{
		{"addresses", len(p.Addresses) > 0, p.Addresses, "static"},
		{"daemonSocketPath", p.DaemonSocketPath != "", p.DaemonSocketPath, "dhcp"},
		{"provide", len(p.Provide) > 0, p.Provide, "dhcp"},
		{"request", len(p.Request) > 0, p.Request, "dhcp"},
		{"priority", p.Priority != 0, p.Priority, "dhcp"},
	} {
		if k.asked {
			return unsupported("ipam."+k.key, k.value, fmt.Sprintf("it is a key of %[1]s: \"type\": %[1]q in ipam has that plugin assign the addresses", k.plugin))
		}
	}
	if len(p.Ranges) == 0 {
		return invalid("ipam has neither subnet nor ranges", "")
	}
	var seen []addrRange
	for _, set := range p.Ranges {
		if len(set) == 0 {
			return invalid("ipam: a set of ranges is empty", "")
		}
		for i := range set {
			if err := set[i].complete(); err != nil {
				return err
			}
			if set[i].Subnet.Addr().Is4() != set[0].Subnet.Addr().Is4() {
				return invalid("ipam: a set has ranges of both families", fmt.Sprint(set[i].Subnet))
			}
			for _, s := range seen {
				if s.Subnet.Overlaps(set[i].Subnet) && s.Subnet != set[i].Subnet {
					return invalid("ipam: subnets overlap", fmt.Sprintf("%v and %v", s.Subnet, set[i].Subnet))
				}
				if s.Subnet == set[i].Subnet && !s.End.Less(set[i].Start) && !set[i].End.Less(s.Start) {
					return invalid("ipam: ranges overlap", fmt.Sprintf("%v to %v and %v to %v", s.Start, s.End, set[i].Start, set[i].End))
				}
			}
			seen = append(seen, set[i])
		}
	}
	return nil
}

// complete fills in what is not given and refuses what cannot be.
func (r *addrRange) complete() error {
	if !r.Subnet.IsValid() {
		return invalid("ipam: a range has no subnet", "")
	}
	if r.Subnet != r.Subnet.Masked() {
		return invalid("ipam: a subnet has host bits", fmt.Sprintf("%v: the subnet is %v", r.Subnet, r.Subnet.Masked()))
	}
	room := 2
	if r.Subnet.Addr().Is6() {
		room = 1
	}
	if r.Subnet.Addr().BitLen()-r.Subnet.Bits() < room {
		return invalid("ipam: a subnet has no room for a container", fmt.Sprint(r.Subnet))
	}
	if !r.Gateway.IsValid() {
		r.Gateway = r.Subnet.Addr().Next()
	}
	if !r.Start.IsValid() {
		r.Start = r.Subnet.Addr().Next()
	}
	if !r.End.IsValid() {
		r.End = last(r.Subnet)
	}
	onLink := r.Gateway.Is6() && r.Gateway.IsLinkLocalUnicast() && r.Gateway.Zone() == "" // everywhere
	for name, a := range map[string]netip.Addr{"gateway": r.Gateway, "rangeStart": r.Start, "rangeEnd": r.End} {
		if !r.Subnet.Contains(a) && !(name == "gateway" && onLink && r.Subnet.Addr().Is6()) {
			return invalid("ipam: "+name+" is not in the subnet", fmt.Sprintf("%v is not in %v", a, r.Subnet))
		}
	}
	if r.End.Less(r.Start) {
		return invalid("ipam: a range ends before it begins", fmt.Sprintf("%v to %v", r.Start, r.End))
	}
	return nil
}

// last is a subnet's last address, for IPv4 the one before broadcast.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	if a.Is4() {
		return a.Prev()
	}
	return a
}

// usable says whether a container can have the address.
func (r addrRange) usable(a netip.Addr) bool {
	return !a.Less(r.Start) && !r.End.Less(a) && a != r.Gateway && a != r.Subnet.Addr() &&
		(a.Is6() || a != last(r.Subnet).Next())
}

// choose picks an address of each set: the wanted one, or the next free one
// behind the one chosen last, so that an address rests before it is used again
// and neighbours forget who had it. What is taken is not chosen.
func (p *pool) choose(s *state, wanted []netip.Addr, taken map[netip.Addr]string) (*current.Result, []netip.Addr, error) {
	result := &current.Result{Routes: p.Routes}
	var chosen []netip.Addr
	left := slices.Clone(wanted)
	for i, set := range p.Ranges {
		var a netip.Addr
		var in addrRange
		for _, r := range set {
			for _, w := range left {
				if !a.IsValid() && r.usable(w) {
					a, in = w, r
				}
			}
		}
		if a.IsValid() {
			left = slices.DeleteFunc(left, func(w netip.Addr) bool { return w == a })
			if owner, ok := taken[a]; ok {
				return nil, nil, invalid("a wanted IP address is taken", fmt.Sprintf("%v belongs to %s", a, owner))
			}
		} else {
			a, in = next(set, s.last(i), taken)
			if !a.IsValid() {
				return nil, nil, types.NewError(types.ErrTryAgainLater, "the subnet is full: all its addresses are assigned", fmt.Sprint(set[0].Subnet))
			}
			s.remember(i, a)
		}
		taken[a] = "this container"
		chosen = append(chosen, a)
		result.IPs = append(result.IPs, &current.IPConfig{
			Address: net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(in.Subnet.Bits(), a.BitLen())},
			Gateway: in.Gateway.AsSlice(),
		})
	}
	if len(left) > 0 {
		return nil, nil, invalid("a wanted IP address is in no range", fmt.Sprint(left[0]))
	}
	return result, chosen, nil
}

// next is the first free address behind the last one, going round.
func next(set []addrRange, after netip.Addr, taken map[netip.Addr]string) (netip.Addr, addrRange) {
	at := slices.IndexFunc(set, func(r addrRange) bool { return after.IsValid() && r.usable(after) })
	for i := range len(set) + 1 { // the first range twice: from the last address on, and up to it
		r := set[(max(at, 0)+i)%len(set)]
		a := r.Start
		if i == 0 && at >= 0 {
			a = after.Next()
		}
		for ; a.IsValid() && !r.End.Less(a); a = a.Next() {
			if _, ok := taken[a]; !ok && r.usable(a) {
				return a, r
			}
		}
	}
	return netip.Addr{}, addrRange{}
}
