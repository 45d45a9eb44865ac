package nl

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// maxDumps bounds how often a dump that changed underneath is read again.
const maxDumps = 50

// Dump reads a whole table and hands each message to each. If the kernel reports that the
// table changed meanwhile (NLM_F_DUMP_INTR), Dump reads it again, up to 50 times, and then
// returns ErrInterrupted. It calls reset, which may be nil, before each attempt: what
// earlier attempts brought is void. An error from each ends the dump.
//
// The kernel's refusal is an *Error.
func (c *Conn) Dump(ctx context.Context, req Request, reset func(), each func(Message) error) error {
	return c.dump(ctx, &req, nil, maxDumps, callbacks{reset, each})
}

// DumpGuarded is Dump for a table whose dumps the kernel does not mark: the guard decides
// when the table is read again.
func (c *Conn) DumpGuarded(ctx context.Context, req Request, g Guard, reset func(), each func(Message) error) error {
	return c.dump(ctx, &req, g, maxDumps, callbacks{reset, each})
}

// DumpOnce is DumpGuarded with one attempt: if the table changed meanwhile, it returns
// ErrInterrupted. each may take its time; the connection is in use until the end. g may be
// nil.
func (c *Conn) DumpOnce(ctx context.Context, req Request, g Guard, each func(Message) error) error {
	return c.dump(ctx, &req, g, 1, callbacks{nil, each})
}

// consumer is what the entries of a dump go to.
type consumer interface {
	begin()                                                // a try begins: what came before is void
	take(ctx context.Context, r *reader, buf []byte) error // reads the next datagram, into buf or where it stays
}

// callbacks hand over the entries one by one.
type callbacks struct {
	reset func() // may be nil
	each  func(Message) error
}

func (f callbacks) begin() {
	if f.reset != nil {
		f.reset()
	}
}

func (f callbacks) take(ctx context.Context, r *reader, buf []byte) error {
	_, err := r.next(ctx, buf, f.each)
	return err
}

// dump reads a table, again if it changed meanwhile. g may be nil.
func (c *Conn) dump(ctx context.Context, req *Request, g Guard, tries int, to consumer) error {
	if err := req.check(c.family); err != nil {
		return err
	}
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if g != nil {
		defer func() { c.leave(g.watches(), *buf) }()
	}
	for range tries {
		to.begin()
		r := reader{c: c, req: req, guard: g}
		err := r.table(ctx, *buf, to)
		full := g != nil && errors.Is(err, unix.ENOBUFS) // more changes than the socket holds
		if _, refused := err.(*Error); full || err != nil && !refused {
			c.drop() // the rest of the dump is still to come
		}
		if !full && (err != nil || !r.invalid) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return ErrInterrupted
}
