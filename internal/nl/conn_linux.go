package nl

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// A Conn is a netlink connection to the kernel in one network namespace. It is
// safe for concurrent use: exchanges are made at the same time, over a socket each,
// up to a number of them, and wait for each other beyond, within their context.
type Conn struct {
	family int
	dial   func() (*os.File, error) // opens a socket in the namespace

	turns chan struct{} // a token for each lane that may be taken
	done  chan struct{}
	once  sync.Once

	mu   sync.Mutex // guards the following field
	idle []*lane    // the last used at the end, so that no more are opened than are needed
}

// lane is a socket of a Conn, for one exchange at a time.
type lane struct {
	c    *Conn
	sock *socket // nil when there is none, or the last one broke
	seq  uint32
	out  []byte // send buffer, kept while small
}

// NewConn returns a connection of the netlink family (unix.NETLINK_ROUTE, ...)
// of at most so many sockets. It opens one with dial, by [Dial], when all others
// are busy, and again after one broke. dial must open it in the namespace that the
// Conn belongs to.
func NewConn(family, sockets int, dial func() (*os.File, error)) *Conn {
	c := &Conn{family: family, dial: dial, turns: make(chan struct{}, sockets), done: make(chan struct{})}
	for range sockets {
		c.turns <- struct{}{}
	}
	return c
}

// Adopt gives the connection a socket that Dial has opened. It is called before
// the first exchange.
func (c *Conn) Adopt(f *os.File) error {
	s, err := newSocket(f, false)
	if err != nil {
		return err
	}
	c.idle = append(c.idle, &lane{c: c, sock: s})
	return nil
}

// Close closes the sockets. Exchanges under way end first; those that wait, and
// later ones, get os.ErrClosed.
func (c *Conn) Close() error {
	c.once.Do(func() {
		close(c.done)
		for range cap(c.turns) {
			<-c.turns // never given back
		}
		for _, l := range c.idle {
			l.drop()
		}
	})
	return nil
}

// PortID returns the number that tells a connection of one socket from others of
// its family in the namespace (netlink(7): nl_pid): events carry the number of the
// socket whose request caused them. It is another one after the socket broke and
// was replaced.
func (c *Conn) PortID(ctx context.Context) (uint32, error) {
	l, err := c.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer c.release(l)
	if err := l.sock.learnPort(); err != nil {
		return 0, err
	}
	return l.sock.port, nil
}

// acquire waits for a lane and makes sure that it has a socket.
func (c *Conn) acquire(ctx context.Context) (*lane, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-c.done:
		return nil, os.ErrClosed
	default:
	}
	select {
	case <-c.turns:
	case <-c.done:
		return nil, os.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l := c.take()
	if err := l.ensure(); err != nil {
		c.release(l)
		return nil, err
	}
	return l, nil
}

// take returns the idle lane that was used last, or a new one.
func (c *Conn) take() *lane {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.idle)
	if n == 0 {
		return &lane{c: c}
	}
	l := c.idle[n-1]
	c.idle = c.idle[:n-1]
	return l
}

func (c *Conn) release(l *lane) {
	if cap(l.out) > 1<<16 {
		l.out = nil
	}
	c.mu.Lock()
	c.idle = append(c.idle, l)
	c.mu.Unlock()
	c.turns <- struct{}{}
}

// ensure makes sure that there is a socket.
func (l *lane) ensure() error {
	if l.sock != nil {
		return nil
	}
	f, err := l.c.dial()
	if err == nil {
		if l.sock, err = newSocket(f, false); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("opening a netlink socket: %w", err)
	}
	return nil
}

// drop closes the socket; the next exchange opens another.
func (l *lane) drop() {
	if l.sock != nil {
		l.sock.file.Close()
		l.sock = nil
	}
}

// next returns a sequence number. They wrap around; an answer is matched by its
// distance to the first of its exchange.
func (l *lane) next() uint32 {
	l.seq++
	return l.seq
}
