package route

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// answerTimeout bounds what is done although a context has ended.
const answerTimeout = 30 * time.Second

// Add adds routes to the namespace, all of them or none: if one is refused, those already
// added are deleted again. An existing route with the same destination, table, metric and
// type of service is os.ErrExist. A missing link is os.ErrNotExist.
func Add(ctx context.Context, ns *netns.NS, routes ...Route) error {
	return addAll(ctx, "route.Add", ns, routes, verbAdd)
}

// Append adds routes behind existing ones with the same destination, table, metric and type
// of service, all of them or none. The kernel uses an appended IPv4 route when the one
// before it is gone. An IPv6 route with a gateway becomes one more hop of the existing
// route. A route that exists in every respect is os.ErrExist.
func Append(ctx context.Context, ns *netns.NS, routes ...Route) error {
	return addAll(ctx, "route.Append", ns, routes, verbAppend)
}

// Replace adds routes, or changes existing ones with the same destination, table, metric
// and type of service. Routes are sent a hundred at a time. If one is refused, those sent
// with it are still made; the error names each that was not.
//
// An IPv6 route without a gateway does not replace one with a gateway: the kernel adds it
// beside (fib6_add_rt2node). [Sync] replaces it.
func Replace(ctx context.Context, ns *netns.NS, routes ...Route) error {
	return changeAll(ctx, "route.Replace", ns, routes, verbReplace)
}

// Change is [Replace] for existing routes. A missing one is os.ErrNotExist.
func Change(ctx context.Context, ns *netns.NS, routes ...Route) error {
	return changeAll(ctx, "route.Change", ns, routes, verbChange)
}

// Delete deletes routes. A zero field other than Dst, Table and TOS matches any value, and
// Via and Dev may be left out. If several routes match, the kernel deletes the one with the
// lowest metric.
//
// A missing route is os.ErrNotExist. Routes are sent a hundred at a time. If one cannot be
// deleted, those sent with it still are; the error names each that was not.
func Delete(ctx context.Context, ns *netns.NS, routes ...Route) error {
	return changeAll(ctx, "route.Delete", ns, routes, verbDelete)
}

// Flush deletes the routes that the filter selects and returns how many there were. A route
// that disappears meanwhile is no error, and one that appears meanwhile may stay. A filter
// that selects every route is os.ErrInvalid: it would delete the namespace's own addresses
// from [TableLocal].
func Flush(ctx context.Context, ns *netns.NS, f Filter) (int, error) {
	const op = "route.Flush"
	if f == (Filter{}) || f == (Filter{Family: f.Family}) {
		return 0, fail.New(op, ns, "routes", refuse.Input("the filter chooses every route of every table"))
	}
	routes, err := list(ctx, ns, f)
	if err != nil {
		return 0, fail.New(op, ns, "routes", err)
	}
	conn, err := open(ns)
	if err == nil {
		err = sendAll(ctx, conn, len(routes), true, func(b []byte, i int) nl.Request { return routes[i].request(b, verbDelete) }, nil)
	}
	if err != nil {
		_, err = explain(op, ns, "route", routes, err)
		return 0, err
	}
	return len(routes), nil
}

// addAll adds all routes or none.
func addAll(ctx context.Context, op string, ns *netns.NS, routes []Route, v verb) error {
	many, err := execRoutes(ctx, op, ns, routes, v)
	if many == nil {
		return err
	}
	took := undone(many, len(routes))
	return undo(ctx, op, ns, err, func(ctx context.Context) error { return takeBack(ctx, ns, routes, took, v) })
}

func changeAll(ctx context.Context, op string, ns *netns.NS, routes []Route, v verb) error {
	_, err := execRoutes(ctx, op, ns, routes, v)
	return err
}

// execRoutes checks the routes and sends a request for each.
func execRoutes(ctx context.Context, op string, ns *netns.NS, routes []Route, v verb) (*nl.ExecError, error) {
	if i, err := checkAll(routes, v); err != nil {
		return nil, fail.New(op, ns, "route "+routes[i].String(), err)
	}
	return exec(ctx, op, ns, "route", routes, func(b []byte, i int) nl.Request { return routes[i].request(b, v) })
}

// exec sends a request for each of the items, which are of one kind: "route",
// "rule", "next hop". The error names each item that was refused; many is not
// nil when some of them reached the kernel.
func exec[T fmt.Stringer](ctx context.Context, op string, ns *netns.NS, kind string, items []T, encode func(b []byte, i int) nl.Request) (many *nl.ExecError, err error) {
	conn, err := open(ns)
	if err == nil {
		err = sendAll(ctx, conn, len(items), false, encode, nil)
	}
	return explain(op, ns, kind, items, err)
}

// block is how many requests are encoded at a time.
const block = 1000

// sendAll sends n requests. Errors that only say that something does not exist
// are ignored if gone is set. reply, which may be nil, gets what request i is
// answered with.
func sendAll(ctx context.Context, conn *nl.Conn, n int, gone bool, encode func(b []byte, i int) nl.Request, reply func(i int, m nl.Message) error) error {
	if n == 0 {
		return ctx.Err()
	}
	reqs := make([]nl.Request, 0, min(n, block))
	var arena []byte
	for base := 0; base < n; base += len(reqs) {
		reqs, arena = reqs[:0], arena[:0]
		for i := base; i < min(base+block, n); i++ {
			at := len(arena)
			req := encode(arena[at:], i)
			if len(req.Body) <= cap(arena)-at {
				arena = arena[:at+len(req.Body)]
			} else {
				arena = append(arena, req.Body...) // grows; the bodies before it keep the old one
			}
			reqs = append(reqs, req)
		}
		var answered func(int, nl.Message) error
		if reply != nil {
			answered = func(i int, m nl.Message) error { return reply(base+i, m) }
		}
		var ignore func(int, *nl.Error) bool
		if gone {
			ignore = nl.IgnoreNotExist
		}
		err := conn.ExecAll(ctx, reqs, ignore, answered)
		var many *nl.ExecError
		switch {
		case err == nil:
			continue
		case !errors.As(err, &many):
			if base > 0 { // the caller has to know what is done
				return &nl.ExecError{Sent: base, Cause: err}
			}
			return err
		}
		many.Sent += base
		for i := range many.Failed {
			many.Failed[i].Index += base
		}
		return many
	}
	return nil
}

// explain turns what sendAll returns into errors that name the items.
func explain[T fmt.Stringer](op string, ns *netns.NS, kind string, items []T, err error) (many *nl.ExecError, _ error) {
	if err == nil {
		return nil, nil
	}
	if !errors.As(err, &many) {
		subject := fmt.Sprintf("%d %ss", len(items), kind)
		if len(items) == 1 {
			subject = kind + " " + items[0].String()
		}
		return nil, fail.New(op, ns, subject, err)
	}
	var errs []error
	for _, f := range many.Failed {
		errs = append(errs, fail.New(op, ns, kind+" "+items[f.Index].String(), inWords(kind, f.Err)))
	}
	if rest := len(items) - many.Sent; rest > 0 {
		cause := many.Cause
		if cause == nil {
			cause = errors.New("not sent, as one before them failed")
		}
		errs = append(errs, fail.New(op, ns, fmt.Sprintf("the last %d of %d %ss", rest, len(items), kind), cause))
	}
	if len(errs) == 1 {
		return many, errs[0]
	}
	return many, errors.Join(errs...)
}

// inWords says what an errno means where the kernel says no more: ESRCH is "no
// such process" by itself.
func inWords(kind string, err *nl.Error) error {
	switch {
	case err.Msg != "":
	case err.Errno == unix.ESRCH, err.Errno == unix.ENOENT:
		return fmt.Errorf("there is no such %s: %w", kind, err)
	case err.Errno == unix.EHOSTUNREACH: // ip6_route_check_nh
		return fmt.Errorf("the gateway is on no link: add the route that leads to it first, or give its link and OnLink: %w", err)
	}
	return err
}

// undone returns the indexes of the items that the kernel took although the call
// failed, from the last to the first.
func undone(many *nl.ExecError, n int) []int {
	failed := make(map[int]bool, len(many.Failed))
	for _, f := range many.Failed {
		failed[f.Index] = true
	}
	var took []int
	for i := min(many.Sent, n) - 1; i >= 0; i-- {
		if !failed[i] {
			took = append(took, i)
		}
	}
	return took
}

// undo takes back the items of a call that failed with err, and returns err with
// what may go wrong added to it. The context may be done; the undoing is not.
func undo(ctx context.Context, op string, ns *netns.NS, err error, back func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	if uerr := back(ctx); uerr != nil {
		err = errors.Join(err, fail.New(op, ns, "", fmt.Errorf("taking back what was added: %w", uerr)))
	}
	return err
}
