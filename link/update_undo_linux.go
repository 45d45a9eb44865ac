package link

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// updateUndo brings back what was before an update. It reads the link first: a message
// that the kernel refuses may be done in part, and what is as it was must not be sent,
// since the kernel would refuse that, too.
type updateUndo struct {
	*update
	ctx  context.Context
	now  Link
	have state // the same as attributes
	errs []error
}

// undo brings back what was before, even when the context of the call is done.
func (u *update) undo() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), undoTimeout)
	defer cancel()
	b := updateUndo{update: u, ctx: ctx}
	b.removeAdded()
	if err := b.look(); err != nil {
		return u.fail(fmt.Errorf("undoing the change: %w", err))
	}
	b.attributes()
	b.portOfMaster()
	b.restore()
	if err := errors.Join(b.errs...); err != nil {
		return u.fail(fmt.Errorf("undoing the change: %w", err))
	}
	return nil
}

// send sends a request. A thing that has gone needs no undoing.
func (b *updateUndo) send(req nl.Request, fine ...error) {
	err := b.conn.Call(b.ctx, req, nil)
	for _, f := range append(fine, os.ErrNotExist) {
		if errors.Is(err, f) {
			return
		}
	}
	b.note(err)
}

func (b *updateUndo) note(err error) {
	if err != nil {
		b.errs = append(b.errs, err)
	}
}

// removeAdded removes addresses and names that were added, and takes the link down.
func (b *updateUndo) removeAdded() {
	index := b.before.Index
	for i := len(b.addrs) - 1; i >= 0; i-- {
		for _, req := range undoAddr(index, &b.addrs[i], nil) {
			b.send(req)
		}
	}
	if b.upDown {
		b.send(setFlags(index, false))
	}
	for _, n := range b.names { // one that was not added does not keep the others
		b.send(linkProps(unix.RTM_DELLINKPROP, index, []string{n}), unix.EINVAL)
	}
}

// look reads what the link is now.
func (b *updateUndo) look() error {
	d, body, err := readDetails(b.ctx, b.ns, b.conn, "", b.before.Index)
	if err != nil {
		return err
	}
	b.now = d.Link
	return b.have.parse(body)
}

// message begins a message that brings back what has changed.
func (b *updateUndo) message() message {
	return message{b: appendIfInfo(nil, b.before.Index, 0, 0), have: &b.have, only: &b.sent, zero: true}
}

func (b *updateUndo) attributes() {
	old := &b.before.Spec
	// The settings of IPv6 come after the MTU: below 1280 a link has none.
	data, link, later := b.message(), b.message(), b.message()
	o, set := declare(old.Kind), old.settings()
	data.options(&o)
	link.put(placeLink, set.common())
	later.late(&set)
	for _, m := range []*message{&data, &link, &later} {
		if len(m.b) > unix.SizeofIfInfomsg {
			b.send(nl.Request{Type: unix.RTM_NEWLINK, Body: m.b, Names: linkNames})
		}
	}
}

// portOfMaster gives the link its master back, and what it was as a port. In a message
// of its own: within one, the master comes first, and before Linux 6.0 a bridge takes
// over the GSO limits of a port that joins. A port that left a master has lost all of
// its settings.
func (b *updateUndo) portOfMaster() {
	index, old := b.before.Index, &b.before.Spec
	if b.left() {
		b.send(nl.Request{Type: unix.RTM_NEWLINK, Body: nl.AppendU32(appendIfInfo(nil, index, 0, 0), unix.IFLA_MASTER, uint32(b.before.Master)), Names: linkNames})
	}
	switch b.before.SlaveKind {
	case "bridge":
		set := b.want.Port
		if b.master {
			set = old.Port
			set.State = nil // which follows from the rest
		} else if !b.port {
			return
		}
		if p, err := readPort(b.ctx, b.conn, index); err == nil {
			if o := set.undo(&old.Port, &p.PortOptions); o != (PortOptions{}) {
				b.send(setPort(index, &o))
			}
		}
	case "bond":
		m := message{b: appendIfInfo(nil, index, 0, 0)}
		if !b.master {
			m.only, m.zero = &b.sent, true
		}
		set := old.settings()
		if m.slave(&set); len(m.b) > unix.SizeofIfInfomsg {
			b.send(nl.Request{Type: unix.RTM_NEWLINK, Body: m.b, Names: linkNames})
		}
	}
}

// left reports whether the link had left its master.
func (b *updateUndo) left() bool { return b.master && b.now.Master != b.before.Master }

// restore gives the link back what it had lost, and its sysctls, which it has only
// while it has IPv6.
func (b *updateUndo) restore() {
	if b.tables != nil && b.now.Master != b.before.Master {
		b.note(b.tables.restore(b.ctx, b.link, b.conn))
	}
	if b.lost != nil {
		b.note(b.lost.restore(b.ctx, b.link, b.conn))
	}
	m, set := b.message(), b.before.Spec.settings()
	b.note(setSysctls(b.ctx, b.ns, b.before.Name, m.sysctls(&set)))
}
