package nat

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/rtnl"
	"golang.org/x/sys/unix"
)

// watch calls each for every event until the context ends.
func (k *maintainer) watch(ctx context.Context, events *nl.Events, each func(nl.Message)) {
	for {
		err := events.Receive(ctx, func(_ int, m nl.Message) error { each(m); return nil })
		if errors.Is(err, nl.ErrOverflow) {
			if err = events.Skip(ctx); err == nil {
				k.note(func(t *todo) { t.table, t.links, t.repair.Reason = true, true, ReasonEventsLost })
			}
		}
		if err != nil {
			k.broken <- err
			return
		}
	}
}

// note changes the pending work and wakes the loop.
func (k *maintainer) note(change func(*todo)) {
	k.mu.Lock()
	change(&k.todo)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// own reports whether a change was sent by this NAT's socket. The socket may have been replaced,
// with a new port id.
func (k *maintainer) own(ctx context.Context, port uint32) bool {
	k.mu.Lock()
	known := k.ports[port]
	k.mu.Unlock()
	if known {
		return true
	}
	now, err := k.exchange.PortID(ctx)
	if err != nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ports[now] = true
	return now == port
}

// ruleset handles an event of nftables.
func (k *maintainer) ruleset(ctx context.Context, m nl.Message) {
	if m.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Body) < 4 {
		return
	}
	msg := m.Type & 0xff
	switch msg {
	case unix.NFT_MSG_NEWGEN: // the end of a transaction
		k.mu.Lock()
		open := k.todo.open
		k.mu.Unlock()
		if open && !k.own(ctx, m.Port) {
			by := committer(m.Body)
			k.note(func(t *todo) { t.table, t.open, t.repair.By = true, false, by })
		}
		return
	case unix.NFT_MSG_NEWSETELEM:
		// Another table has handed a record over, or taken it back.
		if !slices.Contains(recordSets, setOfEvent(m.Body)) {
			return
		}
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWCHAIN,
		unix.NFT_MSG_DELRULE, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM,
		unix.NFT_MSG_DELFLOWTABLE, unix.NFT_MSG_NEWFLOWTABLE:
	default:
		return
	}
	if !k.n.isPart(m.Body[0], tableOf(m.Body)) || k.own(ctx, m.Port) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.todo.open = true
	switch {
	case msg == unix.NFT_MSG_DELTABLE:
		k.todo.repair.Reason = ReasonTableRemoved
	case k.todo.repair.Reason == ReasonStarted, k.todo.repair.Reason == ReasonLinkAppeared:
		k.todo.repair.Reason = ReasonTableChanged
	}
}

// isPart reports whether a table of a family is the NAT's, or follows from it.
func (n *NAT) isPart(family byte, table string) bool {
	switch family {
	case unix.NFPROTO_INET:
		return table == n.table || table == n.flowTable()
	case unix.NFPROTO_BRIDGE:
		return table == n.table || table == n.quietTable()
	}
	return false
}

// tableOf returns the table of an event. It is the first attribute for tables, chains, rules, sets
// and elements.
func tableOf(body []byte) string { return nameIn(body, unix.NFTA_TABLE_NAME) }

// setOfEvent returns the set of an event of elements.
func setOfEvent(body []byte) string { return nameIn(body, unix.NFTA_SET_ELEM_LIST_SET) }

// nameIn returns an attribute of an event.
func nameIn(body []byte, typ uint16) string {
	for w := nl.Walk(body[4:]); w.Next(); {
		if w.Type() == typ {
			return w.String()
		}
	}
	return ""
}

// committer returns the program that sent a transaction.
func committer(body []byte) string {
	var name string
	var pid uint32
	for w := nl.Walk(body[4:]); w.Next(); {
		switch w.Type() {
		case unix.NFTA_GEN_PROC_PID:
			pid = w.BE32()
		case unix.NFTA_GEN_PROC_NAME:
			name = w.String()
		}
	}
	if name == "" {
		return ""
	}
	return fmt.Sprintf("%s (%d)", name, pid)
}

// links returns the handler of link events. It notes new links and new names. known are the names
// of the existing links by index. A link that appeared after known was read is noted without need,
// which does no harm. ways are by index, too.
func (k *maintainer) links(known map[int]string, ways map[int]way) func(nl.Message) {
	macs := make(map[string]string) // by name
	return func(m nl.Message) {
		switch m.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		case unix.RTM_NEWNETCONF:
			k.settings(m.Body)
			return
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			k.address(m.Body)
			return
		default:
			return
		}
		l, err := rtnl.DecodeLink(m.Body)
		if err != nil || l.IsLoopback() || m.Type == unix.RTM_NEWLINK && m.Body[0] == unix.AF_BRIDGE {
			return // the bridge's view of a port (br_ifinfo_notify) does not say that it is one
		}
		if m.Type == unix.RTM_NEWLINK && k.guarding.Load() && macs[l.Name] != l.MAC.String() {
			macs[l.Name] = l.MAC.String()
			k.noteGuarded()
		}
		k.way(m, l, ways)
		switch {
		case m.Type == unix.RTM_DELLINK:
			if _, ok := known[l.Index]; ok && !l.IsPort() { // which may be recorded
				k.note(func(t *todo) { t.links = true })
			}
			delete(known, l.Index)
		case l.IsPort() && k.flowing.Load() && known[l.Index] != "":
			// The flowtable must not have it, or has to.
			delete(known, l.Index)
			k.note(func(t *todo) { t.links = true })
		case m.Type == unix.RTM_NEWLINK && !l.IsPort() && known[l.Index] != l.Name:
			known[l.Index] = l.Name
			k.note(func(t *todo) {
				if t.links = true; !t.table && !t.open {
					t.repair = Repair{Reason: ReasonLinkAppeared}
				}
			})
		}
	}
}

// settings notes that a link may have stopped forwarding, or forwards for the whole machine.
func (k *maintainer) settings(body []byte) {
	if switchedOff(body) || madeRouter(body) {
		k.noteForwarding()
	}
}

// noteGuarded notes that a guarded port may have appeared, or have another MAC.
func (k *maintainer) noteGuarded() {
	k.note(func(t *todo) {
		if !t.table && !t.open {
			t.repair = Repair{Reason: ReasonLinkAppeared}
		}
		t.table = true
	})
}

// noteForwarding notes that a link may have stopped forwarding, or forwards for the whole machine.
func (k *maintainer) noteForwarding() {
	k.note(func(t *todo) {
		if t.links = true; !t.table && !t.open && t.repair.Reason != ReasonLinkAppeared {
			t.repair = Repair{Reason: ReasonForwardingOff}
		}
	})
}

// Attributes of an event of settings (linux/netconf.h), which unix lacks.
const (
	netconfIndex      = 1 // NETCONFA_IFINDEX
	netconfForwarding = 2 // NETCONFA_FORWARDING

	netconfAll    = 1<<32 - 1 // NETCONFA_IFINDEX_ALL
	netconfHeader = 4         // struct netconfmsg, with padding
)

// madeRouter reports whether an event of settings says that the global switch of a family was switched on.
func madeRouter(body []byte) bool {
	if len(body) < netconfHeader {
		return false
	}
	all, on := false, false
	for w := nl.Walk(body[netconfHeader:]); w.Next(); {
		switch {
		case len(w.Data()) != 4:
		case w.Type() == netconfIndex:
			all = w.U32() == netconfAll
		case w.Type() == netconfForwarding:
			on = w.U32() != 0
		}
	}
	return all && on
}

// switchedOff reports whether an event of settings (struct netconfmsg) may mean that forwarding was
// switched off. For a new link the kernel reports all settings, and forwarding may be off. For a
// change it reports that setting only. An event without a setting is about force_forwarding, whose
// value the kernel leaves out (at least 6.17 to 6.18).
func switchedOff(body []byte) bool {
	if len(body) < netconfHeader {
		return false
	}
	settings, off := 0, false
	for w := nl.Walk(body[netconfHeader:]); w.Next(); {
		if w.Type() == netconfIndex {
			continue
		}
		settings++
		off = off || w.Type() == netconfForwarding && len(w.Data()) == 4 && w.U32() == 0
	}
	return settings == 0 || settings == 1 && off
}
