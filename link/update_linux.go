package link

import (
	"bytes"
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

// Update changes what s names and returns the link as read afterwards. A zero field
// keeps the link's value, a nil Kind all options of the kind. A Name renames the
// link; before Linux 6.2 the link must be down for that. Addrs and AltNames are
// added to those that the link has. Only what differs is sent.
//
//	l, err = l.Update(ctx, link.Spec{MTU: 1400})
//
// Update changes everything or brings back what was before. An option that the
// kernel does not change on an existing link is errors.ErrUnsupported. Another
// kind, index, parent or number of queues is os.ErrExist. A Peer is os.ErrInvalid:
// each end of a pair is updated by its own Link. A link that is gone is
// os.ErrNotExist.
func (l Link) Update(ctx context.Context, s Spec) (Link, error) {
	const op = "link.Update"
	u := update{ctx: ctx, op: op, ns: l.ns, want: &s}
	err := l.bound()
	if err == nil {
		u.kind, err = s.checkUpdate(l.Name, l.ns)
	}
	if err == nil {
		err = s.resolve(ctx, l.ns, &u.kind)
	}
	if err == nil {
		u.conn, err = route(l.ns)
	}
	if err == nil {
		err = u.read("", l.Index)
	}
	if err != nil {
		return Link{}, fail.New(op, l.ns, l.subject(), err)
	}
	if err := u.run(); err != nil {
		return Link{}, err
	}
	return u.link, nil
}

// checkUpdate is check for a spec whose zero fields mean nothing.
func (s *Spec) checkUpdate(name string, ns *netns.NS) (o options, err error) {
	if s.NS != nil && !s.NS.Equal(ns) {
		return o, refuse.Input("Spec.NS names another namespace (%s); links are moved by Move", s.NS)
	}
	c := *s
	if c.Name == "" {
		c.Name = name
	}
	if c.Master == (Ref{}) {
		if c.Port != (PortOptions{}) || c.BondPort != (BondPort{}) {
			c.Master.Index = 1 // it may be a port already
		}
	}
	if err := c.checkCommon(); err != nil || c.Kind == nil {
		return o, err
	}
	o, err = checkOptions(c.Kind)
	if p := o.peer(); p != nil && p.Name != "" {
		return o, refuse.Input("the other end of a %s is changed by its own Link: Peer must be zero", c.Kind.name())
	}
	return o, err
}

// update makes one link match a spec. Its undo brings back what was before.
type update struct {
	ctx  context.Context
	op   string
	ns   *netns.NS
	conn *nl.Conn
	want *Spec
	kind options // of want

	before Details     // as it was
	state  state       // the same as attributes
	link   Link        // after the update
	tables *portTables // what the bridge that it leaves knows of it

	lost *dependents // what it loses with its hardware address or a small MTU; or nil

	setMaster bool // the master is to be that of want, with 0 none

	// What was changed.
	sent           fields
	port           bool
	sentOptions    []string // of the kind, by name; they are in the first message
	names          []string
	addrs          []Addr
	master, upDown bool
}

func (u *update) fail(err error) error {
	name := u.before.Name
	if name == "" {
		name = u.want.Name
	}
	return fail.New(u.op, u.ns, subject(name), err)
}

// read reads the link, by name or by index, and refuses one that cannot be made
// to match.
func (u *update) read(name string, index int) error {
	d, body, err := readDetails(u.ctx, u.ns, u.conn, name, index)
	if err != nil {
		return err
	}
	u.before, u.link = d, d.Link
	if err := u.state.parse(body); err != nil {
		return err
	}
	s := u.want
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
		fixed("index of the parent", s.Parent.Index, d.ParentIndex),
		fixed("number of transmit queues", s.TxQueues, d.Spec.TxQueues),
		fixed("number of receive queues", s.RxQueues, d.Spec.RxQueues))
}

// run sends what differs, and reads the result back.
func (u *update) run() error {
	err := u.change()
	if err == nil {
		err = u.check()
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, u.undo())
}

// change sends what differs, what has to be there when the link comes up first.
func (u *update) change() error {
	if err := u.prepare(); err != nil {
		return u.fail(err)
	}
	reqs, sysctls, err := u.requests()
	if err != nil {
		return u.fail(err)
	}
	if err := u.exec(reqs); err != nil {
		return err
	}
	name := u.before.Name
	if u.want.Name != "" {
		name = u.want.Name // by now
	}
	if err := setSysctls(u.ctx, u.ns, name, sysctls); err != nil {
		return u.fail(err)
	}
	if u.want.Up && !u.before.Up {
		u.upDown = true
		if err := u.exec([]nl.Request{setFlags(u.before.Index, true)}); err != nil {
			return err
		}
	}
	return u.addAddrs()
}

// prepare reads what the link loses by the change, and refuses what cannot be done.
func (u *update) prepare() error {
	s := u.want
	if u.master = u.setMaster || s.Master.Index != 0 && s.Master.Index != u.before.Master; u.master {
		if err := u.leave(); err != nil {
			return err
		}
	}
	if s.MAC != nil && !bytes.Equal(s.MAC, u.before.MAC) || s.MTU != 0 && s.MTU < minMTUIPv6 && s.MTU < u.before.MTU {
		lost, err := readDependents(u.ctx, u.conn, &u.before)
		if err != nil {
			return err
		}
		lost.port = nil // it does not leave
		u.lost = &lost
	}
	if s.MTU <= u.before.MTU {
		return nil
	}
	r, err := u.link.rateState(u.ctx)
	if err != nil {
		return nil // a kernel without limits
	}
	if err := errors.Join(r.egress.checkFor("egress", s.MTU), r.ingress.checkFor("ingress", s.MTU)); err != nil {
		return fmt.Errorf("the limits of SetRate do not fit the MTU: %w", err)
	}
	return nil
}

// requests returns what differs, and records it.
func (u *update) requests() (reqs []nl.Request, sysctls []sysctl, err error) {
	s, index := u.want, u.before.Index
	// In a message of their own: a VXLAN refuses its options beside an MTU.
	data := message{b: appendIfInfo(nil, index, 0, 0), have: &u.state}
	data.options(&u.kind)
	u.sentOptions = data.names
	m := message{b: appendIfInfo(nil, index, 0, 0), have: &u.state, sent: data.sent}
	set := s.settings()
	m.put(placeLink, set.common())
	m.late(&set)
	if u.master {
		m.b = nl.AppendU32(m.b, unix.IFLA_MASTER, uint32(s.Master.Index))
	}
	sysctls = m.sysctls(&set)
	u.sent = m.sent
	for _, b := range [][]byte{data.b, m.b} {
		if len(b) > unix.SizeofIfInfomsg {
			reqs = append(reqs, nl.Request{Type: unix.RTM_NEWLINK, Body: b, Names: u.attrNames()})
		}
	}
	if slave := u.slave(&set); slave != nil {
		if err := u.isBond(); err != nil {
			return nil, nil, err
		}
		reqs = append(reqs, *slave)
	}
	if u.port = s.Port.missing(&u.before.Port.PortOptions) != nil; u.port {
		reqs = append(reqs, setPort(index, &s.Port))
	}
	for _, n := range s.AltNames {
		if !slices.Contains(u.before.Spec.AltNames, n) {
			u.names = append(u.names, n)
		}
	}
	if len(u.names) > 0 {
		reqs = append(reqs, linkProps(unix.RTM_NEWLINKPROP, index, u.names))
	}
	return reqs, sysctls, nil
}

// slave builds the message for a bond's port; nil where nothing differs.
func (u *update) slave(set *settings) *nl.Request {
	m := message{b: appendIfInfo(nil, u.before.Index, 0, 0)}
	if !u.master {
		m.have = &u.state
	}
	m.slave(set)
	u.sent[placeSlave] = m.sent[placeSlave]
	if len(m.b) == unix.SizeofIfInfomsg {
		return nil
	}
	return &nl.Request{Type: unix.RTM_NEWLINK, Body: m.b, Names: linkNames}
}

func (u *update) isBond() error {
	master := u.before.Master
	if u.master {
		master = u.want.Master.Index
	}
	l, err := read(u.ctx, u.ns, u.conn, "", master)
	if master == 0 || err == nil && l.Kind != "bond" {
		return refuse.Input("the link is not the port of a bond: BondPort must be zero")
	}
	return err
}

// addAddrs adds the addresses that the link does not have.
func (u *update) addAddrs() error {
	if len(u.want.Addrs) == 0 {
		return nil
	}
	have, err := readAddrs(u.ctx, u.conn, u.before.Index)
	if err != nil {
		return u.fail(err)
	}
	var missing []Addr
	for _, p := range u.want.Addrs {
		if !slices.ContainsFunc(have, func(h Addr) bool { return h.Prefix == p }) {
			missing = append(missing, newAddr(p, u.want.DAD))
		}
	}
	if err := u.link.addAddrs(u.ctx, u.op, missing, nil); err != nil { // all or none
		return err
	}
	u.addrs = missing
	return nil
}

// exec sends requests in one go.
func (u *update) exec(reqs []nl.Request) error {
	if len(reqs) == 0 {
		return nil
	}
	err := execChange(u.ctx, u.conn, reqs, nil)
	i, e, ok := refused(err)
	switch {
	case err == nil:
		return nil
	case !ok:
	case reqs[i].Type == unix.RTM_SETLINK:
		err = explainPort(e, &u.want.Port)
	case reqs[i].Type == unix.RTM_NEWLINKPROP:
		err = explainNames(u.names, e, u.before.Index, func(name string) (Link, error) {
			return read(answerContext(u.ctx), u.ns, u.conn, name, 0)
		})
	case e.Errno == unix.EBUSY && u.want.Name != "" && u.want.Name != u.before.Name && u.before.Up:
		err = &causeError{text: "a link that is up cannot be renamed before Linux 6.2: " + e.Error(), err: e}
	case e.Errno == unix.EEXIST && u.want.Name != "" && u.want.Name != u.before.Name:
		err = exist(e, "the name %s is taken in netns %s", u.want.Name, u.ns)
	case e.Errno == unix.EOPNOTSUPP && u.sentOptions != nil && i == 0 && len(reqs[0].Body) > unix.SizeofIfInfomsg:
		err = &causeError{text: fmt.Sprintf("the kernel does not change %s of a %s: %v", strings.Join(u.sentOptions, ", "), u.before.Kind, e), is: errors.ErrUnsupported, err: e}
	case u.master:
		at := nsConn{u.ns, u.conn}
		err = at.explainMaster(u.ctx, u.want.Master, e)
	}
	return u.fail(err)
}

func (u *update) attrNames() func([]uint16) string {
	if u.want.Kind != nil {
		return namesOf(u.want.Kind)
	}
	return linkNames
}

// check reads the link back: the kernel ignores what it does not know, and some of
// what it does not change.
func (u *update) check() error {
	d, body, err := readDetails(u.ctx, u.ns, u.conn, "", u.before.Index)
	if err != nil {
		return u.fail(err)
	}
	var now state
	if err := now.parse(body); err != nil {
		return u.fail(err)
	}
	u.link = d.Link
	if h, ok := u.want.Kind.(unreporter); ok {
		h.addUnreported(&now.at[placeData])
	}
	m := message{have: &now, only: &u.sent}
	set := u.want.settings()
	m.put(placeLink, set.common())
	m.late(&set)
	m.options(&u.kind)
	m.slave(&set)
	if u.port {
		if err := u.want.Port.missing(&d.Port.PortOptions); err != nil {
			return u.fail(err)
		}
	}
	if len(m.names) > 0 {
		slices.Sort(m.names)
		return u.fail(&causeError{
			text: fmt.Sprintf("the kernel did not take %s: it does not know or does not change this option", strings.Join(slices.Compact(m.names), ", ")),
			is:   errors.ErrUnsupported, err: unix.EOPNOTSUPP,
		})
	}
	if err := u.ctx.Err(); err != nil {
		return u.fail(err)
	}
	return nil
}
