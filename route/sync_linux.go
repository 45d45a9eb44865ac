package route

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Sync makes the routes of an owner, a protocol number that nobody else uses, be
// those given and no others, in all tables of the namespace and both families. It
// touches only what differs: a route that is there as wanted carries packets all
// the while. It may be repeated, and after a crash has to be.
//
// The desired routes have the owner's Protocol, or 0. A route with an Expires
// that is there is left to expire. Where a route of another protocol has the
// destination, table, metric and type of service of one that is wanted, it is
// left alone, and the error is os.ErrExist.
//
// Missing routes are added and those that differ replaced in the order given, so
// that a gateway's route comes before those that need it; then those that are not
// wanted are deleted. A route that is refused does not keep those sent along with
// it, up to 99, from being made; what comes after is not sent, and a next Sync
// finds it. The Changes are zero with an error.
func Sync(ctx context.Context, ns *netns.NS, owner Protocol, desired ...Route) (Changes, error) {
	const op = "route.Sync"
	s := syncer{owner: owner, want: slices.Clone(desired)}
	if err := checkOwner(owner); err != nil {
		return Changes{}, fail.New(op, ns, "routes", err)
	}
	for i := range s.want {
		if err := own(&s.want[i].Protocol, owner); err != nil {
			return Changes{}, fail.New(op, ns, "route "+desired[i].String(), err)
		}
	}
	if i, err := checkAll(s.want, verbReplace); err != nil {
		return Changes{}, fail.New(op, ns, "route "+desired[i].String(), err)
	}
	if err := s.compare(ctx, ns); err != nil {
		return Changes{}, fail.New(op, ns, "routes", err)
	}
	if err := s.checkStrangers(ctx, op, ns); err != nil {
		return Changes{}, err
	}
	conn, err := open(ns)
	if err == nil {
		err = sendAll(ctx, conn, len(s.todo), false, func(b []byte, i int) nl.Request {
			return s.todo[i].route.request(b, s.todo[i].verb)
		})
	}
	if err == nil {
		err = sendAll(ctx, conn, len(s.stale), true, func(b []byte, i int) nl.Request { return s.stale[i].request(b, verbDelete) })
		if err != nil {
			_, err = explain(op, ns, "route", s.stale, err)
			return Changes{}, err
		}
		return s.changes, nil
	}
	_, err = explain(op, ns, "route", s.todo, err)
	return Changes{}, err
}

// syncer holds the difference between what is wanted and what there is.
type syncer struct {
	owner Protocol
	want  []Route

	has   []bool          // there is such a route
	other map[int][]Route // there are these with the key of want[i], but they differ

	todo    []step
	stale   []Route
	changes Changes
}

// A step is one route to send.
type step struct {
	verb  verb
	route *Route
}

func (s step) String() string { return s.route.String() }

// compare reads the owner's routes and keeps only those that differ.
func (s *syncer) compare(ctx context.Context, ns *netns.NS) error {
	index := make(map[key]int, len(s.want))
	for i := range s.want {
		index[s.want[i].key()] = i
	}
	s.has = make([]bool, len(s.want))
	s.other = map[int][]Route{}
	err := walk(ctx, ns, Filter{Protocol: s.owner}, func(af Family) {
		for i := range s.want {
			if s.want[i].is4() == (af == IPv4) {
				s.has[i] = false
				delete(s.other, i)
			}
		}
		s.stale = slices.DeleteFunc(s.stale, func(r Route) bool { return r.is4() == (af == IPv4) })
	}, func(r *Route) {
		i, wanted := index[r.key()]
		switch {
		case !wanted:
			s.stale = append(s.stale, *r)
		case !s.has[i] && s.want[i].as(r).Equal(*r):
			s.has[i] = true
		default:
			s.other[i] = append(s.other[i], *r)
		}
	})
	if err != nil {
		return err
	}
	s.changes.Deleted = len(s.stale)
	for i := range s.want {
		s.plan(i)
	}
	return nil
}

// plan decides what to do about one wanted route.
func (s *syncer) plan(i int) {
	want, other := &s.want[i], s.other[i]
	switch {
	case s.has[i]:
		s.stale = append(s.stale, other...)
		s.changes.Deleted += len(other)
	case len(other) == 0:
		s.todo = append(s.todo, step{verbAdd, want})
		s.changes.Added++
	case !want.is4() && !want.joinable() && other[0].joinable():
		// The kernel would add it beside; see Replace.
		for k := range other {
			s.todo = append(s.todo, step{verbDelete, &other[k]})
		}
		s.todo = append(s.todo, step{verbAdd, want})
		s.changes.Replaced++
	default:
		s.todo = append(s.todo, step{verbReplace, want})
		s.stale = append(s.stale, other[1:]...)
		s.changes.Replaced++
		s.changes.Deleted += len(other) - 1
	}
}

// checkStrangers refuses to replace where a route of another protocol has the
// same place: the kernel might take that one.
func (s *syncer) checkStrangers(ctx context.Context, op string, ns *netns.NS) error {
	places := map[key]*Route{}
	for _, t := range s.todo {
		if t.verb == verbReplace {
			places[t.route.key()] = t.route
		}
	}
	if len(places) == 0 {
		return nil
	}
	errs := map[key]error{}
	err := walk(ctx, ns, Filter{}, func(Family) {}, func(r *Route) {
		k := r.key()
		if want := places[k]; want != nil && r.Protocol != s.owner && errs[k] == nil {
			errs[k] = fail.New(op, ns, "route "+want.String(), fmt.Errorf("a route of the protocol %s has the same place: %w", r.Protocol, os.ErrExist))
		}
	})
	if err != nil {
		return fail.New(op, ns, "routes", err)
	}
	var all []error
	for _, t := range s.todo {
		if err := errs[t.route.key()]; err != nil && t.verb == verbReplace {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// walk hands each route that the filter chooses to each, without holding them.
// reset says that those of a family are void and come again.
func walk(ctx context.Context, ns *netns.NS, f Filter, reset func(Family), each func(*Route)) error {
	conn, err := open(ns)
	if err != nil {
		return err
	}
	var r Route
	return eachFamily(f, func(af uint8) error {
		g := newGuard(af, f)
		again := func() {
			g.reset()
			if af == unix.AF_INET {
				reset(IPv4)
			} else {
				reset(IPv6)
			}
		}
		return conn.DumpGuarded(ctx, dump(af, f), &g.Guard, again, func(m nl.Message) error {
			ok, err := decode(m.Body, &r, &f)
			if ok {
				each(&r)
			}
			return err
		})
	})
}
