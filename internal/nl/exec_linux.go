package nl

import (
	"context"
	"errors"
	"io/fs"
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

// Call sends one request and waits until the kernel has handled it. reply, which may be
// nil, gets the messages of the answer. The kernel's refusal is an *Error. As in all
// exchanges, a request with an attribute that is too long is os.ErrInvalid, and nothing is
// sent.
func (c *Conn) Call(ctx context.Context, req Request, reply func(Message) error) error {
	if err := req.check(c.family); err != nil {
		return err
	}
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	x := exchange{c: c, first: c.next(), count: 1, one: &req}
	if reply != nil {
		x.reply = func(_ int, m Message) error { return reply(m) }
	}
	c.out = c.append(c.out[:0], &req, unix.NLM_F_REQUEST|unix.NLM_F_ACK, x.first)
	if err := x.run(ctx); err != nil {
		return err
	}
	if len(x.failed) > 0 {
		return x.failed[0].Err
	}
	return nil
}

// Exec sends the requests in order and waits until the kernel has handled them. A send has
// at most 100 requests, and only its last one asks for an acknowledgement. After a request
// that fails, the kernel handles the others of that send, and Exec makes no further sends.
// reply, which may be nil, gets the messages that answer request i.
//
// The error is nil, a *ExecError, or that of the transport. A context that is done between
// two sends is a *ExecError, too.
func (c *Conn) Exec(ctx context.Context, reqs []Request, reply func(i int, m Message) error) error {
	return c.exec(ctx, &exchange{reply: reply}, reqs, nil)
}

// ExecAll is Exec, but makes the next send if ignore accepts the failures of the last one.
// ignore gets each request that the kernel refused, in order. The *ExecError has those for
// which it returns false. ignore must not use the connection.
func (c *Conn) ExecAll(ctx context.Context, reqs []Request, ignore func(i int, e *Error) bool, reply func(i int, m Message) error) error {
	return c.exec(ctx, &exchange{reply: reply}, reqs, ignore)
}

// IgnoreNotExist is an ignore function for requests whose object may be gone.
func IgnoreNotExist(_ int, e *Error) bool { return errors.Is(e, fs.ErrNotExist) }

// Find is Exec for queries of objects that may be missing: ENOENT is an answer, and no
// error.
func (c *Conn) Find(ctx context.Context, reqs []Request, reply func(i int, m Message) error) error {
	return c.exec(ctx, &exchange{reply: reply, find: true}, reqs, nil)
}

// exec makes one send after the other with x, which brings the options.
func (c *Conn) exec(ctx context.Context, x *exchange, reqs []Request, ignore func(i int, e *Error) bool) error {
	if len(reqs) == 0 {
		return ctx.Err()
	}
	if err := checkAll(c.family, reqs); err != nil {
		return err
	}
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	for sent := 0; sent < len(reqs); {
		if err := ctx.Err(); err != nil && sent > 0 {
			return &ExecError{Sent: sent, Cause: err}
		}
		x.c, x.reqs, x.base, x.first, x.count = c, reqs[sent:], sent, c.seq+1, chunk(reqs[sent:])
		x.encode()
		if err := x.run(ctx); err != nil {
			return err
		}
		sent += x.count
		if ignore != nil {
			x.failed = slices.DeleteFunc(x.failed, func(f Item) bool { return ignore(f.Index, f.Err) })
		}
		if len(x.failed) > 0 {
			return &ExecError{Failed: x.failed, Sent: sent}
		}
	}
	return nil
}

// Transaction sends begin, the requests and end as one datagram, which nfnetlink requires
// of its batches (linux/netfilter/nfnetlink.h). The kernel commits all of them or none. The
// answer is complete with that to the last request, or with an error for begin, which is
// about the batch as a whole or its commit.
//
// The error is nil, a *ExecError (nothing was committed), or that of the transport. After
// the last the caller has to find out whether the batch was committed.
func (c *Conn) Transaction(ctx context.Context, begin Request, reqs []Request, end Request) error {
	if len(reqs) == 0 {
		return ctx.Err()
	}
	if err := checkAll(c.family, reqs); err != nil {
		return err
	}
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	all := slices.Concat([]Request{begin}, reqs)
	x := exchange{c: c, reqs: all, base: -1, first: c.seq + 1, count: len(all), firstEnds: true}
	x.encode()
	c.out = c.append(c.out, &end, unix.NLM_F_REQUEST, c.next())
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

	failed []Item
	done   bool  // the last request is answered
	err    error // the first that reply returned
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
		x.c.out = x.c.append(x.c.out, &x.reqs[i], flags, x.c.next())
	}
}

// run sends c.out and reads until the last request is answered. Answers to
// other sequence numbers (an exchange that was given up) are skipped.
func (x *exchange) run(ctx context.Context) (err error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if err := x.c.sock.send(x.c.out); err != nil {
		x.c.drop()
		return err
	}
	x.failed, x.done, x.err = nil, false, nil
	for !x.done {
		b, err := x.c.recv(ctx, *buf)
		if err != nil {
			x.c.drop()
			return err
		}
		for m, next := cutMessage(b, 0); next > 0; m, next = cutMessage(b, next) {
			if i := int(int32(m.Seq - x.first)); i >= 0 && i < x.count {
				x.answer(i, m)
			}
		}
	}
	slices.SortStableFunc(x.failed, func(a, b Item) int { return a.Index - b.Index })
	return x.err
}

// answer takes a message that answers request i of the send.
func (x *exchange) answer(i int, m Message) {
	if m.Type != unix.NLMSG_ERROR {
		if x.reply != nil && x.err == nil {
			x.err = x.reply(x.base+i, m)
		}
		return
	}
	var e *Error
	if !x.find || !isErrno(m, unix.ENOENT) {
		e = x.c.refusal(m, x.request(i))
	}
	if e != nil {
		x.failed = append(x.failed, Item{Index: x.base + i, Err: e})
	}
	x.done = x.done || i == x.count-1 || i == 0 && x.endsWith(e)
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
