package route

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// takeBack deletes the routes with the indexes took, which a call has made. The
// defaults are filled in: a request to delete that leaves the metric of an IPv6
// route open would take one of a lower metric, which was there before.
func takeBack(ctx context.Context, ns *netns.NS, routes []Route, took []int, v verb) error {
	conn, err := open(ns)
	if err != nil {
		return err
	}
	if v == verbAdd { // the only one of its key
		return sendAll(ctx, conn, len(took), true, func(b []byte, i int) nl.Request {
			r := routes[took[i]].normal()
			return r.request(b, verbDelete)
		}, nil)
	}
	var errs []error
	for _, i := range took {
		r := routes[i].normal()
		if r.is4() {
			errs = append(errs, takeBack4(ctx, ns, conn, r))
			continue
		}
		for _, h := range r.hops() { // each is a hop of a larger route by now
			one := r
			one.Hops = h
			_, err := takeBackBehind(ctx, conn, one.normal())
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// hops returns the hops of a multipath route one by one, or once none.
func (r *Route) hops() [][]Hop {
	if len(r.Hops) == 0 {
		return [][]Hop{nil}
	}
	return slices.Collect(slices.Chunk(r.Hops, 1))
}

// maxAppended bounds how many routes of a key are looked at.
const maxAppended = 1000

// takeBackBehind deletes a route that was appended behind others of its key. The
// kernel may find another one first, which has more than this one says: that one
// is added again behind it, before the next try. So no route is missing; those
// that were moved are returned.
func takeBackBehind(ctx context.Context, conn *nl.Conn, r Route) (moved []Route, err error) {
	for range maxAppended {
		gone, err := deleteEchoed(ctx, conn, &r)
		if errors.Is(err, fs.ErrNotExist) {
			return moved, nil
		}
		if err != nil || !gone.Dst.IsValid() || r.as(&gone).Equal(gone) {
			return moved, err
		}
		if err := conn.Call(ctx, gone.request(nil, verbAppend), nil); err != nil {
			return moved, err
		}
		moved = append(moved, gone)
	}
	return moved, fmt.Errorf("the route %s is not among the first %d of its destination", r, maxAppended)
}

// deleteEchoed deletes a route and returns the one that the kernel has found.
func deleteEchoed(ctx context.Context, conn *nl.Conn, r *Route) (gone Route, err error) {
	req := r.request(nil, verbDelete)
	req.Flags |= unix.NLM_F_ECHO
	err = conn.Call(ctx, req, func(m nl.Message) error {
		_, err := decode(m.Body, &gone, &Filter{})
		return err
	})
	return gone, err
}

// takeBack4 is takeBackBehind for IPv4, which uses the first route of a key alone:
// those that were moved and stood before one that was not are moved to the front
// again. It carries the packets meanwhile.
func takeBack4(ctx context.Context, ns *netns.NS, conn *nl.Conn, r Route) error {
	all, err := list(ctx, ns, Filter{Family: IPv4, Table: r.Table})
	if err != nil {
		return err
	}
	k := r.key()
	all = slices.DeleteFunc(all, func(o Route) bool { return o.key() != k })
	moved, err := takeBackBehind(ctx, conn, r)
	if err != nil {
		return err
	}
	stood := slices.IndexFunc(all, func(o Route) bool { return !slices.ContainsFunc(moved, o.Equal) && !r.as(&o).Equal(o) })
	for _, m := range slices.Backward(moved) {
		if slices.IndexFunc(all, m.Equal) > stood {
			continue // it is behind that one again
		}
		gone, err := deleteEchoed(ctx, conn, &m)
		if err != nil {
			return err
		}
		req := gone.request(nil, verbAdd)
		req.Flags = unix.NLM_F_CREATE // without EXCL: before the others
		if err := conn.Call(ctx, req, nil); err != nil {
			return err
		}
	}
	return nil
}
