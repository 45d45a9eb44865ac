package nat

import (
	"cmp"

	"github.com/boxwire/boxwire/internal/refuse"
)

// State is what [NAT.Sync] makes of the table. The zero State has no network and no port.
type State struct {
	// Networks are the networks with their pinholes, at most one for an interface.
	Networks []Network

	// Ports are the published ports. They must not overlap.
	Ports []Port

	// Policies are the policies of boxes, at most one for an address.
	Policies []Policy

	// Guards are the guards of bridge ports, at most one for a port. The ports need not exist: a box
	// whose port appears later sends no IP until the next Sync, or until Maintain sees the port.
	Guards []Guard

	// Owners limits the state to a part of the table, so that several programs can share it, each
	// with its own owners. The state then holds for ports, pinholes, policies and guards whose owner it
	// reports true for; all owners in the state must be among them. Those of other owners stay, as
	// do networks that the state does not list. nil means all owners.
	Owners func(owner string) bool

	policies []Policy // checked
	guards   []Guard  // checked
}

// check refuses a state that cannot be, and names what is at fault. It returns the
// networks as they were checked.
func (s *State) check() (nets []Network, subject string, err error) {
	nets, net, err := checkNetworks(s.Networks)
	if err != nil {
		return nil, "network " + net.Interface, err
	}
	p, err := checkPorts(s.Ports)
	if err != nil {
		return nil, p.String(), err
	}
	for _, p := range s.Ports {
		if !s.owns(p.Owner) {
			return nil, p.String(), refuse.Input("the state's Owners denies the owner %q", p.Owner)
		}
	}
	var fault Policy
	if s.policies, fault, err = checkPolicies(s.Policies); err != nil {
		return nil, fault.subject(), err
	}
	for _, p := range s.Policies {
		if !s.owns(p.Owner) {
			return nil, p.subject(), refuse.Input("the state's Owners denies the owner %q", p.Owner)
		}
	}
	guard := Guard{}
	if s.guards, guard, err = checkGuards(s.Guards); err != nil {
		return nil, guard.subject(), err
	}
	for _, g := range s.Guards {
		if !s.owns(g.Owner) {
			return nil, g.subject(), refuse.Input("the state's Owners denies the owner %q", g.Owner)
		}
	}
	return nets, "", nil
}

// owns reports whether the state speaks for an owner's ports.
func (s State) owns(owner string) bool { return s.Owners == nil || s.Owners(owner) }

// comparePorts is the order that ports are listed in.
func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Host.Compare(b.Host))
}
