package route

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// answerTimeout bounds the undoing of a failed Add.
const answerTimeout = 30 * time.Second

// Add adds routes to the namespace, all of them or none: when one is refused,
// those already added are deleted again. A route with the same destination,
// table, metric and type of service that exists already is os.ErrExist; a link
// that does not is os.ErrNotExist.
func Add(ctx context.Context, ns *netns.NS, routes ...Route) error {
	return addAll(ctx, "route.Add", ns, routes, verbAdd)
}

// Append adds routes behind those that exist with the same destination, table,
// metric and type of service, all of them or none. An IPv4 route behind another
// is used when that one goes; an IPv6 route with a gateway becomes one more hop
// of the one that exists. A route that exists in every respect is os.ErrExist.
func Append(ctx context.Context, ns *netns.NS, routes ...Route) error {
	return addAll(ctx, "route.Append", ns, routes, verbAppend)
}

// Replace adds routes, or changes those that exist with the same destination,
// table, metric and type of service to be as given. A route that is refused does
// not keep those sent along with it, up to 99, from being made; the error names
// each that was not.
//
// An IPv6 route without a gateway does not replace one with a gateway: the
// kernel adds it beside (fib6_add_rt2node). [Sync] does.
func Replace(ctx context.Context, ns *netns.NS, routes ...Route) error {
	return changeAll(ctx, "route.Replace", ns, routes, verbReplace)
}

// Change is Replace for routes that exist; one that does not is os.ErrNotExist.
func Change(ctx context.Context, ns *netns.NS, routes ...Route) error {
	return changeAll(ctx, "route.Change", ns, routes, verbChange)
}

// Delete deletes routes. A zero field other than Dst, Table and TOS matches any
// value, and nothing has to say where the route leads: of several routes that
// match, the kernel deletes the first, that with the lowest metric. A route that
// is not there is os.ErrNotExist; it does not keep those sent along with it, up
// to 99, from being deleted, and the error names each that was not.
func Delete(ctx context.Context, ns *netns.NS, routes ...Route) error {
	return changeAll(ctx, "route.Delete", ns, routes, verbDelete)
}

// Flush deletes the routes that the filter chooses and returns how many there
// were. A route that goes by itself meanwhile is no error; one that comes
// meanwhile may stay. A filter that chooses every route is refused, as that
// takes the namespace's own addresses out of [TableLocal].
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
		err = sendAll(ctx, conn, len(routes), true, func(b []byte, i int) nl.Request { return routes[i].request(b, verbDelete) })
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
	return undo(ctx, op, ns, err, undone(many, len(routes)), func(b []byte, i int) nl.Request { return routes[i].request(b, verbDelete) })
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
		err = sendAll(ctx, conn, len(items), false, encode)
	}
	return explain(op, ns, kind, items, err)
}

// block is how many requests are encoded at a time.
const block = 1000

// sendAll sends n requests. Errors that only say that something does not exist
// are passed over if gone is set.
func sendAll(ctx context.Context, conn *nl.Conn, n int, gone bool, encode func(b []byte, i int) nl.Request) error {
	if n == 0 {
		return ctx.Err()
	}
	reqs := make([]nl.Request, 0, min(n, block))
	var arena []byte
	for base := 0; base < n; {
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
		err := conn.Exec(ctx, reqs, nil)
		var many *nl.ExecError
		switch {
		case err == nil:
			base += len(reqs)
			continue
		case !errors.As(err, &many):
			if base > 0 { // what came before is done and has to be told
				return &nl.ExecError{Sent: base, Cause: err}
			}
			return err
		}
		many.Sent += base
		for i := range many.Failed {
			many.Failed[i].Index += base
		}
		if gone && many.Cause == nil {
			many.Failed = slices.DeleteFunc(many.Failed, func(f nl.Item) bool { return errors.Is(f.Err, fs.ErrNotExist) })
			if len(many.Failed) == 0 {
				base = many.Sent
				continue
			}
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
		errs = append(errs, fail.New(op, ns, kind+" "+items[f.Index].String(), f.Err))
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
// what may go wrong added to it.
func undo(ctx context.Context, op string, ns *netns.NS, err error, took []int, remove func(b []byte, i int) nl.Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	conn, uerr := open(ns)
	if uerr == nil {
		uerr = sendAll(ctx, conn, len(took), true, func(b []byte, i int) nl.Request { return remove(b, took[i]) })
	}
	if uerr != nil {
		err = errors.Join(err, fail.New(op, ns, "", fmt.Errorf("taking back what was added: %w", uerr)))
	}
	return err
}
