package route

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Sync makes the routes of an owner exactly those given, in all tables of the namespace and
// both families. An owner is a protocol number that no other program uses. Sync touches
// only what differs: an existing route that is wanted carries packets all the time. Sync
// may be repeated. After a crash or an error the next Sync completes the work.
//
// The desired routes have the owner's Protocol, or 0. Sync does not renew an existing route
// with an Expires. A route of another protocol with the same destination, table, metric and
// type of service is left alone, and the error is os.ErrExist.
//
// Sync adds missing routes and replaces differing ones in the order given, so a gateway's
// route can precede those that need it. It then deletes those that are not wanted. Routes
// are sent a hundred at a time. If one is refused, those sent with it are still made, and
// later ones are not sent. With an error the Changes are zero.
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
		}, nil)
	}
	if err == nil {
		err = sendAll(ctx, conn, len(s.stale), true, func(b []byte, i int) nl.Request { return s.stale[i].request(b, verbDelete) }, nil)
		if err != nil {
			_, err = explain(op, ns, "route", s.stale, err)
			return Changes{}, err
		}
		return s.changes, nil
	}
	return Changes{}, s.refused(ctx, op, ns, err)
}

// refused explains what the kernel has refused. Where there was a route in the
// way, which is of another protocol, it is named.
func (s *syncer) refused(ctx context.Context, op string, ns *netns.NS, err error) error {
	many, text := explain(op, ns, "route", s.todo, err)
	if many == nil || !errors.Is(text, fs.ErrExist) {
		return text
	}
	places := map[key]*Route{}
	for _, f := range many.Failed {
		if f.Err.Errno == unix.EEXIST {
			places[s.todo[f.Index].route.key()] = s.todo[f.Index].route
		}
	}
	ways, err := s.inTheWay(context.WithoutCancel(ctx), op, ns, places)
	if err != nil || len(ways) == 0 { // gone by now
		return text
	}
	var all []error
	for i, f := range many.Failed {
		way := ways[s.todo[f.Index].route.key()]
		if way == nil || f.Err.Errno != unix.EEXIST {
			one := *many
			one.Failed, one.Sent = many.Failed[i:i+1], len(s.todo)
			_, way = explain(op, ns, "route", s.todo, &one)
		}
		all = append(all, way)
	}
	if rest := *many; rest.Sent < len(s.todo) {
		rest.Failed = nil
		_, err := explain(op, ns, "route", s.todo, &rest)
		all = append(all, err)
	}
	return errors.Join(all...)
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
	errs, err := s.inTheWay(ctx, op, ns, places)
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

// inTheWay finds the routes of other protocols at the places of those wanted: an
// error for each, which names it.
func (s *syncer) inTheWay(ctx context.Context, op string, ns *netns.NS, places map[key]*Route) (map[key]error, error) {
	errs := map[key]error{}
	err := walk(ctx, ns, Filter{}, func(Family) {}, func(r *Route) {
		k := r.key()
		if want := places[k]; want != nil && r.Protocol != s.owner && errs[k] == nil {
			errs[k] = fail.New(op, ns, "route "+want.String(), refuse.As(os.ErrExist, "the route %s has the same place", r))
		}
	})
	return errs, err
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
		again := func() {
			if af == unix.AF_INET {
				reset(IPv4)
			} else {
				reset(IPv6)
			}
		}
		return conn.DumpGuarded(ctx, dump(af, f), newGuard(af, f), again, func(m nl.Message) error {
			ok, err := decode(m.Body, &r, &f)
			if ok {
				each(&r)
			}
			return err
		})
	})
}
