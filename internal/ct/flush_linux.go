package ct

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Target says which flows to flush: those of a protocol that were, before any
// translation, for an address and one of the ports First to Last. The
// unspecified address of a family stands for every address of the namespace.
type Target struct {
	Proto       uint8
	Addr        netip.Addr
	First, Last uint16

	// Unanswered spares flows that have seen a packet in each direction. Of the
	// others, some to the same port of other addresses may go, too: their next
	// packet begins them again.
	Unanswered bool

	// Translated is where the flows were translated to, if that is known: the source of replies.
	// Flows that were translated to elsewhere, or not at all, may go, too.
	Translated netip.AddrPort

	// Alone says that nothing else translates destinations of this protocol, family and port number,
	// so that flows are known by their ports. Kernels cannot tell IPv6 addresses apart.
	Alone bool
}

// maxDeletes is how many targets are deleted one by one. A delete by filter walks
// all of the kernel's flows, in a tenth to a third of the time of a dump: it passes over empty
// buckets without their lock.
const maxDeletes = 16

// Flush deletes the flows of the targets. Where the namespace has no flow at all
// it only asks for their number.
//
// local says whether an address is one of the namespace. It is asked, once for
// each address, about flows for the port of a target with an unspecified
// address: a flow that only passes through, to the same port of another
// machine, stays.
func (t Table) Flush(ctx context.Context, targets []Target, local func(context.Context, netip.Addr) (bool, error)) error {
	// After a change of the rules nothing is missed by that: a flow is counted from
	// before its first packet meets them, but found in the table only when that
	// packet has passed them all.
	entries, err := t.count(ctx)
	if err != nil || entries == 0 {
		return err
	}
	targets = distinct(targets)
	if len(targets) <= maxDeletes {
		left := targets[:0:0]
		for _, g := range targets {
			done, err := t.deleteByFilter(ctx, g)
			if err != nil {
				return err
			}
			if !done {
				left = append(left, g)
			}
		}
		targets = left
	}
	if len(targets) == 0 {
		return nil
	}
	for i := range targets { // no dump compares it
		targets[i].Translated, targets[i].Alone = netip.AddrPort{}, false
	}
	targets = distinct(targets)
	m := newMatcher(targets)
	flows, err := t.find(ctx, targets, m, entries)
	if err == nil {
		flows, err = m.own(ctx, flows, local)
	}
	if err != nil {
		return err
	}
	_, err = t.Delete(ctx, flows...)
	return err
}

// distinct returns the targets without those that stand there twice.
func distinct(targets []Target) []Target {
	seen := make(map[Target]bool, len(targets))
	once := targets[:0:0]
	for _, g := range targets {
		if !seen[g] {
			once = append(once, g)
		}
		seen[g] = true
	}
	return once
}

// deleteByFilter deletes the flows of a target at once (>= 6.11), where the
// kernel compares all that matters, and reports whether it has.
func (t Table) deleteByFilter(ctx context.Context, g Target) (bool, error) {
	byAddr := g.Addr.Is4() && !g.Addr.IsUnspecified()
	translated := g.Translated.IsValid() && g.Addr.Is4() == g.Translated.Addr().Is4() && (g.Addr.Is4() || g.Alone && g.Addr.IsUnspecified())
	if !byAddr && !g.Unanswered && !translated || g.First != g.Last || g.Proto != unix.IPPROTO_TCP && g.Proto != unix.IPPROTO_UDP {
		return false, nil
	}
	err := t.nl.Call(ctx, nl.Request{Type: msgType(msgDelete), Body: selectionWith(g, translated)}, nil)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return false, nil
	}
	return false, fmt.Errorf("deleting from the conntrack table: %w", err)
}
