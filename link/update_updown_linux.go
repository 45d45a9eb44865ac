package link

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
)

// changeTimeout bounds the wait for the kernel's answer to a change. The kernel
// answers before the send returns; it is there for a connection gone wrong.
const changeTimeout = 30 * time.Second

// SetUp brings the link up (IFF_UP). A link that is up already is no error.
func (l Link) SetUp(ctx context.Context) error {
	return fail.New("link.SetUp", l.ns, l.subject(), l.call(ctx, setFlags(l.Index, true)))
}

// SetDown takes the link down. The kernel removes its IPv6 addresses and the routes
// through it. A link that is down already is no error.
func (l Link) SetDown(ctx context.Context) error {
	return fail.New("link.SetDown", l.ns, l.subject(), l.call(ctx, setFlags(l.Index, false)))
}

func (l Link) subject() string { return subject(l.Name) }

// call sends one change to the link's namespace.
func (l Link) call(ctx context.Context, req nl.Request) error {
	if err := l.bound(); err != nil {
		return err
	}
	conn, err := route(l.ns)
	if err != nil {
		return err
	}
	if ctx, err = changeContext(ctx); err != nil {
		return err
	}
	return conn.Call(ctx, req, nil)
}

// changeContext returns the context for an exchange that changes something. The
// exchange does not begin when ctx is done, and ctx does not interrupt it: rtnetlink
// acts inside the send, and a caller that does not wait has no result.
func changeContext(ctx context.Context) (context.Context, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return answerContext(ctx), nil
}

// answerContext returns a context that the end of ctx does not touch and that is done
// changeTimeout after the first wait began.
func answerContext(ctx context.Context) context.Context {
	return &lateTimeout{Context: ctx}
}

// lateTimeout is a context with the values of another. It is done changeTimeout after
// the first wait for it began.
// The kernel may take longer than that to carry out many requests, before the wait:
// context.WithTimeout would interrupt these requests, and their undoing.
type lateTimeout struct {
	context.Context
	once sync.Once
	done chan struct{}
	over atomic.Bool
}

func (p *lateTimeout) Deadline() (time.Time, bool) { return time.Time{}, false }

func (p *lateTimeout) Done() <-chan struct{} {
	p.once.Do(func() {
		p.done = make(chan struct{})
		time.AfterFunc(changeTimeout, func() {
			p.over.Store(true)
			close(p.done)
		})
	})
	return p.done
}

func (p *lateTimeout) Err() error {
	if p.over.Load() {
		return context.DeadlineExceeded
	}
	return nil
}

// execChange sends requests that change something.
func execChange(ctx context.Context, conn *nl.Conn, reqs []nl.Request, reply func(int, nl.Message) error) error {
	ctx, err := changeContext(ctx)
	if err != nil {
		return err
	}
	return conn.Exec(ctx, reqs, reply)
}
