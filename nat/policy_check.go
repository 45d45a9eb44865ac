package nat

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// checked refuses a policy that cannot be, and returns it with its own lists and prefixes in the
// form that the record has.
func (p Policy) checked() (Policy, error) {
	if err := checkBox(p.Box); err != nil {
		return p, err
	}
	if err := checkOwner(p.Owner); err != nil {
		return p, err
	}
	if p.Egress == nil && p.Ingress == nil {
		return p, refuse.Input("the policy limits neither Egress nor Ingress")
	}
	p.Box = slices.Clone(p.Box)
	var err error
	rules := 0
	for _, d := range []struct {
		name  string
		rules **Rules
		host  bool
	}{{"Egress", &p.Egress, true}, {"Ingress", &p.Ingress, false}} {
		if *d.rules == nil {
			continue
		}
		if rules += (*d.rules).size(); rules > MaxRules {
			return p, refuse.Input("the policy has more than %d rules and exceptions", MaxRules)
		}
		if *d.rules, err = (*d.rules).checked(p.Box, d.name, d.host); err != nil {
			return p, err
		}
	}
	return p, nil
}

// size counts rules and exceptions.
func (rs Rules) size() int {
	n := len(rs.Allow)
	for _, r := range rs.Allow {
		n += len(r.Except)
	}
	return n
}

// checkBox checks the addresses of a box.
func checkBox(box []netip.Addr) error {
	const maxAddrs = 1024
	switch {
	case len(box) == 0:
		return refuse.Input("no address of a box is named")
	case len(box) > maxAddrs:
		return refuse.Input("the box has more than %d addresses", maxAddrs)
	}
	for i, a := range box {
		switch {
		case !a.IsValid():
			return refuse.Input("address %d of the box is missing", i)
		case a.Is4In6():
			return refuse.Input("the address %v is an IPv4 address in IPv6 form: use Unmap", a)
		case a.Zone() != "":
			return refuse.Input("the address %v has a zone", a)
		case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a.IsLinkLocalUnicast():
			return refuse.Input("the address %v is unspecified, multicast, loopback or link-local", a)
		case slices.Contains(box[:i], a):
			return refuse.Input("the box has the address %v twice", a)
		}
	}
	return nil
}

// checked checks the rules of one direction of a box.
func (rs Rules) checked(box []netip.Addr, direction string, host bool) (*Rules, error) {
	all := make([]Rule, len(rs.Allow))
	for i, r := range rs.Allow {
		c, err := r.checked()
		switch {
		case err != nil:
		case r.Host && !host:
			err = refuse.Input("Host is for Egress: the host reaches its boxes always")
		case !slices.ContainsFunc(box, func(a netip.Addr) bool { return r.of(a.Is6()) }):
			err = refuse.Input("no address of the box is of the family of %v", r.Peer)
		}
		if err != nil {
			return nil, refuse.Input("rule %d of %s: %w", i, direction, err)
		}
		all[i] = c
	}
	return &Rules{Allow: all}, nil
}

// checked refuses a rule that cannot be.
func (r Rule) checked() (Rule, error) {
	ports := r.Proto.check() == nil
	switch {
	case r.isZero():
		return r, refuse.Input("the rule is empty: 0.0.0.0/0 or ::/0 as Peer allow all, no rule allows nothing")
	case r.Port == 0 && r.PortLast != 0:
		return r, refuse.Input("the range of ports has a last port, %d, and no first", r.PortLast)
	case r.Port != 0 && r.Proto == 0:
		return r, refuse.Input("port %d needs a protocol", r.Port)
	case r.Port != 0 && !ports:
		return r, refuse.Input("%v has no ports", r.Proto)
	case r.PortLast != 0 && r.PortLast < r.Port:
		return r, refuse.Input("the last port %d is below the first, %d", r.PortLast, r.Port)
	case r.Host && r.Peer != (netip.Prefix{}):
		return r, refuse.Input("the rule has both Host and the peer %v", r.Peer)
	case len(r.Except) > 0 && !r.Peer.IsValid():
		return r, refuse.Input("the exception %v needs a Peer that it is a part of", r.Except[0])
	case r.Peer == (netip.Prefix{}):
		return r.normal(), nil
	}
	if err := checkPeer("peer", r.Peer); err != nil {
		return r, err
	}
	for i, e := range r.Except {
		switch err := checkPeer("exception", e); {
		case err != nil:
			return r, err
		case e.Addr().Is6() != r.Peer.Addr().Is6(), e.Bits() < r.Peer.Bits(), !r.Peer.Contains(e.Addr()):
			return r, refuse.Input("the exception %v is not in the peer %v", e, r.Peer)
		case e.Bits() == r.Peer.Bits():
			return r, refuse.Input("the exception %v is all of the peer", e)
		}
		for _, o := range r.Except[:i] {
			if o.Overlaps(e) {
				return r, refuse.Input("the exceptions %v and %v overlap", o, e)
			}
		}
	}
	return r.normal(), nil
}

func (r Rule) isZero() bool {
	return r.Peer == (netip.Prefix{}) && len(r.Except) == 0 && r.Proto == 0 && r.Port == 0 && r.PortLast == 0 && !r.Host
}

// normal returns the rule with one form for each meaning.
func (r Rule) normal() Rule {
	if r.PortLast == r.Port {
		r.PortLast = 0
	}
	r.Except = slices.Clone(r.Except)
	return r
}

func checkPeer(what string, p netip.Prefix) error {
	switch a := p.Addr(); {
	case !p.IsValid():
		return refuse.Input("the %s %v is not a valid prefix", what, p)
	case a.Is4In6():
		return refuse.Input("the %s %v is IPv4 in IPv6 form", what, p)
	case p != p.Masked():
		return refuse.Input("the %s %v has host bits: %v is the prefix", what, p, p.Masked())
	}
	return nil
}

// checkPolicies checks policies that are to stand side by side. It returns them as checked does,
// and with an error the one at fault.
func checkPolicies(policies []Policy) ([]Policy, Policy, error) {
	all := make([]Policy, len(policies))
	of := make(map[netip.Addr]int, len(policies))
	for i, p := range policies {
		var err error
		if all[i], err = p.checked(); err != nil {
			return nil, p, err
		}
		for _, a := range p.Box {
			if j, twice := of[a]; twice {
				return nil, p, refuse.Input("the policies %d and %d name the address %v: put the rules of one box into one policy", j, i, a)
			}
			of[a] = i
		}
	}
	return all, Policy{}, nil
}

// subject names a policy in errors.
func (p Policy) subject() string {
	if len(p.Box) == 0 {
		return "a policy"
	}
	return "the policy of " + joinAddrs(p.Box)
}

func joinAddrs(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}
