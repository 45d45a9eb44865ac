package route

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// answerTimeout bounds the undoing of a failed Add.
const answerTimeout = 30 * time.Second

// Add adds routes to the namespace, all of them or none: when one is refused,
// those already added are deleted again. A route with the same destination,
// table and metric that exists already is os.ErrExist; a link that does not is
// os.ErrNotExist.
func Add(ctx context.Context, ns *netns.NS, routes ...Route) error {
	const op = "route.Add"
	many, err := exec(ctx, op, ns, routes, func(r *Route) nl.Request {
		return add(r, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	})
	if many == nil {
		return err
	}
	if uerr := undo(ctx, ns, routes, many); uerr != nil {
		err = errors.Join(err, fail.New(op, ns, "routes", fmt.Errorf("deleting those added again: %w", uerr)))
	}
	return err
}

// Replace adds routes, or changes those that exist with the same destination,
// table and metric to be as given. A route that is refused does not keep those
// sent along with it, up to 99, from being made; the error names each that was
// not.
func Replace(ctx context.Context, ns *netns.NS, routes ...Route) error {
	_, err := exec(ctx, "route.Replace", ns, routes, func(r *Route) nl.Request {
		return add(r, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	})
	return err
}

// Delete deletes routes. A zero field other than Dst and Table matches any
// value, and neither Via nor Dev is needed: of several routes that match, the
// kernel deletes the first, that with the lowest metric. A route that is not
// there is os.ErrNotExist; it does not keep those sent along with it, up to 99,
// from being deleted, and the error names each that was not.
func Delete(ctx context.Context, ns *netns.NS, routes ...Route) error {
	_, err := exec(ctx, opDelete, ns, routes, remove)
	return err
}

const opDelete = "route.Delete"

// exec checks the routes and sends a request for each. The error names each
// route that was refused; many is not nil when some of them reached the kernel.
func exec(ctx context.Context, op string, ns *netns.NS, routes []Route, encode func(*Route) nl.Request) (many *nl.ExecError, err error) {
	if i, err := checkAll(routes, op == opDelete); err != nil {
		return nil, fail.New(op, ns, "route "+routes[i].String(), err)
	}
	subject := fmt.Sprintf("%d routes", len(routes))
	if len(routes) == 1 {
		subject = "route " + routes[0].String()
	}
	conn, err := open(ns)
	if err != nil {
		return nil, fail.New(op, ns, subject, err)
	}
	reqs := make([]nl.Request, len(routes))
	for i := range routes {
		reqs[i] = encode(&routes[i])
	}
	err = conn.Exec(ctx, reqs, nil)
	if !errors.As(err, &many) {
		return nil, fail.New(op, ns, subject, err)
	}
	var errs []error
	for _, f := range many.Failed {
		errs = append(errs, fail.New(op, ns, "route "+routes[f.Index].String(), f.Err))
	}
	if rest := len(routes) - many.Sent; rest > 0 {
		cause := many.Cause
		if cause == nil {
			cause = errors.New("not sent, as one before them failed")
		}
		errs = append(errs, fail.New(op, ns, fmt.Sprintf("the last %d of %d routes", rest, len(routes)), cause))
	}
	if len(errs) == 1 {
		return many, errs[0]
	}
	return many, errors.Join(errs...)
}

// undo deletes the routes of a failed Add that the kernel took.
func undo(ctx context.Context, ns *netns.NS, routes []Route, many *nl.ExecError) error {
	failed := make(map[int]bool, len(many.Failed))
	for _, f := range many.Failed {
		failed[f.Index] = true
	}
	var reqs []nl.Request
	for i := range routes[:many.Sent] {
		if !failed[i] {
			reqs = append(reqs, remove(&routes[i]))
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	conn, err := open(ns)
	if err != nil {
		return err
	}
	return netns.IgnoreNotExist(conn.Exec(ctx, reqs, nil))
}
