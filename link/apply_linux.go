package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// application makes one link match a spec, and back again.
type application struct {
	ctx  context.Context
	op   string
	ns   *netns.NS
	conn *nl.Conn
	want *Spec

	before Details // as it was
	state  state   // the same as attributes
	link   Link    // as it is afterwards

	// What was changed.
	sent           fields
	port           bool
	names          []string
	addrs          []Addr
	master, upDown bool
}

func (a *application) fail(err error) error {
	name := a.before.Name
	if name == "" {
		name = a.want.Name
	}
	return fail.New(a.op, a.ns, subject(name), err)
}

// read reads the link, by name or by index, and refuses one that cannot be made
// to match.
func (a *application) read(name string, index int) error {
	d, body, err := readDetails(a.ctx, a.ns, a.conn, name, index)
	if err != nil {
		return err
	}
	a.before, a.link = d, d.Link
	if err := a.state.parse(body); err != nil {
		return err
	}
	s := a.want
	if s.Kind != nil && s.Kind.name() != d.Kind {
		return &causeError{text: fmt.Sprintf("the link is of kind %q, not %q: the kind of a link cannot be changed", d.Kind, s.Kind.name()), is: os.ErrExist, err: unix.EEXIST}
	}
	fixed := func(what string, want, have int) error {
		if want == 0 || want == have {
			return nil
		}
		return &causeError{text: fmt.Sprintf("the %s is %d, not %d, and cannot be changed", what, have, want), is: os.ErrExist, err: unix.EEXIST}
	}
	return errors.Join(
		fixed("index", s.Index, d.Index),
		fixed("index of the parent", s.Parent, d.ParentIndex),
		fixed("number of transmit queues", s.TxQueues, d.Spec.TxQueues),
		fixed("number of receive queues", s.RxQueues, d.Spec.RxQueues))
}

// run sends what differs, and reads the result back.
func (a *application) run() error {
	err := a.change()
	if err == nil {
		err = a.check()
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, a.undo())
}

// change sends what differs, what has to be there when the link comes up first.
func (a *application) change() error {
	s, index := a.want, a.before.Index
	m := message{b: appendIfInfo(nil, index, 0, 0), have: &a.state}
	m.all(s)
	a.master = s.Master != 0 && s.Master != a.before.Master
	if a.master {
		m.b = nl.AppendU32(m.b, unix.IFLA_MASTER, uint32(s.Master))
	}
	sysctls := m.sysctls(s)
	a.sent = m.sent

	var reqs []nl.Request
	if len(m.b) > unix.SizeofIfInfomsg {
		reqs = append(reqs, nl.Request{Type: unix.RTM_NEWLINK, Body: m.b, Names: a.attrNames()})
	}
	if slave := a.slave(&a.sent); slave != nil {
		if err := a.isBond(); err != nil {
			return a.fail(err)
		}
		reqs = append(reqs, *slave)
	}
	if a.port = s.Port.missing(&a.before.Port.PortOptions) != nil; a.port {
		reqs = append(reqs, setPort(index, &s.Port))
	}
	for _, n := range s.AltNames {
		if !slices.Contains(a.before.Spec.AltNames, n) {
			a.names = append(a.names, n)
		}
	}
	if len(a.names) > 0 {
		reqs = append(reqs, linkProps(unix.RTM_NEWLINKPROP, index, a.names))
	}
	if err := a.exec(reqs); err != nil {
		return err
	}
	if err := a.setSysctls(sysctls); err != nil {
		return a.fail(err)
	}
	if s.Up && !a.before.Up {
		a.upDown = true
		if err := a.exec([]nl.Request{setFlags(index, true)}); err != nil {
			return err
		}
	}
	return a.addAddrs()
}

// slave builds the message for a bond's port; nil where nothing differs.
func (a *application) slave(sent *fields) *nl.Request {
	m := message{b: appendIfInfo(nil, a.before.Index, 0, 0)}
	if !a.master {
		m.have = &a.state
	}
	m.slave(a.want)
	sent[placeSlave] = m.sent[placeSlave]
	if len(m.names) == 0 {
		return nil
	}
	return &nl.Request{Type: unix.RTM_NEWLINK, Body: m.b, Names: linkNames}
}

func (a *application) isBond() error {
	master := a.before.Master
	if a.master {
		master = a.want.Master
	}
	l, err := read(a.ctx, a.ns, a.conn, "", master)
	if master == 0 || err == nil && l.Kind != "bond" {
		return refuse.Input("the link is not the port of a bond: BondPort must be zero")
	}
	return err
}

func (a *application) setSysctls(list []sysctl) error {
	name := a.before.Name
	if a.want.Name != "" {
		name = a.want.Name // by now
	}
	for _, v := range list {
		if err := a.ns.SetSysctl(a.ctx, v.key(name), v.text()); err != nil {
			return err
		}
	}
	return nil
}

// addAddrs adds the addresses that the link does not have.
func (a *application) addAddrs() error {
	if len(a.want.Addrs) == 0 {
		return nil
	}
	have, err := readAddrs(a.ctx, a.conn, a.before.Index)
	if err != nil {
		return a.fail(err)
	}
	var missing []Addr
	for _, p := range a.want.Addrs {
		if slices.ContainsFunc(have, func(h Addr) bool { return h.Prefix == p }) {
			continue
		}
		n := StaticAddr(p)
		if a.want.DAD {
			n.Flags &^= AddrNoDAD
		}
		missing = append(missing, n)
	}
	if err := a.link.addAddrs(a.ctx, a.op, missing, nil); err != nil { // all or none
		return err
	}
	a.addrs = missing
	return nil
}

// exec sends requests in one go.
func (a *application) exec(reqs []nl.Request) error {
	if len(reqs) == 0 {
		return nil
	}
	err := change(a.ctx, func(ctx context.Context) error { return a.conn.Exec(ctx, reqs, nil) })
	i, e, ok := refused(err)
	switch {
	case err == nil:
		return nil
	case !ok:
	case reqs[i].Type == unix.RTM_SETLINK:
		err = explainPort(e, &a.want.Port)
	case reqs[i].Type == unix.RTM_NEWLINKPROP:
		err = explainNames(a.names, e)
	case e.Errno == unix.EBUSY && a.want.Name != "" && a.want.Name != a.before.Name && a.before.Up:
		err = &causeError{text: "a link that is up cannot be renamed before Linux 6.2: " + e.Error(), err: e}
	case e.Errno == unix.EEXIST && a.want.Name != "" && a.want.Name != a.before.Name:
		err = exist(e, "the name %s is taken in netns %s", a.want.Name, a.ns)
	case e.Errno == unix.EOPNOTSUPP && a.sentAny(placeData):
		err = &causeError{text: fmt.Sprintf("the kernel does not change these options of a %s: %v", a.before.Kind, e), is: errors.ErrUnsupported, err: e}
	case a.master:
		c := creation{ctx: a.ctx}
		err = c.explainMaster(e, &end{ns: a.ns, conn: a.conn, spec: a.want})
	}
	return a.fail(err)
}

func (a *application) sentAny(place int) bool { return !a.sent[place].empty() }

func (a *application) attrNames() func([]uint16) string {
	if a.want.Kind != nil {
		return namesOf(a.want.Kind)
	}
	return linkNames
}

// check reads the link back: the kernel passes over what it does not know, and
// over some of what it does not change.
func (a *application) check() error {
	d, body, err := readDetails(a.ctx, a.ns, a.conn, "", a.before.Index)
	if err != nil {
		return a.fail(err)
	}
	var now state
	if err := now.parse(body); err != nil {
		return a.fail(err)
	}
	a.link = d.Link
	if h, ok := a.want.Kind.(interface{ hidden(*attrs) }); ok {
		h.hidden(&now.at[placeData])
	}
	m := message{have: &now, only: &a.sent}
	m.all(a.want)
	m.slave(a.want)
	if a.port {
		if err := a.want.Port.missing(&d.Port.PortOptions); err != nil {
			return a.fail(err)
		}
	}
	if len(m.names) > 0 {
		slices.Sort(m.names)
		return a.fail(&causeError{
			text: fmt.Sprintf("the kernel did not take %s: it does not know or does not change this option", strings.Join(slices.Compact(m.names), ", ")),
			is:   errors.ErrUnsupported, err: unix.EOPNOTSUPP,
		})
	}
	if err := a.ctx.Err(); err != nil {
		return a.fail(err)
	}
	return nil
}

// undo brings back what was before, whatever became of ctx.
func (a *application) undo() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), undoTimeout)
	defer cancel()
	index, old := a.before.Index, &a.before.Spec
	var errs []error
	do := func(req nl.Request) {
		if err := a.conn.Call(ctx, req, nil); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for i := len(a.addrs) - 1; i >= 0; i-- {
		do(delAddr(index, &a.addrs[i]))
	}
	if a.upDown {
		do(setFlags(index, false))
	}
	if len(a.names) > 0 {
		for _, n := range a.names { // one that was not added does not keep the others
			if err := a.conn.Call(ctx, linkProps(unix.RTM_DELLINKPROP, index, []string{n}), nil); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
				errs = append(errs, err)
			}
		}
	}
	m := message{b: appendIfInfo(nil, index, 0, 0), only: &a.sent, zero: true}
	m.all(old)
	if len(m.b) > unix.SizeofIfInfomsg {
		do(nl.Request{Type: unix.RTM_NEWLINK, Body: m.b, Names: linkNames})
	}
	if a.master {
		// In a message after that of the rest: within one, the master comes first, and
		// before Linux 6.0 a bridge takes over the GSO limits of a port that joins.
		b := nl.AppendU32(appendIfInfo(nil, index, 0, 0), unix.IFLA_MASTER, uint32(a.before.Master))
		do(nl.Request{Type: unix.RTM_NEWLINK, Body: b, Names: linkNames})
	}
	for _, req := range a.undoPort(ctx) {
		do(req)
	}
	for _, v := range m.sysctls(old) {
		if err := a.ns.SetSysctl(ctx, v.key(a.before.Name), v.text()); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return a.fail(fmt.Errorf("undoing the change: %w", err))
	}
	return nil
}

// undoPort builds the messages that bring back what the link was as a port, once
// it has its master back. One that left a master has lost all of it.
func (a *application) undoPort(ctx context.Context) (reqs []nl.Request) {
	index, old := a.before.Index, &a.before.Spec
	switch a.before.SlaveKind {
	case "bridge":
		set := a.want.Port
		if a.master {
			set = old.Port
			set.State = nil // which follows from the rest
		} else if !a.port {
			return nil
		}
		if p, err := readPort(ctx, a.conn, index); err == nil {
			if o := set.undo(&old.Port, &p.PortOptions); o != (PortOptions{}) {
				reqs = append(reqs, setPort(index, &o))
			}
		}
	case "bond":
		m := message{b: appendIfInfo(nil, index, 0, 0)}
		if !a.master {
			m.only, m.zero = &a.sent, true
		}
		if m.slave(old); len(m.names) > 0 {
			reqs = append(reqs, nl.Request{Type: unix.RTM_NEWLINK, Body: m.b, Names: linkNames})
		}
	}
	return reqs
}
