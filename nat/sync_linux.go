package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// Sync makes the table what the state says, in one transaction: what is missing
// is added, what differs is replaced, what is too much is removed, and what is
// right stays, counters included. A table that is missing, damaged or of another
// version of this library is built anew, still in the same transaction. Then, as
// [NAT.AddNetwork] does, it makes the host forward.
//
// It is safe to repeat, beside other programs that do the same, and after a crash
// at any point. An error means that the table was not changed, with one
// exception, which the error says: a setting for forwarding that could not be
// written after the transaction. Repeating brings that about, too.
//
// Errors: os.ErrExist if a port of an owner that the state does not speak for is
// in the way, or the table is not ours; os.ErrInvalid for a bad state.
func (n *NAT) Sync(ctx context.Context, desired State) error {
	_, err := n.sync(ctx, desired)
	return err
}

// sync also reports whether there was anything to change.
func (n *NAT) sync(ctx context.Context, desired State) (bool, error) {
	const op = "nat.Sync"
	nets, subject, err := desired.check()
	if err != nil {
		return false, n.fail(op, subject, err)
	}
	changed := false
	subject = n.String()
	err = n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error {
		s := syncing{n: n, c: c, desired: desired, nets: nets, undo: func() {}}
		err := c.Commit(ctx, s.build, s.landed)
		if err != nil {
			s.undo()
			err = errors.Join(err, s.relisting.revert(ctx))
		} else {
			changed = s.changed
			err = s.finish(ctx)
		}
		if s.culprit != (Port{}) {
			subject = s.culprit.String()
		}
		return n.supported(err)
	})
	return changed, n.fail(op, subject, err)
}

// syncing is a Sync under way.
type syncing struct {
	n       *NAT
	c       nft.Conn
	desired State
	nets    []Network // of the state, checked
	culprit Port      // the one that an error is about

	have []item // what is there
	want []item // what shall be
	plan *plan  // for the host's links
	last bool   // there is no network any more
	undo func() // gives back the ports that were reserved

	relisting *relisting // for the ports of long ranges

	anew    bool // the table is built anew
	changed bool // there was anything to change
}

// build returns the batch that brings the table to the state.
func (s *syncing) build(ctx context.Context) (*nft.Batch, error) {
	there, whole, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	s.want = nil
	nets := make(map[string]bool)
	for _, net := range s.nets {
		nets[string(ifname(net.Interface))] = true
	}
	for _, it := range s.have {
		if s.desired.stays(it, nets) {
			s.want = append(s.want, it)
		}
	}
	if !whole {
		s.want = append(s.want, s.n.forgotten(s.want)...)
	}
	loopback := make(map[string]bool)
	for _, it := range s.want {
		if it.set == "lo_ok" {
			loopback[nameOf(it.elem.Key)] = true
		}
	}
	s.want = append(s.want, s.n.loopbackItems(loopback)...)
	if err := s.wantPorts(); err != nil {
		return nil, err
	}
	if err := s.reserve(ctx); err != nil {
		return nil, err
	}
	if err := s.wantNetworks(ctx); err != nil {
		return nil, err
	}
	if err := s.list(ctx); err != nil {
		return nil, err
	}
	s.anew = !whole
	b := nft.NewBatch(s.n.table)
	if whole {
		changeItems(b, s.have, s.want)
	} else {
		if there {
			b.DeleteTable()
		}
		addSkeleton(b)
		addItems(b, s.want)
	}
	s.plan.record(b)
	s.changed = b.Len() > 0 || s.plan.writes()
	return b, s.relisting.before(ctx)
}

// wantPorts adds the published ports that the table shall have.
func (s *syncing) wantPorts() error {
	ports := make([]Port, 0, len(s.desired.Ports))
	for _, it := range s.want {
		if !isPortSet(it.set) {
			continue
		}
		p, err := decodeItem(it)
		if err != nil {
			return err
		}
		ports = append(ports, p)
	}
	if len(ports) > 0 { // those of other owners
		ports = append(ports, s.desired.Ports...)
		if i, j, found := overlap(ports); found {
			s.culprit = ports[j]
			return errTaken{ports[i]}
		}
	}
	s.want = append(s.want, portItems(s.desired.Ports)...)
	s.want = append(s.want, useItems(s.want)...)
	return nil
}

// list brings what is recorded of listed ports in step with the ports.
func (s *syncing) list(ctx context.Context) error {
	if s.n.unreserved {
		return nil
	}
	var recorded, ranges []item
	s.want = slices.DeleteFunc(s.want, func(it item) bool {
		switch it.set {
		case families[0].rng, families[1].rng:
			ranges = append(ranges, it)
		case "listed":
			recorded = append(recorded, it)
			return true
		}
		return false
	})
	ports, err := decodeItems(ranges)
	if err == nil {
		s.relisting, err = s.n.planListing(ctx, ports, recorded)
	}
	if s.relisting != nil {
		recorded = s.relisting.record
	}
	s.want = append(s.want, recorded...)
	return err
}

// reserve reserves the ports of the state. One that is published already is
// reserved if it can be: its mapping is in force, whoever else has the port.
func (s *syncing) reserve(ctx context.Context) error {
	there := make(map[place]nft.Element, len(s.have))
	for _, it := range s.have {
		if isPortSet(it.set) {
			there[it.place()] = it.elem
		}
	}
	var old, fresh []Port
	for _, p := range s.desired.Ports {
		it := p.singles()[0].item()
		if e, ok := there[it.place()]; ok && e.Equal(&it.elem) {
			old = append(old, p)
		} else {
			fresh = append(fresh, p)
		}
	}
	s.undo() // of a build before
	s.undo = func() {}
	undoOld, _, err := s.n.reserve(ctx, old, true)
	if err != nil {
		return err
	}
	s.undo = undoOld
	contested := s.n.contested
	undo, culprit, err := s.n.reserve(ctx, fresh, false)
	if err != nil {
		s.culprit = culprit
		return err
	}
	s.undo = func() { undoOld(); undo() }
	s.n.contested = append(s.n.contested, contested...)
	return nil
}

// read reads the table, if there is one, and reports whether it is there, and
// whole: with the skeleton that it should have. One that is not ours is
// os.ErrExist.
func (s *syncing) read(ctx context.Context) (there, whole bool, err error) {
	s.have = nil
	table := s.n.table
	comment, err := s.c.TableComment(ctx, table)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, false, nil
	case err != nil:
		return false, false, err
	}
	if whole, err = judge(comment); err != nil {
		return false, false, err
	}
	for _, set := range skeletonSets() {
		elems, err := s.c.Elements(ctx, table, set.Name)
		if errors.Is(err, os.ErrNotExist) {
			whole = false
			continue
		}
		if err != nil {
			return false, false, err
		}
		for _, e := range elems {
			s.have = append(s.have, item{set.Name, e})
		}
	}
	if whole { // somebody may have changed the rules, and left the sets
		whole, err = s.c.Holds(ctx, skeleton(table))
	}
	return true, whole, err
}

// landed reports whether the table is as it was to be.
func (s *syncing) landed(ctx context.Context) (bool, error) {
	_, whole, err := s.read(ctx)
	b := nft.NewBatch(s.n.table)
	changeItems(b, s.have, append(slices.Clone(s.want), s.plan.facts()...))
	return whole && b.Len() == 0, err
}

// flush flushes the flows of the ports that changed. Of a table that was built
// anew it is all that the table contradicts, because flows that began while
// something was missing were not translated; so it is the first time, because a
// program before this one may have been cut off between transaction and flush.
func (s *syncing) flush(ctx context.Context) error {
	if s.anew || !s.n.swept {
		err := s.n.flushStrays(ctx, s.want)
		s.n.swept = err == nil
		return err
	}
	old := make(map[place]item)
	for _, it := range s.have {
		if isPortSet(it.set) {
			old[it.place()] = it
		}
	}
	var first, gone []Port // those that begin to lead somewhere, and those that end
	for _, it := range s.want {
		if !isPortSet(it.set) {
			continue
		}
		was, there := old[it.place()]
		delete(old, it.place())
		p, err := decodeItem(it)
		switch {
		case err != nil:
			return err
		case !there:
			first = append(first, p)
		case string(was.elem.Data) != string(it.elem.Data):
			gone = append(gone, p)
		}
	}
	for _, it := range old {
		p, err := decodeItem(it)
		if err != nil {
			return err
		}
		gone = append(gone, p)
	}
	return s.n.flush(ctx, append(targets(gone, ended), targets(first, begun)...))
}

// finish does what follows the transaction, even if the caller's context ends.
func (s *syncing) finish(ctx context.Context) error {
	s.n.remember(append(slices.Clone(s.want), s.plan.facts()...))
	s.n.published = len(s.want)
	err := s.flush(ctx)
	s.n.retain(s.want)
	s.n.rebind(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if serr := errors.Join(s.finishNetworks(ctx), s.relisting.after(ctx)); serr != nil {
		err = errors.Join(err, fmt.Errorf("the table is as it should be, but not every setting: %w", serr))
	}
	return err
}
