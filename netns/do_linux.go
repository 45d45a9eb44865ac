package netns

import "context"

// Do runs fn on a thread that is in the namespace, and returns what fn returns. Goroutines
// that fn starts are not in the namespace; the package documentation lists what is.
//
// fn gets ctx, and Do waits until fn returns. Do does not call fn if ctx is done, the
// handle is closed, or the namespace may not be entered (os.ErrPermission). If fn panics,
// Do panics with a [*PanicError]. If fn calls runtime.Goexit, as testing.T.Fatal does, so
// does Do. Calls may be nested and made at the same time.
func Do[T any](ctx context.Context, ns *NS, fn func(ctx context.Context) (T, error)) (T, error) {
	var v T
	var ferr error
	err := ns.inside(ctx, func() { v, ferr = fn(ctx) })
	if err != nil {
		var zero T
		return zero, &Error{Op: "netns.Do", NS: ns.String(), Err: err}
	}
	return v, ferr
}

// inside runs fn on a thread in the namespace. The error says why fn did not run.
func (ns *NS) inside(ctx context.Context, fn func()) error { return ns.call(ctx, onThread, fn) }

// open is inside for code of this package, and of package net, that opens something
// there and changes nothing of its thread.
func (ns *NS) open(ctx context.Context, fn func()) error { return ns.call(ctx, onOurThread, fn) }

func (ns *NS) call(ctx context.Context, on func(*NS, func() error) error, fn func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ns == nil || ns.file == nil {
		return errNil
	}
	return on(ns, func() error {
		fn()
		return nil
	})
}
