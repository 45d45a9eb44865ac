package nl

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"
)

// Limits of one send: the kernel answers before it returns from it, and the
// default receive buffer holds 256 unread answers.
const (
	maxBatch = 100
	maxBytes = 32 << 10
)

// lastMessage is room for the message behind a transaction.
const lastMessage = 64

// Call sends one request and waits until the kernel has handled it. Messages
// that it answers with go to reply, which may be nil. The kernel's refusal is
// an *Error.
func (c *Conn) Call(ctx context.Context, req Request, reply func(Message) error) error {
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	x := exchange{c: c, first: c.next(), count: 1, one: &req}
	if reply != nil {
		x.reply = func(_ int, m Message) error { return reply(m) }
	}
	c.out = appendMessage(c.out[:0], &req, unix.NLM_F_REQUEST|unix.NLM_F_ACK, x.first)
	if err := x.run(ctx); err != nil {
		return err
	}
	if len(x.failed) > 0 {
		return x.failed[0].Err
	}
	return nil
}

// Exec sends the requests in order and waits until the kernel has handled them.
// They share sends of at most 100 requests; only the last of a send asks for an
// acknowledgement. The kernel goes on after a request that fails, to the end of
// the send; the sends after it are not made. reply gets the messages that
// request i is answered with; it may be nil.
//
// The error is nil, a *ExecError, or that of the transport. A context that is
// done between two sends is a *ExecError, too.
func (c *Conn) Exec(ctx context.Context, reqs []Request, reply func(i int, m Message) error) error {
	return c.exec(ctx, reqs, false, reply)
}

// Find is Exec for questions about what may not be there: ENOENT is an answer, and
// no error.
func (c *Conn) Find(ctx context.Context, reqs []Request, reply func(i int, m Message) error) error {
	return c.exec(ctx, reqs, true, reply)
}

func (c *Conn) exec(ctx context.Context, reqs []Request, find bool, reply func(i int, m Message) error) error {
	if len(reqs) == 0 {
		return ctx.Err()
	}
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	for sent := 0; sent < len(reqs); {
		if err := ctx.Err(); err != nil && sent > 0 {
			return &ExecError{Sent: sent, Cause: err}
		}
		n := chunk(reqs[sent:])
		x := exchange{c: c, reqs: reqs[sent:], base: sent, first: c.seq + 1, count: n, find: find, reply: reply}
		x.encode()
		if err := x.run(ctx); err != nil {
			return err
		}
		sent += x.count
		if len(x.failed) > 0 {
			return &ExecError{Failed: x.failed, Sent: sent}
		}
	}
	return nil
}

// Transaction sends begin, the requests and end as one datagram, as nfnetlink
// wants its batches (linux/netfilter/nfnetlink.h): the kernel commits all of
// them or none. The answer is complete with that to the last request, or with
// an error for begin, which stands for the batch as a whole and its commit.
//
// The error is nil, a *ExecError (nothing was committed), or that of the
// transport, after which the caller has to find out.
func (c *Conn) Transaction(ctx context.Context, begin Request, reqs []Request, end Request) error {
	if len(reqs) == 0 {
		return ctx.Err()
	}
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	all := slices.Concat([]Request{begin}, reqs)
	x := exchange{c: c, reqs: all, base: -1, first: c.seq + 1, count: len(all), firstEnds: true}
	x.encode()
	c.out = appendMessage(c.out, &end, unix.NLM_F_REQUEST, c.next())
	if err := x.run(ctx); err != nil {
		return err
	}
	if len(x.failed) > 0 {
		return &ExecError{Failed: x.failed, Sent: len(reqs)}
	}
	return nil
}

// exchange is one send and its answers.
type exchange struct {
	c         *Conn
	reqs      []Request
	one       *Request // instead of reqs, for a single request
	first     uint32   // sequence number of the first request
	count     int      // requests sent
	base      int      // index of the first request among the caller's
	firstEnds bool     // an error for the first request ends the exchange
	find      bool     // ENOENT is no error
	reply     func(i int, m Message) error
	failed    []Item
}

// chunk returns how many of the requests go into one send.
func chunk(reqs []Request) int {
	size := 0
	for i := range reqs {
		size += msgHeader + align(len(reqs[i].Body))
		if i == maxBatch || i > 0 && size > maxBytes {
			return i
		}
	}
	return len(reqs)
}

// encode puts the requests into the send buffer, the last one asking for an
// acknowledgement.
func (x *exchange) encode() {
	size := 0
	for i := range x.count {
		size += msgHeader + align(len(x.reqs[i].Body))
	}
	x.c.out = slices.Grow(x.c.out[:0], size+lastMessage)
	for i := range x.count {
		flags := uint16(unix.NLM_F_REQUEST)
		if i == x.count-1 {
			flags |= unix.NLM_F_ACK
		}
		x.c.out = appendMessage(x.c.out, &x.reqs[i], flags, x.c.next())
	}
}

// run sends c.out and reads until the last request is answered. Answers to
// other sequence numbers (an exchange that was given up) are skipped.
func (x *exchange) run(ctx context.Context) (err error) {
	s := x.c.sock
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if err := s.send(x.c.out); err != nil {
		x.c.drop()
		return err
	}
	var replyErr error
	for done := false; !done; {
		b, err := s.recv(ctx, *buf)
		if err != nil {
			x.c.drop()
			return err
		}
		for m, next := cutMessage(b, 0); next > 0; m, next = cutMessage(b, next) {
			i := int(int32(m.Seq - x.first))
			if i < 0 || i >= x.count {
				continue
			}
			if m.Type != unix.NLMSG_ERROR {
				if x.reply != nil && replyErr == nil {
					replyErr = x.reply(x.base+i, m)
				}
				continue
			}
			var e *Error
			if !x.find || !isErrno(m, unix.ENOENT) {
				e = parseError(m, x.c.family, x.request(i))
			}
			if e != nil {
				x.failed = append(x.failed, Item{Index: x.base + i, Err: e})
			}
			done = done || i == x.count-1 || i == 0 && x.endsWith(e)
		}
	}
	slices.SortStableFunc(x.failed, func(a, b Item) int { return a.Index - b.Index })
	return replyErr
}

// endsWith reports whether an error for the first request is all the answer that
// comes. nfnetlink denies a send as a whole, and says so once.
func (x *exchange) endsWith(e *Error) bool {
	return e != nil && (x.firstEnds || x.c.family == unix.NETLINK_NETFILTER && e.Errno == unix.EPERM)
}

func (x *exchange) request(i int) *Request {
	if x.one != nil {
		return x.one
	}
	return &x.reqs[i]
}
