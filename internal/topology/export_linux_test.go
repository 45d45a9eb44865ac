package topology

import (
	"context"
	"testing"
)

// AgainForTest reads a machine, and returns a function that reads one namespace again, as a watch does.
func AgainForTest(tb testing.TB, opts Options) (again func(inode uint64) *Snapshot) {
	tb.Helper()
	r, err := newReader(opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(r.close)
	if err := r.scan(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	ctx := context.WithoutCancel(tb.Context())
	r.refresh(ctx)
	return func(inode uint64) *Snapshot {
		r.spaces[inode].dirty = partLinks | partRoutes
		r.refresh(ctx)
		return r.snapshot()
	}
}
