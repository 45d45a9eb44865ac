package relay

import (
	"context"
	"io"
	"net"
	"sync"
)

// Dial opens a connection to the target.
type Dial func(ctx context.Context) (net.Conn, error)

// Relay copies until it is closed.
type Relay struct {
	dial   Dial
	socket io.Closer
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
}

// start runs serve until the relay is closed, also beyond the end of ctx.
func start(ctx context.Context, dial Dial, socket io.Closer, serve func(context.Context, *Relay)) *Relay {
	r := &Relay{dial: dial, socket: socket}
	ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.wg.Go(func() { serve(ctx, r) })
	return r
}

// Close closes the socket and all connections, and returns when no goroutine of the
// relay is left. Closing twice is fine.
func (r *Relay) Close() {
	r.once.Do(func() {
		r.cancel()
		r.socket.Close()
	})
	r.wg.Wait()
}

// onDone calls fn when the context ends, unless stop is called first. stop waits until
// fn has returned.
func onDone(ctx context.Context, fn func()) (stop func()) {
	over := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(over)
		fn()
	})
	return func() {
		if !cancel() {
			<-over
		}
	}
}
