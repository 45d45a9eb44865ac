package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// table is a kind of things that a link has many of: addresses, neighbours, entries
// of a forwarding database, alternative names. Its functions are about one of them.
type table[T any] struct {
	encode  func(index int, item *T, how edit) nl.Request
	subject func(item *T, link string) string
	cause   func(item *T, how edit, e *nl.Error) error // puts the errno into words

	// The rest is nil in a table that has no use for it.

	// list reads the items of a link.
	list func(context.Context, Link) ([]T, error)

	// undo takes back an item that was made, or was changed from what it was before.
	undo func(index int, item, before *T) []nl.Request

	// verify compares what was made with what the kernel has.
	verify func(context.Context, *batch[T]) error

	// ready waits until the items can be used, and be taken back. An IPv6 address that
	// goes before the kernel has finished it takes along the group in which neighbours
	// ask for another address with the same last 24 bits.
	ready func(context.Context, *batch[T]) error
}

// edit says what is done to an item, by the flags of the netlink message.
type edit uint16

const (
	editDelete  edit = 0
	editAdd     edit = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	editReplace edit = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	editAppend  edit = unix.NLM_F_CREATE | unix.NLM_F_APPEND
)

// batch is one call that edits many items of a link.
type batch[T any] struct {
	*table[T]
	op   string
	link Link
	conn *nl.Conn
	how  edit
	list []T
	reqs []nl.Request

	flush  bool // an item that is gone is ignored
	before []*T // of editReplace: what each item was; nil for one that was not there

	// rest takes back what items that were refused have made all the same; may be nil.
	rest func(context.Context) ([]nl.Request, error)
}

// batch refuses a bad link and a bad list before anything is sent; bad is what is
// wrong with the list.
func (t *table[T]) batch(l Link, op string, how edit, list []T, bad error) (*batch[T], error) {
	b := &batch[T]{table: t, op: op, link: l, how: how, list: list, reqs: make([]nl.Request, len(list))}
	err := l.bound()
	if err == nil {
		err = bad
	}
	if err == nil {
		b.conn, err = route(l.ns)
	}
	for i := range list {
		if err == nil {
			b.reqs[i] = t.encode(l.Index, &list[i], how)
		}
	}
	return b, b.fail(err)
}

// each edits the items. One that is refused does not keep the others from being
// edited.
func (t *table[T]) each(ctx context.Context, l Link, op string, how edit, list []T, bad error) error {
	b, err := t.batch(l, op, how, list, bad)
	if err != nil || len(list) == 0 {
		return err
	}
	return b.each(ctx)
}

// flush deletes the items that match returns true for, all if it is nil.
func (t *table[T]) flush(ctx context.Context, l Link, op string, match func(T) bool) error {
	list, err := t.read(ctx, l, op)
	if err != nil {
		return err
	}
	if match != nil {
		list = slices.DeleteFunc(list, func(item T) bool { return !match(item) })
	}
	slices.Reverse(list) // secondary addresses go before the one that they depend on
	b, err := t.batch(l, op, editDelete, list, nil)
	if err != nil {
		return err
	}
	b.flush = true
	return b.each(ctx)
}

// read lists the items of a link.
func (t *table[T]) read(ctx context.Context, l Link, op string) ([]T, error) {
	err := l.bound()
	var list []T
	if err == nil {
		list, err = t.list(ctx, l)
	}
	if err != nil {
		return nil, fail.New(op, l.ns, l.subject(), err)
	}
	return list, nil
}

// fail names the link as what an error is about.
func (b *batch[T]) fail(err error) error { return fail.New(b.op, b.link.ns, b.link.subject(), err) }

// failItem names the item.
func (b *batch[T]) failItem(item *T, err error) error {
	return fail.New(b.op, b.link.ns, b.subject(item, b.link.Name), err)
}

// refused names the item of a request that the kernel has refused.
func (b *batch[T]) refused(i int, e *nl.Error) error {
	return b.failItem(&b.list[i], b.cause(&b.list[i], b.how, e))
}

// each sends the requests. The error names each item that was refused.
func (b *batch[T]) each(ctx context.Context) error {
	ctx, err := changeContext(ctx)
	if err != nil {
		return err
	}
	var errs []error
	err = b.conn.ExecAll(ctx, b.reqs, func(i int, e *nl.Error) bool {
		if !b.flush || !errors.Is(e, os.ErrNotExist) {
			errs = append(errs, b.refused(i, e))
		}
		return true
	}, nil)
	if err != nil {
		errs = append(errs, b.fail(err))
	}
	return joinErrors(errs)
}

// allOrNone sends the requests. When one is refused, or the kernel did not do what it
// was asked for, those that were carried out are undone, the last first.
func (b *batch[T]) allOrNone(ctx context.Context) error {
	ctx, err := changeContext(ctx)
	if err != nil {
		return err
	}
	failed, sent := map[int]bool{}, len(b.reqs)
	err = b.conn.Exec(ctx, b.reqs, nil)
	var many *nl.ExecError
	switch {
	case errors.As(err, &many):
		sent = many.Sent
		errs := make([]error, 0, len(many.Failed))
		for _, f := range many.Failed {
			failed[f.Index] = true
			errs = append(errs, b.refused(f.Index, f.Err))
		}
		if many.Cause != nil {
			errs = append(errs, b.fail(many))
		}
		err = joinErrors(errs)
	case err != nil:
		return b.fail(err) // what came of it is not known
	default:
		if err = b.finish(ctx); err == nil {
			return nil
		}
	}
	if uerr := b.rollback(ctx, sent, failed); uerr != nil {
		err = errors.Join(err, b.fail(fmt.Errorf("undoing the rest: %w", uerr)))
	}
	return err
}

// finish verifies what was made, and waits until it can be used.
func (b *batch[T]) finish(ctx context.Context) error {
	if b.verify != nil {
		if err := b.verify(ctx, b); err != nil {
			return err
		}
	}
	if b.ready != nil {
		return b.fail(b.ready(ctx, b))
	}
	return nil
}

// rollback undoes what the requests that were sent have done, but for those that
// failed.
func (b *batch[T]) rollback(ctx context.Context, sent int, failed map[int]bool) error {
	if b.ready != nil && sent > len(failed) {
		soon, cancel := context.WithTimeout(ctx, undoTimeout)
		_ = b.ready(soon, b) // what is not ready by then goes all the same
		cancel()
	}
	var reqs []nl.Request
	for i := sent - 1; i >= 0; i-- {
		if failed[i] {
			continue
		}
		var before *T
		if b.before != nil {
			before = b.before[i]
		}
		reqs = append(reqs, b.undo(b.link.Index, &b.list[i], before)...)
	}
	var errs []error
	if b.rest != nil {
		more, err := b.rest(ctx)
		reqs, errs = append(reqs, more...), append(errs, err)
	}
	err := b.conn.ExecAll(ctx, reqs, func(_ int, e *nl.Error) bool {
		if !errors.Is(e, os.ErrNotExist) { // gone already
			errs = append(errs, e)
		}
		return true
	}, nil)
	return errors.Join(append(errs, err)...)
}

// joinErrors is errors.Join that returns a single error unchanged.
func joinErrors(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...) // nil if all are
}
