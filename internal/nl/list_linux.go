package nl

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// List reads a table as DumpGuarded does and makes a list of it. decode gets each
// message of the dump that was complete, and a zero item for it, and reports
// whether the item belongs in the list. g may be nil.
//
// The kernel does not say how long a table is. Its replies are kept until the last
// has come, and the messages counted: the list is made in one piece of the right
// size, and the connection is free while it is decoded.
func List[T any](ctx context.Context, c *Conn, req Request, g Guard, decode func(m Message, item *T) (bool, error)) ([]T, error) {
	var kept replies
	defer kept.free()
	if err := c.dump(ctx, &req, g, maxDumps, &kept); err != nil || kept.count == 0 {
		return nil, err
	}
	all := make([]T, kept.count)
	n := 0
	for _, b := range kept.all {
		for m, next := cutMessage(b, 0); next > 0; m, next = cutMessage(b, next) {
			if m.Type < unix.NLMSG_MIN_TYPE { // that the dump is done
				continue
			}
			in, err := decode(m, &all[n])
			if err != nil {
				return nil, err
			}
			if in {
				n++
			} else {
				clear(all[n : n+1])
			}
		}
	}
	if n < len(all)/2 { // most of them were not wanted
		return slices.Clone(all[:n]), nil
	}
	return slices.Clip(all[:n]), nil
}

// replies are the datagrams that one dump brought entries in: an event comes in a
// datagram of its own. A short one is copied out of the connection's buffer. After
// a long one, which others will follow, the next is read to where it stays.
type replies struct {
	count  int // entries in them
	all    [][]byte
	more   bool           // the last one was long
	blocks []*[block]byte // that the long ones lie in
	used   int            // bytes of the last block
}

const (
	longest   = 1 << 16  // the most that one reply is expected to have
	longReply = 16 << 10 // the kernel fills those of a long table up to 32 KiB
	block     = 128 << 10
)

var blocks = sync.Pool{New: func() any { return new([block]byte) }}

// begin forgets what a try before has brought.
func (r *replies) begin() {
	r.free()
	*r = replies{}
}

// take keeps the next reply.
func (r *replies) take(ctx context.Context, from *reader, short []byte) error {
	b, err := from.next(ctx, r.room(short), nil)
	if err == nil {
		r.keep(b, from.entries)
	}
	return err
}

// room is where the next reply is read to; short is for one that is not kept there.
func (r *replies) room(short []byte) []byte {
	if !r.more {
		return short
	}
	if len(r.blocks) == 0 || r.used+longest > block {
		r.blocks, r.used = append(r.blocks, blocks.Get().(*[block]byte)), 0
	}
	return r.blocks[len(r.blocks)-1][r.used:][:longest]
}

// keep keeps a reply with n entries that was read into room.
func (r *replies) keep(b []byte, n int) {
	there := r.more
	r.more = len(b) >= longReply
	if n == 0 {
		return
	}
	if there {
		r.used += len(b)
	} else {
		b = bytes.Clone(b)
	}
	r.all, r.count = append(r.all, b), r.count+n
}

func (r *replies) free() {
	for _, b := range r.blocks {
		blocks.Put(b)
	}
	r.blocks = nil
}
