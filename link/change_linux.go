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

// SetUp brings the link up (IFF_UP). It is no error if it is up already.
func (l Link) SetUp(ctx context.Context) error {
	return fail.New("link.SetUp", l.ns, l.subject(), l.call(ctx, setFlags(l.Index, true)))
}

// SetDown takes the link down. Its IPv6 addresses and the routes through it go
// with that, as the kernel has it. It is no error if it is down already.
func (l Link) SetDown(ctx context.Context) error {
	return fail.New("link.SetDown", l.ns, l.subject(), l.call(ctx, setFlags(l.Index, false)))
}

// Delete removes the link, and with it the other end of a veth and the link that
// SetRate made. A link that is gone already is os.ErrNotExist.
func (l Link) Delete(ctx context.Context) error {
	err := l.call(ctx, delLink(l.Index))
	if err == nil {
		err = l.deleteIFB(ctx)
	}
	return fail.New("link.Delete", l.ns, l.subject(), err)
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
	return change(ctx, func(ctx context.Context) error { return conn.Call(ctx, req, nil) })
}

// change runs an exchange that changes something. It does not begin when ctx is
// done, and is not cut short by it: rtnetlink acts inside the send, so that
// stopping to wait would only mean not to know what came of it.
func change(ctx context.Context, exchange func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return exchange(&patience{Context: context.WithoutCancel(ctx)})
}

// patience is a context that is done changeTimeout after somebody has begun to wait
// for it, which nearly nobody does.
type patience struct {
	context.Context
	once sync.Once
	done chan struct{}
	over atomic.Bool
}

func (p *patience) Done() <-chan struct{} {
	p.once.Do(func() {
		p.done = make(chan struct{})
		time.AfterFunc(changeTimeout, func() {
			p.over.Store(true)
			close(p.done)
		})
	})
	return p.done
}

func (p *patience) Err() error {
	if p.over.Load() {
		return context.DeadlineExceeded
	}
	return nil
}
