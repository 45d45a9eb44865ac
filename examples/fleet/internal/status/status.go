// Package status has what an agent says of its node and its fleet: the JSON of /state on the agent's socket, and of the file
// status.json that it leaves in its state directory for the time when it does not run.
package status

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// Version is that of the State that this program writes. A reader ignores fields that it does not know and refuses a version
// that is newer than its own.
const Version = 1

// Where an agent's socket and its state directory are by default.
const (
	DefaultSocket = "/run/boxwire-fleet/agent.sock"
	DefaultDir    = "/var/lib/boxwire-fleet"
)

// State is what an agent knows. Before the node has claimed its prefixes, it has none, and is not ready.
type State struct {
	Version  int            `json:"version"`
	Fleet    string         `json:"fleet"`
	ID       state.ID       `json:"id"`       // the node's
	Name     string         `json:"name"`     // the node's
	Prefixes []netip.Prefix `json:"prefixes"` // the node's: one of each family at most
	Pools    []netip.Prefix `json:"pools"`    // the fleet's
	Link     string         `json:"link"`     // the tunnel
	MTU      int            `json:"mtu"`      // the tunnel's, and so that of the boxes
	Mode     state.Mode     `json:"mode"`
	Ready    bool           `json:"ready"` // the kernel has what the fleet needs
	Peers    []Peer         `json:"peers"` // by name and ID
}

// Peer is another node, as the agent sees it.
type Peer struct {
	ID       state.ID       `json:"id"`
	Name     string         `json:"name"`
	Prefixes []netip.Prefix `json:"prefixes"`
	Endpoint netip.Addr     `json:"endpoint,omitzero"` // where packets for it are sent; the zero Addr: nowhere
	Mode     state.Mode     `json:"mode,omitempty"`    // how: never auto
	MTU      int            `json:"mtu,omitempty"`     // of the way to it
	Alive    bool           `json:"alive"`             // its agent runs
	Down     bool           `json:"down"`              // its prefixes are unreachable here, because it is dead
	Problem  string         `json:"problem,omitempty"` // why it is left out
}

// Equal reports whether two States say the same.
func (s State) Equal(o State) bool {
	return s.Version == o.Version && s.Fleet == o.Fleet && s.ID == o.ID && s.Name == o.Name && slices.Equal(s.Prefixes, o.Prefixes) &&
		slices.Equal(s.Pools, o.Pools) && s.Link == o.Link && s.MTU == o.MTU && s.Mode == o.Mode && s.Ready == o.Ready &&
		slices.EqualFunc(s.Peers, o.Peers, Peer.Equal)
}

// Equal reports whether two Peers are the same.
func (p Peer) Equal(o Peer) bool {
	return p.ID == o.ID && p.Name == o.Name && slices.Equal(p.Prefixes, o.Prefixes) && p.Endpoint == o.Endpoint && p.Mode == o.Mode &&
		p.MTU == o.MTU && p.Alive == o.Alive && p.Down == o.Down && p.Problem == o.Problem
}

// Validate reports what is wrong with the State, all of it. The error is os.ErrInvalid.
func (s State) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Version < 1 || s.Version > Version {
		bad("version %d: this program knows 1 to %d", s.Version, Version)
	}
	if err := state.ValidFleet(s.Fleet); err != nil {
		errs = append(errs, err)
	}
	if s.ID == (state.ID{}) {
		bad("no id")
	}
	if s.Link == "" || len(s.Link) > 15 || strings.ContainsAny(s.Link, "/ \t\n") {
		bad("link %.40q: want the name of a link", s.Link)
	}
	if s.MTU < 576 || s.MTU > 65535 {
		bad("mtu %d: want 576 to 65535", s.MTU)
	}
	for _, p := range s.Pools {
		if !p.IsValid() || p != p.Masked() {
			bad("pool %v: want a prefix without host bits", p)
		}
	}
	for i, p := range s.Prefixes {
		if !p.IsValid() || p != p.Masked() || !slices.ContainsFunc(s.Pools, func(pool netip.Prefix) bool { return within(p, pool) }) {
			bad("prefix %v: not one of the pools %v", p, s.Pools)
		}
		if slices.ContainsFunc(s.Prefixes[:i], func(o netip.Prefix) bool { return o.Addr().Is4() == p.Addr().Is4() }) {
			bad("prefixes %v: two of one family", s.Prefixes)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", errors.Join(errs...), os.ErrInvalid)
	}
	return nil
}

// within says whether a prefix is in another.
func within(p, outer netip.Prefix) bool { return outer.Overlaps(p) && outer.Bits() <= p.Bits() }

// Trusted are the pools for nat.Network.Trusted of the node's boxes: those of a family that the node has a prefix of. A pool
// that is no more than the node's own prefix has nobody else to trust.
func (s State) Trusted() []netip.Prefix {
	var trusted []netip.Prefix
	for _, pool := range s.Pools {
		family := func(p netip.Prefix) bool { return p.Addr().Is4() == pool.Addr().Is4() }
		if slices.ContainsFunc(s.Prefixes, family) && !slices.Contains(s.Prefixes, pool) {
			trusted = append(trusted, pool)
		}
	}
	return trusted
}
