package nat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/portlock"
)

// Sync makes the table exactly what the state says, in one transaction. It touches only the
// difference, so counters of what stays are kept. A table that is missing, damaged or of an older
// version is rebuilt in the same transaction. Then Sync makes the host forward, as
// [NAT.AddNetwork] does, and ends flows that the table would not let begin; the documentation of
// [NAT] says which.
//
// One kind of change takes two transactions. Where ports or pinholes go or lead elsewhere, and
// policies go or change, the first transaction closes those ports and pinholes, and the second one
// does the rest: in one, the kernel would let packets through for a moment that neither state
// allows. A port that leads elsewhere is closed between the two.
//
// Sync is safe to repeat, to run beside other programs that do the same, and to run after a crash
// at any point. An error means that the table was not changed, with two exceptions that the error
// names: a forwarding setting that could not be written, and older flows that could not be ended. A
// setting that was not written is not recorded in the table. The next Sync tries both again.
//
// Errors: os.ErrExist if a port of an owner that [State.Owners] excludes conflicts, or the table is
// not ours; os.ErrInvalid for a bad state; errors.ErrUnsupported as [NAT.AddNetwork] has it.
func (n *NAT) Sync(ctx context.Context, desired State) error {
	_, err := n.sync(ctx, desired)
	return err
}

// sync also reports whether it changed the table.
func (n *NAT) sync(ctx context.Context, desired State) (bool, error) {
	const op = "nat.Sync"
	nets, subject, err := desired.check()
	for _, net := range nets {
		if err == nil {
			subject, err = "network "+net.Interface, refuseFlowtable(net)
		}
	}
	if err != nil {
		return false, n.fail(op, subject, err)
	}
	s := &syncTx{desired: desired, nets: nets}
	err = n.transact(ctx, op, s)
	return s.changed, err
}

// syncTx brings the table to a state.
type syncTx struct {
	tableTx
	desired State
	nets    []Network // of the state, checked
	fault   Port      // the one that an error is about

	match    portMatch     // of the ports that the table has as the state wants them
	have     []item        // the other elements of the table
	want     []item        // the other elements of the state
	ports    []Port        // those that shall be published
	plan     *plan         // for the host's links
	hold     portlock.Hold // what Build has reserved
	reserved *reservedPorts

	policies policyPart
	guards   guardPart
	quiet    quietPart
	flow     flowPart

	rebuilt bool // the table is rebuilt
	differs bool // the table differs from the state
	changed bool // and was changed
}

func (s *syncTx) subject() string {
	if s.fault != (Port{}) {
		return s.fault.String()
	}
	return s.tableTx.subject()
}

func (s *syncTx) explain(_ context.Context, err error) error { return s.n.supported(err) }

// Rollback gives back the reserved ports.
func (s *syncTx) Rollback(ctx context.Context) error {
	s.hold.Cancel()
	reserved := s.reserved
	s.reserved = nil
	return reserved.rollback(ctx)
}

// Build returns the batch that brings the table to the state.
func (s *syncTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	s.fault = Port{}
	there, whole, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	s.want = nil
	nets := make(map[string]bool)
	for _, net := range s.nets {
		nets[net.Interface] = true
	}
	for _, it := range s.have {
		if s.desired.stays(it, nets) {
			s.want = append(s.want, it)
		}
	}
	if s.match.all = !whole; !whole {
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
	if err := s.wantPolicies(); err != nil {
		return nil, err
	}
	if err := s.wantGuards(ctx); err != nil {
		return nil, err
	}
	if whole {
		if first := s.closeAhead(s.have, s.want); first != nil {
			return first, nil
		}
	}
	if err := s.list(ctx); err != nil {
		return nil, err
	}
	s.rebuilt = !whole
	b := s.batch(there, whole)
	before := b.Len()
	if err := s.guards.change(b, whole); err != nil {
		return nil, err
	}
	if err := s.flowSync(ctx, b, !whole || b.Len() > before); err != nil {
		return nil, err
	}
	s.n.changeQuiet(b, s.quiet, s.want)
	addItems(b, s.plan.facts)
	s.differs = b.Len() > 0 || s.plan.Writes()
	return b, s.reserved.shrink(ctx)
}

// batch returns the batch that turns the table into the wanted one: by the difference if the table
// is whole, otherwise by a new table.
func (s *syncTx) batch(there, whole bool) *nft.Batch {
	b := nft.NewBatch(s.n.table)
	if whole {
		if s.needsPolicies() && !s.policies.there {
			addPolicies(b, s.n.table)
		}
		changeItems(b, s.have, s.want)
		return b
	}
	if there {
		b.DeleteTable()
	}
	addSkeleton(b, s.n.table)
	if s.needsPolicies() {
		addPolicies(b, s.n.table)
	}
	for i, it := range s.want {
		s.want[i] = renewed(it)
	}
	addItems(b, s.want)
	return b
}

// wantPorts adds the published ports of the state.
func (s *syncTx) wantPorts() error {
	ports, err := decodeItems(s.want)
	if err != nil {
		return err
	}
	if len(ports) == 0 {
		ports = s.desired.Ports
	} else {
		ports = append(ports, s.desired.Ports...)
		if i, j, found := overlap(ports); found {
			s.fault = ports[j]
			return errTaken{ports[i]}
		}
	}
	if s.match.right == nil { // there is no table
		s.match.count(nil)
	}
	s.want = append(s.want, s.match.missing()...)
	s.want = append(s.want, ownItems(ports)...)
	s.want = append(s.want, spanItems(ports)...)
	s.ports = ports
	return nil
}

// list adds the record of ports reserved by the sysctl, as the ports of the state need them.
func (s *syncTx) list(ctx context.Context) error {
	if s.n.unreserved {
		return nil
	}
	var recorded []item
	for _, it := range s.want {
		if it.set == "listed" {
			recorded = append(recorded, it)
		}
	}
	var err error
	if s.reserved, err = s.n.planReserved(ctx, s.ports, recorded); s.reserved != nil {
		s.want = replaceItems(s.want, recorded, s.reserved.record)
	}
	return err
}

// reserve reserves the ports of the state. A port that is published already need not be free: it is
// translated, whichever program has bound it.
func (s *syncTx) reserve(ctx context.Context) (err error) {
	old, fresh := s.match.split(s.desired.Ports)
	s.n.ports.Refresh() // the administrator may have changed it
	if _, err := s.n.reserve(ctx, &s.hold, old, true); err != nil {
		return err
	}
	s.fault, err = s.n.reserve(ctx, &s.hold, fresh, false)
	return err
}

// read reads the table. It reports whether the table exists, and whether it is whole: whether it
// has the present skeleton. A table that is not ours is os.ErrExist.
func (s *syncTx) read(ctx context.Context) (there, whole bool, err error) {
	s.have = nil
	s.match.reset(s.desired.Ports)
	table := s.n.table
	if err := s.guards.read(ctx, s.n, s.c); err != nil {
		return false, false, err
	}
	if s.quiet, err = s.n.readQuiet(ctx, s.c); err != nil {
		return false, false, err
	}
	if s.flow, err = s.n.readFlowtable(ctx, s.c); err != nil {
		return false, false, err
	}
	comment, err := s.c.TableComment(ctx, table)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, false, nil
	case err != nil:
		return false, false, err
	}
	if whole, err = checkVersion(comment); err != nil {
		return false, false, err
	}
	for _, set := range skeletonSets() {
		err := s.readSet(ctx, set.Name)
		if errors.Is(err, os.ErrNotExist) {
			whole = false
			continue
		}
		if err != nil {
			return false, false, err
		}
	}
	if err = s.readPolicies(ctx); err == nil && whole { // another program may have changed the rules only
		whole, err = s.c.Holds(ctx, skeleton(table, s.policies.there, s.guards.inet))
	}
	return true, whole, err
}

// readSet adds the elements of a set to those of the table. The counts of ports come behind the
// ports.
func (s *syncTx) readSet(ctx context.Context, set string) error {
	if isRefSet(set) && s.match.right == nil {
		others := slices.DeleteFunc(slices.Clone(s.have), func(it item) bool { return s.desired.owns(it.elem.Comment) })
		ports, err := decodeItems(others)
		if err != nil {
			return err
		}
		s.match.count(ports)
	}
	before, wanted := len(s.have), s.match.matcher(set)
	reset := func() {
		s.have = s.have[:before]
		s.match.forget(set)
	}
	keep := func(e *nft.Element, wanted bool) error {
		if !wanted {
			s.have = append(s.have, item{set, e.Clone()})
		}
		return nil
	}
	if n := s.match.len(set); n >= cmp.Or(s.n.minKeys, minKeys) { // nearly always, the set has nothing else
		all, err := s.c.EachOf(ctx, s.n.table, set, n, s.match.keys(set), func(i int, e *nft.Element) error {
			return keep(e, s.match.isThere(i, set, e))
		})
		if all || err != nil {
			return err
		}
	}
	return s.c.EachElement(ctx, s.n.table, set, reset, func(e *nft.Element) error {
		return keep(e, wanted != nil && wanted(e))
	})
}

// Committed reports whether the table is whole and has the wanted items.
func (s *syncTx) Committed(ctx context.Context) (bool, error) {
	if gone, ask, err := s.closedAhead(ctx); ask {
		return gone, err
	}
	now := &syncTx{tableTx: s.tableTx, desired: s.desired, guards: guardPart{want: s.guards.want}}
	_, whole, err := now.read(ctx)
	want := slices.DeleteFunc(slices.Clone(s.want), now.match.holds)
	b := nft.NewBatch(s.n.table)
	changeItems(b, now.have, append(want, s.plan.facts...))
	if err == nil {
		err = now.guards.change(b, whole)
	}
	s.n.changeQuiet(b, now.quiet, s.want)
	return whole && b.Len() == 0 && now.match.complete() && now.flow.has(flowing(s.want)), err
}

// flush ends the flows that contradict the table: those of ports and networks that changed, or all.
// It checks all flows if the table was rebuilt, because flows that began before were not
// translated. It also does so for the first time in a process, because an earlier process may have
// been killed between transaction and flush.
func (s *syncTx) flush(ctx context.Context) error {
	had := append(s.have, s.closing.items...)
	sw := sweep{n: s.n, had: had, is: append(slices.Clone(s.want), s.plan.facts...), kept: &s.match, rebuilt: s.rebuilt, all: s.rebuilt || !s.n.staleFlushed}
	err := errors.Join(sw.run(ctx), s.sweepPolicies(ctx, sw.all))
	if sw.all {
		s.n.staleFlushed = err == nil
	}
	if sw.all || err != nil {
		return err
	}
	old := make(map[setKey]item)
	for _, it := range had {
		if isPortSet(it.set) {
			old[it.setKey()] = it
		}
	}
	var first, gone []Port // newly published, and unpublished; one that leads elsewhere is both
	for _, it := range s.want {
		if !isPortSet(it.set) {
			continue
		}
		was, there := old[it.setKey()]
		delete(old, it.setKey())
		if there && string(was.elem.Data) == string(it.elem.Data) {
			continue
		}
		p, err := decodeItem(it)
		if err != nil {
			return err
		}
		// While it was closed ahead, flows began that are not translated.
		first = append(first, p)
		if there {
			if p, err = decodeItem(was); err != nil {
				return err
			}
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
	return s.n.flush(ctx, gone, first)
}

// finish flushes flows, reserves ports and writes settings.
func (s *syncTx) finish(ctx context.Context) error {
	s.changed = s.differs
	s.n.remember(s.facts())
	s.n.elements = len(s.want) + s.match.kept()
	err := s.flush(ctx)
	s.n.retain(expand(s.ports))
	s.hold.Rebind(ctx)
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	if serr := errors.Join(s.finishNetworks(ctx), s.reserved.grow(ctx)); serr != nil {
		err = errors.Join(err, fmt.Errorf("the table is as it should be, but not every setting: %w", serr))
	}
	return err
}
