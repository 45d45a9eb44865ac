package link

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// syncTries bounds how often a sync begins again because the kernel has learned what was to be
// added, after the entries were read.
const syncTries = 5

// syncer is a call that makes the items of a link those given.
type syncer[T any] struct {
	*table[T]
	op   string
	link Link
	conn *nl.Conn

	// plan reads what the link has and returns what leads from there to what is wanted.
	plan func(context.Context) (syncPlan[T], error)

	// restore returns the requests that bring back what there was before a step.
	restore func(index int, s *syncStep[T]) []nl.Request

	// verify finds what the kernel did not do although it was asked to; may be nil.
	verify func(context.Context, *syncPlan[T]) ([]syncClash[T], error)
}

// syncPlan is what a sync does, in the order of its steps.
type syncPlan[T any] struct {
	steps   []syncStep[T]
	changes Changes
	clashes []syncClash[T] // why it does nothing
}

// syncStep is one request of a sync.
type syncStep[T any] struct {
	how    edit
	item   *T
	before []*T // what there is in its place; of editDelete what goes
	parts  bool // the kernel may do a part of it and refuse the rest
}

// syncClash says why an item cannot be made.
type syncClash[T any] struct {
	item *T
	err  error
}

// add appends the step that makes an item where there is none.
func (p *syncPlan[T]) add(item *T) {
	p.steps = append(p.steps, syncStep[T]{how: editAdd, item: item})
	p.changes.Added++
}

// replace appends the step that makes an item in the place of others.
func (p *syncPlan[T]) replace(item *T, before ...*T) {
	p.steps = append(p.steps, syncStep[T]{how: editReplace, item: item, before: before})
	p.changes.Replaced++
}

// remove appends the step that deletes an item.
func (p *syncPlan[T]) remove(item *T) {
	p.steps = append(p.steps, syncStep[T]{how: editDelete, item: item, before: []*T{item}})
	p.changes.Deleted++
}

func (p *syncPlan[T]) clash(item *T, err error) {
	p.clashes = append(p.clashes, syncClash[T]{item, err})
}

// newSyncer refuses a link that no read gave, and a bad list.
func newSyncer[T any](t *table[T], l Link, op string, bad error) (*syncer[T], error) {
	s := &syncer[T]{table: t, op: op, link: l}
	err := l.bound()
	if err == nil {
		err = bad
	}
	if err == nil {
		s.conn, err = route(l.ns)
	}
	return s, s.fail(err)
}

// fail names the link as what an error is about.
func (s *syncer[T]) fail(err error) error { return fail.New(s.op, s.link.ns, s.link.subject(), err) }

// failItem names the item.
func (s *syncer[T]) failItem(item *T, err error) error {
	return fail.New(s.op, s.link.ns, s.subject(item, s.link.Name), err)
}

func (s *syncer[T]) failAll(clashes []syncClash[T]) error {
	errs := make([]error, len(clashes))
	for i, c := range clashes {
		errs[i] = s.failItem(c.item, c.err)
	}
	return joinErrors(errs)
}

// run does the sync, whole or not at all. If the kernel has learned meanwhile what was to be added, it
// begins again.
func (s *syncer[T]) run(ctx context.Context) (Changes, error) {
	for try := 1; ; try++ {
		p, err := s.plan(ctx)
		if err == nil && len(p.steps) > 0 && len(p.clashes) == 0 {
			var changing context.Context
			if changing, err = changeContext(ctx); err == nil {
				again, err := s.carryOut(changing, &p)
				if err == nil {
					return p.changes, nil
				}
				if !again || try == syncTries {
					return Changes{}, err
				}
				continue
			}
		}
		if err == nil {
			return Changes{}, s.failAll(p.clashes)
		}
		return Changes{}, s.fail(err)
	}
}

// carryOut makes the steps, and undoes them if one is refused. again reports whether all that were
// refused were to add what is there by now.
func (s *syncer[T]) carryOut(ctx context.Context, p *syncPlan[T]) (again bool, err error) {
	reqs := make([]nl.Request, len(p.steps))
	for i := range p.steps {
		reqs[i] = s.encode(s.link.Index, p.steps[i].item, p.steps[i].how)
	}
	idle := map[int]bool{} // steps that have changed nothing
	sent := len(reqs)
	err = s.conn.ExecAll(ctx, reqs, func(i int, e *nl.Error) bool {
		idle[i] = p.steps[i].how == editDelete && e.Errno == unix.ENOENT // gone already
		return idle[i]
	}, nil)
	var many *nl.ExecError
	switch {
	case errors.As(err, &many):
		sent = many.Sent
		again, err = s.refused(p, many)
		for _, f := range many.Failed {
			idle[f.Index] = !p.steps[f.Index].parts
		}
	case err != nil:
		return false, s.fail(err) // what came of it is not known
	case s.verify != nil:
		lacks, verr := s.verify(ctx, p)
		if err = s.failAll(lacks); verr != nil {
			err = s.fail(fmt.Errorf("reading the entries back: %w", verr))
		}
	}
	if err == nil {
		return false, nil
	}
	if uerr := s.rollback(ctx, p.steps[:sent], idle); uerr != nil {
		return false, errors.Join(err, s.fail(fmt.Errorf("undoing the rest: %w", uerr)))
	}
	return again, err
}

// refused names the items that the kernel has refused.
func (s *syncer[T]) refused(p *syncPlan[T], many *nl.ExecError) (again bool, err error) {
	errs := make([]error, 0, len(many.Failed))
	again = many.Cause == nil
	for _, f := range many.Failed {
		step := &p.steps[f.Index]
		again = again && f.Err.Errno == unix.EEXIST && step.how == editAdd
		errs = append(errs, s.failItem(step.item, s.cause(step.item, step.how, f.Err)))
	}
	if many.Cause != nil {
		errs = append(errs, s.fail(many))
	}
	return again, joinErrors(errs)
}

// rollback undoes the steps but for the idle ones, the last first.
func (s *syncer[T]) rollback(ctx context.Context, steps []syncStep[T], idle map[int]bool) error {
	var reqs []nl.Request
	for i := len(steps) - 1; i >= 0; i-- {
		if !idle[i] {
			reqs = append(reqs, s.restore(s.link.Index, &steps[i])...)
		}
	}
	var errs []error
	err := s.conn.ExecAll(ctx, reqs, func(_ int, e *nl.Error) bool {
		if !errors.Is(e, os.ErrNotExist) { // gone already
			errs = append(errs, e)
		}
		return true
	}, nil)
	return errors.Join(append(errs, err)...)
}
