package nat

import (
	"context"
	"errors"
	"fmt"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// watch hands on events until the context ends.
func (k *keeper) watch(ctx context.Context, events *nl.Events, each func(nl.Message)) {
	for {
		err := events.Receive(ctx, func(_ int, m nl.Message) error { each(m); return nil })
		if errors.Is(err, nl.ErrOverflow) {
			if err = events.Skip(ctx); err == nil {
				k.note(func(t *todo) { t.table, t.links, t.repair.Reason = true, true, EventsLost })
			}
		}
		if err != nil {
			k.broken <- err
			return
		}
	}
}

// note changes what is to be done, and wakes whoever does it.
func (k *keeper) note(change func(*todo)) {
	k.mu.Lock()
	change(&k.todo)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// own says whether a change was made by way of our connection. That has another
// port id after its socket was replaced.
func (k *keeper) own(ctx context.Context, port uint32) bool {
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

// ruleset looks at an event of nftables.
func (k *keeper) ruleset(ctx context.Context, m nl.Message) {
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
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWCHAIN,
		unix.NFT_MSG_DELRULE, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM:
	default:
		return
	}
	if m.Body[0] != unix.NFPROTO_INET || tableOf(m.Body) != k.n.table || k.own(ctx, m.Port) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.todo.open = true
	switch {
	case msg == unix.NFT_MSG_DELTABLE:
		k.todo.repair.Reason = TableRemoved
	case k.todo.repair.Reason == KeepStarted, k.todo.repair.Reason == LinkAppeared:
		k.todo.repair.Reason = TableChanged
	}
}

// tableOf returns the table that an event is about: the first attribute of
// tables, chains, rules, sets and elements alike.
func tableOf(body []byte) string {
	for w := nl.Walk(body[4:]); w.Next(); {
		if w.Type() == unix.NFTA_TABLE_NAME {
			return w.String()
		}
	}
	return ""
}

// committer returns the program that made a transaction.
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

// links returns what looks at an event of a link: whether it is new, or has a new
// name. known are the names of those that are there, by index; one that came since
// it was read is looked after without need, which does no harm.
func (k *keeper) links(known map[int]string) func(nl.Message) {
	return func(m nl.Message) {
		l, flags, err := decodeLink(m.Body)
		if err != nil || flags&unix.IFF_LOOPBACK != 0 {
			return
		}
		switch {
		case m.Type == unix.RTM_DELLINK:
			delete(known, l.index)
		case m.Type == unix.RTM_NEWLINK && !l.port && known[l.index] != l.name:
			known[l.index] = l.name
			k.note(func(t *todo) {
				if t.links = true; !t.table && !t.open {
					t.repair = Repair{Reason: LinkAppeared}
				}
			})
		}
	}
}
