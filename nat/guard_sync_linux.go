package nat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// guardPart is what Sync and Check know about the guards.
type guardPart struct {
	inet    bool   // the inet table has the part for guards
	there   bool   // the bridge table is there
	whole   bool   // and has its sets and rules
	foreign error  // why the bridge table is not ours
	have    []item // the elements of both
	want    []item
}

// read reads the guards of both tables.
func (p *guardPart) read(ctx context.Context, n *NAT, c nft.Conn) (err error) {
	want := p.want
	*p = guardPart{want: want}
	if p.inet, err = c.HasSet(ctx, n.table, setArrived); err != nil {
		return err
	}
	if p.inet {
		if p.have, err = n.readItems(ctx, c, setArrived); err != nil {
			return err
		}
	}
	c = c.In(unix.NFPROTO_BRIDGE)
	comment, err := c.TableComment(ctx, n.table)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.whole, p.foreign = checkVersion(comment); p.foreign != nil {
		p.foreign = fmt.Errorf("table bridge %s: %w", n.table, p.foreign)
		return nil
	}
	p.there = true
	for _, set := range guardSets() {
		elems, err := c.Elements(ctx, n.table, set.Name)
		if errors.Is(err, os.ErrNotExist) {
			p.whole = false
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range elems {
			p.have = append(p.have, item{set.Name, e})
		}
	}
	if p.whole {
		p.whole, err = c.Holds(ctx, guardTable(n.table))
	}
	return err
}

// guardTable returns the batch that adds the bridge table.
func guardTable(table string) *nft.Batch {
	b := nft.NewBatch(table)
	b.In(unix.NFPROTO_BRIDGE)
	addGuardTable(b)
	return b
}

// change adds to the batch what makes the guards of both tables the wanted ones. kept reports whether
// the inet table stays. Otherwise the batch has added it already.
func (p *guardPart) change(b *nft.Batch, kept bool) error {
	need := len(p.want) > 0
	if need && p.foreign != nil {
		return p.foreign
	}
	haveInet, haveBridge := splitGuardItems(p.have)
	wantInet, wantBridge := splitGuardItems(p.want)
	if !kept || !p.inet {
		haveInet = nil
	}
	if need && (!kept || !p.inet) {
		addGuardPart(b)
	}
	changeItems(b, haveInet, wantInet)
	b.In(unix.NFPROTO_BRIDGE)
	switch {
	case p.whole:
		changeItems(b, haveBridge, wantBridge)
	default:
		if p.there {
			b.DeleteTable()
		}
		if need {
			addGuardTable(b)
			addItems(b, wantBridge)
		}
	}
	b.In(unix.NFPROTO_INET)
	return nil
}

// wantGuards adds the elements of the guards that shall be there: those of the state, and those of
// owners that it does not speak for. The networks are among the wanted elements already.
func (s *syncTx) wantGuards(ctx context.Context) error {
	want, err := s.wantedGuards()
	if err != nil {
		return err
	}
	s.guards.want, err = s.n.guardItems(ctx, want)
	return err
}

func (s *syncTx) wantedGuards() (guards, error) {
	want := make(guards)
	had, err := guardsOf(s.guards.have)
	if err != nil && s.desired.Owners != nil {
		return nil, damagedGuard(fmt.Errorf("the guards of other owners cannot be kept: %w", err))
	}
	ports := make(map[string]string) // by MAC
	for port, g := range had {
		if !s.desired.owns(g.Owner) {
			want[port] = g
			ports[string(g.MAC)] = port
		}
	}
	if len(s.desired.guards) == 0 {
		return want, nil
	}
	nets, err := networksOf(s.want)
	if err != nil {
		return nil, err
	}
	for _, g := range s.desired.guards {
		if other, ok := want[g.Port]; ok {
			err = refuse.As(os.ErrExist, "the port has a guard of %q", other.Owner)
		} else if port, ok := ports[string(g.MAC)]; ok {
			err = errTakenMAC(g, port)
		}
		for _, a := range g.Box {
			if net := networkOf(nets, a); !a.IsLinkLocalUnicast() && (net == nil || !net.contains(a)) {
				err = errNoNetwork(a)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.subject(), err)
		}
		want[g.Port] = g
	}
	return want, nil
}

// guardItems returns the elements of guards, for the ports as they are.
func (n *NAT) guardItems(ctx context.Context, gs guards) (items []item, err error) {
	ports := slices.Sorted(maps.Keys(gs))
	var near map[string]net.HardwareAddr
	if len(ports) > 0 {
		near, err = n.nearMACs(ctx, ports)
	}
	for _, p := range ports {
		items = append(items, gs[p].items(near[p])...)
	}
	return items, err
}

// checkGuards checks for [Check] that the guards of a state are there, and that the rules of guards
// are.
func (n *NAT) checkGuards(ctx context.Context, c nft.Conn, guards []Guard) error {
	var p guardPart
	if err := p.read(ctx, n, c); err != nil {
		return err
	}
	switch {
	case len(guards) > 0 && p.foreign != nil:
		return p.foreign
	case p.there && !p.whole:
		return fmt.Errorf("%w: another program changed the rules of table bridge %s", ErrDamaged, n.table)
	case len(guards) > 0 && (!p.there || !p.inet):
		return fmt.Errorf("%w: %s is not in the table, nor any other", ErrDamaged, guards[0].subject())
	}
	have := make(map[setKey]nft.Element, len(p.have))
	for _, it := range p.have {
		have[it.setKey()] = it.elem
	}
	byPort := make(map[string]Guard, len(guards))
	for _, g := range guards {
		byPort[g.Port] = g
	}
	want, err := n.guardItems(ctx, byPort)
	if err != nil {
		return err
	}
	for _, w := range want {
		if e, ok := have[w.setKey()]; !ok || !e.Equal(&w.elem) {
			return fmt.Errorf("%w: %s lacks its element in the set %s", ErrDamaged, Guard{Port: w.port()}.subject(), w.set)
		}
	}
	return nil
}
