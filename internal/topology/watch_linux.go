package topology

import (
	"context"
	"iter"
	"time"
)

// Watch yields a snapshot, and another one whenever the machine has changed. A snapshot that it has
// yielded does not change any more.
func Watch(ctx context.Context, opts Options) iter.Seq2[*Snapshot, error] {
	return func(yield func(*Snapshot, error) bool) {
		for {
			s, err := Read(ctx, opts)
			if !yield(s, err) || err != nil {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}
