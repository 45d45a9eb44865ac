package nl

import (
	"context"
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"
)

// reader reads the answer to one request for a table.
type reader struct {
	c     *Conn
	req   *Request
	guard Guard // may be nil

	seq     uint32
	invalid bool // the table changed meanwhile
	done    bool // the end has come
	entries int  // of the last datagram
	split   bool // more than one datagram had entries, or may have
}

// table asks for the table and lets to take all of it.
func (r *reader) table(ctx context.Context, buf []byte, to consumer) error {
	if r.guard != nil {
		r.guard.begin()
		if err := r.c.join(r.guard.watches()); err != nil {
			return err
		}
	}
	if err := r.send(r.req, unix.NLM_F_DUMP); err != nil {
		return err
	}
	for !r.done {
		if err := to.take(ctx, r, buf); err != nil {
			return err
		}
	}
	if r.guard != nil && r.split && !r.invalid && r.guard.barrier() != nil {
		return r.barrier(ctx, buf)
	}
	return nil
}

func (r *reader) send(req *Request, flags uint16) error {
	r.seq = r.c.next()
	r.c.out = r.c.append(r.c.out[:0], req, unix.NLM_F_REQUEST|flags, r.seq)
	return r.c.sock.send(r.c.out)
}

// next reads a datagram into buf and returns it. Its entries go to each, which may
// be nil.
func (r *reader) next(ctx context.Context, buf []byte, each func(Message) error) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := r.c.recv(ctx, buf)
	if err != nil {
		return nil, err
	}
	var last Message
	r.entries = 0
	for m, next := cutMessage(b, 0); next > 0 && !r.done; m, next = cutMessage(b, next) {
		entry, err := r.answer(m)
		if entry {
			last = m
			err = r.entry(m, each)
		}
		if err != nil {
			return nil, err
		}
	}
	if r.entries > 0 && !r.done {
		r.split = true
		if r.guard != nil {
			r.invalid = r.guard.boundary(last) || r.invalid
		}
	}
	return b, nil
}

// entry hands over an entry of the table.
func (r *reader) entry(m Message, each func(Message) error) error {
	r.entries++
	if r.entries == 1 && r.split && r.guard != nil {
		r.guard.resume(m)
	}
	if each == nil {
		return nil
	}
	return each(m)
}

// answer reads a message and reports whether it is an entry of the table.
func (r *reader) answer(m Message) (entry bool, err error) {
	if r.guard != nil && m.Port != r.c.sock.port {
		r.invalid = r.guard.change(m) || r.invalid
		return false, nil
	}
	if m.Seq != r.seq { // it answers an exchange that was given up
		return false, nil
	}
	r.invalid = r.invalid || m.Flags&unix.NLM_F_DUMP_INTR != 0
	switch m.Type {
	case unix.NLMSG_DONE:
		r.done = true
		return false, r.end(m)
	case unix.NLMSG_ERROR:
		if e := r.c.refusal(m, r.req); e != nil {
			return false, e
		}
		return false, nil
	}
	return true, nil
}

// end reads the message at the end of a dump. An error in the middle stands there,
// with its extack behind.
func (r *reader) end(m Message) error {
	if len(m.Body) < 4 {
		return nil
	}
	n := -int32(binary.NativeEndian.Uint32(m.Body))
	if n <= 0 {
		return nil
	}
	e := &Error{Errno: syscall.Errno(n)}
	if e.Errno == unix.EINTR { // nftables: the generation changed
		r.invalid = true
		return nil
	}
	if m.Flags&unix.NLM_F_ACK_TLVS != 0 {
		e.extack(m.Body[4:], r.c.family, r.req)
	}
	return e
}

// barrier sends the guard's request and reads the events up to the answer.
func (r *reader) barrier(ctx context.Context, buf []byte) error {
	if err := r.send(r.guard.barrier(), unix.NLM_F_ACK); err != nil {
		return err
	}
	for {
		b, err := r.c.recv(ctx, buf)
		if err != nil {
			return err
		}
		for m, next := cutMessage(b, 0); next > 0; m, next = cutMessage(b, next) {
			switch {
			case m.Port != r.c.sock.port:
				r.invalid = r.guard.change(m) || r.invalid
			case m.Seq == r.seq && m.Type == unix.NLMSG_ERROR:
				return nil
			}
		}
	}
}
