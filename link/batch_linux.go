package link

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
)

// batch is one call that changes many items of a link: addresses, neighbours,
// entries of a forwarding database.
type batch struct {
	op   string
	ns   *netns.NS
	conn *nl.Conn
	all  string // names the items together: "link web0"
	reqs []nl.Request

	goneIsFine bool // an item that does not exist is no failure of each

	subject func(i int) string                    // names item i
	cause   func(i int, e *nl.Error) error        // puts the errno into words
	undo    func(i int) (req nl.Request, ok bool) // takes item i back; may be nil
}

// allOrNone sends the requests. When one is refused, or check finds that the
// kernel did not do what it was asked for, those that were carried out are taken
// back, the last first. check may be nil.
func (b *batch) allOrNone(ctx context.Context, check func(context.Context) error) error {
	return change(ctx, func(ctx context.Context) error {
		err := b.conn.Exec(ctx, b.reqs, nil)
		failed, sent := map[int]bool{}, len(b.reqs)
		var many *nl.ExecError
		switch {
		case errors.As(err, &many):
			sent = many.Sent
			for _, f := range many.Failed {
				failed[f.Index] = true
			}
			err = b.explain(0, many)
		case err != nil:
			return fail.New(b.op, b.ns, b.all, err) // what came of it is not known
		case check == nil:
			return nil
		default:
			if err = check(ctx); err == nil {
				return nil
			}
		}
		if uerr := b.takeBack(ctx, sent, failed); uerr != nil {
			err = errors.Join(err, fail.New(b.op, b.ns, b.all, fmt.Errorf("undoing the rest: %w", uerr)))
		}
		return err
	})
}

func (b *batch) takeBack(ctx context.Context, sent int, failed map[int]bool) error {
	if b.undo == nil {
		return nil
	}
	var reqs []nl.Request
	for i := sent - 1; i >= 0; i-- {
		if failed[i] {
			continue
		}
		if r, ok := b.undo(i); ok {
			reqs = append(reqs, r)
		}
	}
	return goOn(ctx, b.conn, reqs, func(_ int, many *nl.ExecError) error {
		var left []error
		for _, f := range many.Failed {
			if !errors.Is(f.Err, os.ErrNotExist) { // gone already
				left = append(left, f.Err)
			}
		}
		return errors.Join(left...)
	})
}

// each sends the requests; one that is refused does not keep the others from
// being carried out. The error names each that was refused.
func (b *batch) each(ctx context.Context) error {
	return change(ctx, func(ctx context.Context) error {
		return goOn(ctx, b.conn, b.reqs, b.explain)
	})
}

// goOn sends the requests, past those that are refused. explain makes the errors
// of a send that began at request from.
func goOn(ctx context.Context, conn *nl.Conn, reqs []nl.Request, explain func(from int, many *nl.ExecError) error) error {
	var errs []error
	for from := 0; from < len(reqs); {
		err := conn.Exec(ctx, reqs[from:], nil)
		var many *nl.ExecError
		if !errors.As(err, &many) {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, explain(from, many))
		if many.Cause != nil {
			break
		}
		from += many.Sent // Exec stops after the send in which one failed
	}
	return joinErrors(errs)
}

// explain gives each refused item an error that names it.
func (b *batch) explain(from int, many *nl.ExecError) error {
	errs := make([]error, 0, len(many.Failed))
	for _, f := range many.Failed {
		if b.goneIsFine && errors.Is(f.Err, os.ErrNotExist) {
			continue
		}
		i := from + f.Index
		errs = append(errs, fail.New(b.op, b.ns, b.subject(i), b.cause(i, f.Err)))
	}
	if many.Cause != nil {
		errs = append(errs, fail.New(b.op, b.ns, b.all, many))
	}
	return joinErrors(errs)
}

// joinErrors is errors.Join that leaves a single error as it is.
func joinErrors(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...) // nil if all are
}
