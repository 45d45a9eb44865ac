package nl

import (
	"context"
	"errors"
	"iter"
)

// A Source is a table of the kernel that can be read whole and whose changes the kernel
// notifies. E is the caller's type for an item, a change and a mark.
type Source[E any] struct {
	// Subscribe opens the socket for the changes.
	Subscribe func() (*Events, error)

	// State reads the present table. It is called again after events were lost.
	State func(ctx context.Context) ([]E, error)

	// Decode turns a message into a change. ok is false for a message that is not of
	// interest.
	Decode func(id int, m Message) (e E, ok bool, err error)

	Synced E // the mark that what was read so far is the whole present state
	Resync E // the mark that events were lost: the state comes again from the start
}

// Follow yields the items of the present state, Synced, and then the changes. After a loss
// of events it yields Resync, the new state, and Synced again.
//
// A change that happened while the state was read may be yielded although the state has it
// already. The changes of one item come in the kernel's order, so the last one is right.
//
// The sequence ends when the loop does, or with an error: that of the context, or the first
// other one.
func Follow[E any](ctx context.Context, src Source[E]) iter.Seq2[E, error] {
	return func(yield func(E, error) bool) {
		var zero E
		events, err := src.Subscribe()
		if err != nil {
			yield(zero, err)
			return
		}
		defer events.Close()
		err = follow(ctx, events, &src, func(e E) error {
			if !yield(e, nil) {
				return errStop
			}
			return nil
		})
		if !errors.Is(err, errStop) {
			yield(zero, err)
		}
	}
}

// errStop says that the loop over a sequence has ended.
var errStop = errors.New("the loop has ended")

// follow returns only with an error.
func follow[E any](ctx context.Context, events *Events, src *Source[E], emit func(E) error) error {
	for {
		if err := present(ctx, src, emit); err != nil {
			return err
		}
		err := changes(ctx, events, src, emit)
		if !errors.Is(err, ErrOverflow) {
			return err
		}
		if err := emit(src.Resync); err != nil {
			return err
		}
		if err := events.Skip(ctx); err != nil {
			return err
		}
	}
}

// present emits the whole table and the mark behind it.
func present[E any](ctx context.Context, src *Source[E], emit func(E) error) error {
	state, err := src.State(ctx)
	if err != nil {
		return err
	}
	for _, e := range state {
		if err := emit(e); err != nil {
			return err
		}
	}
	return emit(src.Synced)
}

// changes emits the kernel's events until emit or the socket returns an error.
func changes[E any](ctx context.Context, events *Events, src *Source[E], emit func(E) error) error {
	for {
		err := events.Receive(ctx, func(id int, m Message) error {
			e, ok, err := src.Decode(id, m)
			if err != nil || !ok {
				return err
			}
			return emit(e)
		})
		if err != nil {
			return err
		}
	}
}
