package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// dialTimeout bounds how long a client waits for the target.
const dialTimeout = 30 * time.Second

// TCP starts a relay for the connections that the listener accepts. The relay closes
// the listener. Of ctx only the values count, not the end.
func TCP(ctx context.Context, ln net.Listener, dial Dial) *Relay {
	return start(ctx, dial, ln, func(ctx context.Context, r *Relay) { r.accept(ctx, ln) })
}

// accept accepts clients until the context ends.
func (r *Relay) accept(ctx context.Context, ln net.Listener) {
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			r.wg.Go(func() { r.connect(ctx, c.(*net.TCPConn)) })
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default: // too many open files, or the client is gone already
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}
}

// connect copies both ways until both ends have closed theirs. net.TCPConn copies
// from one to the other within the kernel (splice(2)).
func (r *Relay) connect(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := r.dial(dctx)
	if err != nil {
		client.SetLinger(0) // refused by the target, reset by the relay
		return
	}
	target := conn.(*net.TCPConn)
	defer target.Close()
	defer onDone(ctx, func() {
		client.Close()
		target.Close()
	})()
	var wg sync.WaitGroup
	wg.Go(func() { copyTo(target, client) })
	wg.Go(func() { copyTo(client, target) })
	wg.Wait()
}

// copyTo copies one way up to its end. An error resets both connections.
func copyTo(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err == nil {
		to.CloseWrite()
		return
	}
	for _, c := range []*net.TCPConn{to, from} {
		c.SetLinger(0)
		c.Close()
	}
}
