package link

import (
	"context"
	"errors"
	"os"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/netns"
)

// Ensure makes the link match spec, and creates it if there is none. It creates as
// [Create] does and changes as [Link.Update] does, both ends of a pair. It may be
// repeated. What spec does not name keeps its value.
//
// Ensure deletes nothing. A link of that name is os.ErrExist if it is of another
// kind, has another index or parent, or if its other end is not where spec has it.
// Other errors are those of Create and Update.
func Ensure(ctx context.Context, ns *netns.NS, spec Spec) (Link, error) {
	const op = "link.Ensure"
	o, err := spec.check(ns)
	if err != nil {
		return Link{}, fail.New(op, ns, subject(spec.Name), err)
	}
	if err := spec.resolve(ctx, ns, &o); err != nil {
		return Link{}, fail.New(op, ns, subject(spec.Name), err)
	}
	o.pairMTU(&spec.MTU)
	at := ns
	if spec.NS != nil {
		at = spec.NS
	}
	for try := 0; ; try++ {
		l, err := ensure(ctx, op, at, &spec, o)
		if !errors.Is(err, errAbsent) {
			return l, err
		}
		if l, err = Create(ctx, ns, spec); err == nil || !errors.Is(err, os.ErrExist) || try > 2 {
			return l, err
		}
		// Another program has made it in between.
	}
}

var errAbsent = errors.New("there is no such link")

// ensure changes a link. errAbsent means that there is none.
func ensure(ctx context.Context, op string, at *netns.NS, spec *Spec, o options) (Link, error) {
	a := update{ctx: ctx, op: op, ns: at, want: spec, kind: o}
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
	if k, ok := spec.Kind.(Other); ok {
		k.addUnreported(&a.state.at[placeData])
	}
	p := o.peer()
	if p == nil {
		if err := a.run(); err != nil {
			return Link{}, err
		}
		return a.link, nil
	}
	b := update{ctx: ctx, op: op, ns: p.NS, want: p}
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

// readPeer reads the other end of a pair, and refuses one that is not where spec
// has it.
func (u *update) readPeer(outer *update) error {
	err := u.read(u.want.Name, 0)
	is := err == nil && u.before.Kind == outer.before.Kind &&
		u.before.PeerIndex == outer.before.Index && outer.before.PeerIndex == u.before.Index
	if errors.Is(err, os.ErrNotExist) || err == nil && !is {
		return exist(os.ErrExist, "the other end of link %s is not %s in netns %s", outer.before.Name, u.want.Name, u.ns)
	}
	return err
}
