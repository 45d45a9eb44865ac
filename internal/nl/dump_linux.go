package nl

import (
	"context"
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxDumps bounds how often a dump that changed underneath is read again.
const maxDumps = 50

// Dump asks for a whole table and hands each message to each. When the kernel
// says that the table changed while it was read (NLM_F_DUMP_INTR), the dump is
// begun again, at most 50 times, and ends in ErrInterrupted then. reset, which
// may be nil, is called before every try: what the tries before it brought is
// void. An error from each ends the dump.
//
// The kernel's refusal is an *Error.
func (c *Conn) Dump(ctx context.Context, req Request, reset func(), each func(Message) error) error {
	return c.dumpTries(ctx, &req, maxDumps, nil, reset, nil, each)
}

// DumpGuarded is Dump for a table whose dumps the kernel does not flag: the
// guard says when one is begun again.
func (c *Conn) DumpGuarded(ctx context.Context, req Request, g *Guard, reset func(), each func(Message) error) error {
	return c.dumpTries(ctx, &req, maxDumps, g, reset, nil, each)
}

// DumpOnce is DumpGuarded without a second try: a table that changed while it
// was read is ErrInterrupted at once. each may take its time; the connection is
// taken for as long. g may be nil.
func (c *Conn) DumpOnce(ctx context.Context, req Request, g *Guard, each func(Message) error) error {
	return c.dumpTries(ctx, &req, 1, g, nil, nil, each)
}

// A Guard watches the changes of a table while a dump reads it.
type Guard struct {
	Groups []uint32 // the multicast groups that are told of the changes

	// Break gets the last message of a datagram that is not the end of the dump:
	// there the kernel let go of the table. Event gets a change that came up while
	// it was read. Either returns true when the dump may be wrong for it. Resume,
	// which may be nil, gets the first message after a break.
	Break  func(last Message) (void bool)
	Event  func(m Message) (void bool)
	Resume func(first Message)

	// Settle, if it is set, is sent after a dump that was broken: it has to be a
	// request that waits for changes under way, of which the kernel has told when
	// it answers. They came before the end of the dump, perhaps.
	Settle *Request

	broke bool
}

// dumpTries hands the messages to each, or else keeps the replies.
func (c *Conn) dumpTries(ctx context.Context, req *Request, tries int, g *Guard, reset func(), kept *replies, each func(Message) error) error {
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if g != nil {
		defer func() { c.leave(g.Groups, *buf) }()
	}
	for range tries {
		if reset != nil {
			reset()
		}
		if g != nil {
			g.broke = false
			if err := c.join(g.Groups); err != nil {
				return err
			}
		}
		intr, err := c.dump(ctx, req, *buf, g, kept, each)
		if err == nil && !intr && g != nil && g.broke && g.Settle != nil {
			intr, err = c.settle(ctx, g, *buf)
		}
		full := g != nil && errors.Is(err, unix.ENOBUFS) // more changes than the socket holds
		if _, refused := err.(*Error); full || err != nil && !refused {
			c.drop() // the rest of the dump is still to come
		}
		if full {
			intr, err = true, nil
		}
		if err != nil || !intr {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return ErrInterrupted
}

// dump reads the table once and reports whether it changed meanwhile.
func (c *Conn) dump(ctx context.Context, req *Request, buf []byte, g *Guard, kept *replies, each func(Message) error) (intr bool, err error) {
	seq := c.next()
	c.out = appendMessage(c.out[:0], req, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, seq)
	if err := c.sock.send(c.out); err != nil {
		return false, err
	}
	if kept != nil {
		kept.begin()
	}
	resume := false
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		to := buf
		if kept != nil {
			to = kept.room(buf)
		}
		b, err := c.sock.recv(ctx, to)
		if err != nil {
			return false, err
		}
		var last Message
		n, done := 0, false
		for m, next := cutMessage(b, 0); next > 0 && !done; m, next = cutMessage(b, next) {
			if g != nil && m.Port != c.sock.port {
				intr = g.Event(m) || intr
				continue
			}
			if m.Seq != seq {
				continue
			}
			intr = intr || m.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Type {
			case unix.NLMSG_DONE:
				done = true
				intr, err = c.dumpDone(m, req, intr)
			case unix.NLMSG_ERROR:
				if e := parseError(m, c.family, req); e != nil {
					return false, e
				}
			default:
				last = m
				n++
				if resume && g.Resume != nil {
					g.Resume(m)
				}
				resume = false
				if kept != nil {
					continue
				}
				if err := each(m); err != nil {
					return false, err
				}
			}
		}
		if kept != nil {
			kept.keep(b, n)
		}
		if done {
			return intr, err
		}
		if g != nil && n > 0 {
			g.broke, resume = true, true
			intr = g.Break(last) || intr
		}
	}
}

// dumpDone reads the message at the end of a dump: an error that came up in the
// middle stands in it, with its extack behind.
func (c *Conn) dumpDone(m Message, req *Request, intr bool) (bool, error) {
	if len(m.Body) < 4 {
		return intr, nil
	}
	n := -int32(binary.NativeEndian.Uint32(m.Body))
	if n <= 0 {
		return intr, nil
	}
	e := &Error{Errno: syscall.Errno(n)}
	if m.Flags&unix.NLM_F_ACK_TLVS != 0 {
		e.extack(m.Body[4:], c.family, req)
	}
	if e.Errno == unix.EINTR { // nftables: the generation changed
		return true, nil
	}
	return intr, e
}
