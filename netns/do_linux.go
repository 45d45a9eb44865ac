package netns

import "context"

// Do runs fn on a thread that is in the namespace meanwhile, and returns what fn
// returns. The package documentation says what holds inside; above all:
// goroutines that fn starts are not in the namespace.
//
// fn gets ctx and ends when it sees fit: Do waits for it. A context that is done
// already, a closed handle and a namespace that may not be entered
// (os.ErrPermission) are errors, and fn is not called then. If fn panics, Do
// panics with a [*PanicError]; if fn calls runtime.Goexit, as testing.T.Fatal
// does, so does Do. Calls may be nested and made at the same time.
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
func (ns *NS) inside(ctx context.Context, fn func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return onThread(func() error {
		if err := ns.enter(); err != nil {
			return err
		}
		fn()
		return nil
	})
}
