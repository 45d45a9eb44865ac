package netns

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// A Pool keeps unnamed namespaces ready, so that a program need not wait for the kernel to
// make one. It is safe for concurrent use.
type Pool struct {
	make  func(context.Context) (*NS, error)
	ready chan *NS
	want  chan struct{} // holds a token when there may be something to make
	stop  context.CancelFunc
	done  chan struct{} // closed when the maker has ended

	mu     sync.RWMutex // held for reading while a namespace is taken; guards the following field
	closed bool
}

// NewPool returns a pool that makes namespaces in the background, one after the other,
// until size of them are ready. After a [Pool.Get] it makes the next one: at once if none
// is ready, and otherwise after a short pause, in which the caller can make links without
// contention. A size below 1 is os.ErrInvalid. Get reports why a namespace cannot be made.
func NewPool(size int) (*Pool, error) {
	p, err := newPool(size, New)
	if err != nil {
		return nil, &Error{Op: "netns.NewPool", Err: err}
	}
	return p, nil
}

func newPool(size int, make1 func(context.Context) (*NS, error)) (*Pool, error) {
	if size < 1 {
		return nil, refuse.Input("the size %d is less than 1", size)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Pool{
		make:  make1,
		ready: make(chan *NS, size),
		want:  make(chan struct{}, 1),
		stop:  stop,
		done:  make(chan struct{}),
	}
	go p.fill(ctx)
	return p, nil
}

// Get returns a namespace as [New] does: unnamed, with its loopback link up, the caller's
// to close. If none is ready it makes one itself and does not wait for the pool. After
// [Pool.Close] the error is os.ErrClosed.
func (p *Pool) Get(ctx context.Context) (*NS, error) {
	ns, err := p.get(ctx)
	if err != nil {
		return nil, &Error{Op: "netns.Pool.Get", Err: err}
	}
	return ns, nil
}

func (p *Pool) get(ctx context.Context) (*NS, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.mu.RLock()
	closed := p.closed
	var ns *NS
	if !closed {
		select {
		case ns = <-p.ready:
		default:
		}
	}
	p.mu.RUnlock()
	if closed {
		return nil, os.ErrClosed
	}
	select {
	case p.want <- struct{}{}:
	default:
	}
	if ns != nil {
		return ns, nil
	}
	return p.make(ctx)
}

// Close ends the pool and closes the namespaces that are ready. It does not close those
// that Get has returned. Closing twice is fine.
func (p *Pool) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	p.stop()
	<-p.done
	if closed {
		return nil
	}
	close(p.ready)
	for ns := range p.ready {
		ns.Close()
	}
	return nil
}

// fill makes namespaces until all are ready, and then whenever one was taken.
// After a failure it waits for the next Get, too: that one reports it.
func (p *Pool) fill(ctx context.Context) {
	defer close(p.done)
	for {
		for len(p.ready) < cap(p.ready) {
			ns, err := p.make(ctx)
			if err != nil {
				break
			}
			p.ready <- ns // there is room: nothing else sends
		}
		select {
		case <-p.want:
			p.rest(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// pause is how long what a namespace was taken for has the machine for itself:
// links are made under the same lock of the kernel as namespaces.
const pause = 2 * time.Millisecond

// rest waits out the pause, while there are namespaces ready.
func (p *Pool) rest(ctx context.Context) {
	t := time.NewTimer(pause)
	defer t.Stop()
	for len(p.ready) > 0 {
		select {
		case <-p.want: // look again whether one is ready
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
