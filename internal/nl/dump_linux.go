package nl

import (
	"context"
	"encoding/binary"
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
	if err := c.acquire(ctx); err != nil {
		return err
	}
	defer c.release()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for range maxDumps {
		if reset != nil {
			reset()
		}
		intr, err := c.dump(ctx, &req, *buf, each)
		if _, refused := err.(*Error); err != nil && !refused {
			c.drop() // the rest of the dump is still to come
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
func (c *Conn) dump(ctx context.Context, req *Request, buf []byte, each func(Message) error) (intr bool, err error) {
	seq := c.next()
	c.out = appendMessage(c.out[:0], req, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, seq)
	if err := c.sock.send(c.out); err != nil {
		return false, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		b, err := c.sock.recv(ctx, buf)
		if err != nil {
			return false, err
		}
		for m, rest, ok := cutMessage(b); ok; m, rest, ok = cutMessage(rest) {
			if m.Seq != seq {
				continue
			}
			intr = intr || m.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Type {
			case unix.NLMSG_DONE:
				return c.dumpDone(m, req, intr)
			case unix.NLMSG_ERROR:
				if e := parseError(m, c.family, req); e != nil {
					return false, e
				}
			default:
				if err := each(m); err != nil {
					return false, err
				}
			}
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
