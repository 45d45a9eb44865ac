package link

import (
	"context"
	"errors"
	"os"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Change makes the link match what s names: a zero field leaves alone what it
// stands for, and a nil Kind all options of the kind. Addrs and AltNames are
// added to those that there are; a Name renames the link, which before Linux 6.2
// must be down for that. Only what differs is sent.
//
// Either all of it holds afterwards or what was before. What the kernel does not
// change on a link that exists is errors.ErrUnsupported; Kind cannot be another
// than the link's (os.ErrExist), nor can Index, Parent and numbers of queues. The
// other end of a pair is changed by its own Link: a Peer is refused.
func (l Link) Change(ctx context.Context, s Spec) (Link, error) {
	const op = "link.Change"
	a := application{ctx: ctx, op: op, ns: l.ns, want: &s}
	err := l.bound()
	if err == nil {
		err = s.checkChange(l.Name, l.ns)
	}
	if err == nil {
		a.conn, err = route(l.ns)
	}
	if err == nil {
		err = a.read("", l.Index)
	}
	if err != nil {
		return Link{}, fail.New(op, l.ns, l.subject(), err)
	}
	if err := a.run(); err != nil {
		return Link{}, err
	}
	return a.link, nil
}

// checkChange is check for a spec whose zero fields mean nothing.
func (s *Spec) checkChange(name string, ns *netns.NS) error {
	if s.NS != nil && !s.NS.Equal(ns) {
		return refuse.Input("Spec.NS names another namespace (%s); links are moved by Move", s.NS)
	}
	c := *s
	if c.Name == "" {
		c.Name = name
	}
	if c.Master == 0 {
		if c.Port != (PortOptions{}) || c.BondPort != (BondPort{}) {
			c.Master = 1 // it may be a port already
		}
	}
	if err := c.checkCommon(); err != nil {
		return err
	}
	if c.Kind == nil {
		return nil
	}
	if p := pairOf(c.Kind); p != nil && p.Name != "" {
		return refuse.Input("the other end of a %s is changed by its own Link: Peer must be zero", c.Kind.name())
	}
	return checkOptions(c.Kind)
}

// Ensure makes sure that there is a link as spec says: it creates one that is not
// there, as [Create] does, and changes one that is, as [Link.Change] does, both
// ends of a pair. It is safe to repeat. What spec does not name is left alone.
//
// A link of the name that is of another kind, has another index or parent, or
// whose other end is not where spec has it, is os.ErrExist: Ensure deletes
// nothing.
func Ensure(ctx context.Context, ns *netns.NS, spec Spec) (Link, error) {
	const op = "link.Ensure"
	if err := spec.check(ns); err != nil {
		return Link{}, fail.New(op, ns, subject(spec.Name), err)
	}
	at := ns
	if spec.NS != nil {
		at = spec.NS
	}
	for try := 0; ; try++ {
		l, err := ensure(ctx, op, at, &spec)
		if !errors.Is(err, errAbsent) {
			return l, err
		}
		if l, err = Create(ctx, ns, spec); err == nil || !errors.Is(err, os.ErrExist) || try > 2 {
			return l, err
		}
		// Somebody else made it in between.
	}
}

var errAbsent = errors.New("there is no such link")

// ensure changes a link that is there; errAbsent says that it is not.
func ensure(ctx context.Context, op string, at *netns.NS, spec *Spec) (Link, error) {
	a := application{ctx: ctx, op: op, ns: at, want: spec}
	conn, err := route(at)
	if err == nil {
		a.conn = conn
		err = a.read(spec.Name, 0)
		if errors.Is(err, os.ErrNotExist) {
			return Link{}, errAbsent
		}
		if err == nil && a.before.Name != spec.Name {
			err = exist(os.ErrExist, "%s is an alternative name of link %s", spec.Name, a.before.Name)
		}
	}
	if err != nil {
		return Link{}, a.fail(err)
	}
	p := pairOf(spec.Kind)
	if p == nil {
		if err := a.run(); err != nil {
			return Link{}, err
		}
		return a.link, nil
	}
	b := application{ctx: ctx, op: op, ns: p.NS, want: p}
	if b.ns == nil {
		b.ns = at
	}
	if b.conn, err = route(b.ns); err == nil {
		err = b.readPeer(&a)
	}
	if err != nil {
		return Link{}, b.fail(err)
	}
	if err := a.run(); err != nil {
		return Link{}, err
	}
	if err := b.run(); err != nil {
		return Link{}, errors.Join(err, a.undo())
	}
	return a.link, nil
}

// readPeer reads the other end of a pair, and refuses one that is not where it
// should be.
func (a *application) readPeer(outer *application) error {
	err := a.read(a.want.Name, 0)
	is := err == nil && a.before.Kind == outer.before.Kind &&
		a.before.PeerIndex == outer.before.Index && outer.before.PeerIndex == a.before.Index
	if errors.Is(err, os.ErrNotExist) || err == nil && !is {
		return exist(os.ErrExist, "the other end of link %s is not %s in netns %s", outer.before.Name, a.want.Name, a.ns)
	}
	return err
}
