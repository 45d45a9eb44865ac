package nl

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A Conn is a netlink connection to the kernel in one network namespace. It is
// safe for concurrent use; exchanges wait for each other, within their context.
type Conn struct {
	family int
	dial   func() (*os.File, error) // opens a socket in the namespace
	lacks  func() string            // which capability is missing; nil where that is unknown

	turn chan struct{}   // holds one token, which guards the fields below
	sock *exchangeSocket // nil when there is none, or the last one broke
	seq  uint32
	out  []byte // send buffer, kept while small
	done chan struct{}
	once sync.Once

	fault func(Request) Request // of a test
	log   Logger                // nearly always nil
}

// NewConn returns a connection of the netlink family (unix.NETLINK_ROUTE, ...)
// that opens its socket with dial: when it is first used, and again after one
// broke. dial must open it with [Dial], in the namespace that the Conn belongs to.
func NewConn(family int, dial func() (*os.File, error)) *Conn {
	c := &Conn{family: family, dial: dial, log: log, turn: make(chan struct{}, 1), done: make(chan struct{})}
	c.turn <- struct{}{}
	return c
}

// Lacks gives the connection a function that names the capability that the program lacks in
// the namespace, or "". It is called if the kernel answers EPERM without a message. Lacks
// must be called before the first exchange.
func (c *Conn) Lacks(f func() string) { c.lacks = f }

// refusal reads an answer that may be a refusal; see parseError.
func (c *Conn) refusal(m Message, req *Request) *Error {
	e := parseError(m, c.family, req)
	if e != nil && e.Errno == unix.EPERM && e.Msg == "" && c.lacks != nil {
		e.Hint = c.lacks()
	}
	return e
}

// Adopt gives the connection a socket that Dial has returned. It is called before
// the first exchange.
func (c *Conn) Adopt(f *os.File) error {
	s, err := newExchangeSocket(f)
	if err != nil {
		return err
	}
	c.sock = s
	return nil
}

// Close closes the socket. An exchange under way ends first; those that wait,
// and later ones, get os.ErrClosed.
func (c *Conn) Close() error {
	c.once.Do(func() {
		close(c.done)
		<-c.turn // never given back
		c.drop()
	})
	return nil
}

// PortID returns the number that identifies the connection among those of its family in the
// namespace (netlink(7): nl_pid). An event carries the number of the connection whose
// request caused it. The number changes when the socket is replaced.
func (c *Conn) PortID(ctx context.Context) (uint32, error) {
	if err := c.acquire(ctx); err != nil {
		return 0, err
	}
	defer c.release()
	if err := c.sock.learnPort(); err != nil {
		return 0, err
	}
	return c.sock.port, nil
}

// acquire waits for the connection's turn and makes sure that there is a socket.
func (c *Conn) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-c.done:
		return os.ErrClosed
	default:
	}
	select { // nearly always free, and one case is cheaper
	case <-c.turn:
	default:
		select {
		case <-c.turn:
		case <-c.done:
			return os.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := c.ensure()
	if err != nil {
		c.release()
	}
	return err
}

// ensure makes sure that there is a socket.
func (c *Conn) ensure() error {
	if c.sock != nil {
		return nil
	}
	f, err := c.dial()
	if err == nil {
		if err = c.Adopt(f); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("opening a netlink socket: %w", err)
	}
	return nil
}

func (c *Conn) release() {
	if cap(c.out) > 1<<16 {
		c.out = nil
	}
	c.turn <- struct{}{}
}

// drop closes the socket; the next exchange opens another.
func (c *Conn) drop() {
	if c.sock != nil {
		c.sock.file.Close()
		c.sock = nil
	}
}

// next returns a sequence number. They wrap around; an answer is matched by its
// distance to the first of its exchange.
func (c *Conn) next() uint32 {
	c.seq++
	return c.seq
}
