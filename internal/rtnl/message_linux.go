package rtnl

import (
	"context"
	"encoding"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"golang.org/x/sys/unix"
)

// sizes are the attributes that rtnetlink may decode, with the length that it expects;
// 0 is any.
type sizes map[uint16]int

// decode has rtnetlink decode the header and the known attributes of a message. others
// gets each other attribute, unless it is nil.
func decode(to encoding.BinaryUnmarshaler, body []byte, header int, known sizes, others func(w *nl.Walker)) error {
	if len(body) < header {
		return fmt.Errorf("malformed reply: %d bytes, and the header has %d", len(body), header)
	}
	b := append(make([]byte, 0, 256), body[:header]...)
	w := nl.Walk(body[header:])
	for w.Next() {
		size, ok := known[w.Type()]
		data := w.Data()
		switch {
		case !ok:
			if others != nil {
				others(&w)
			}
			continue
		case len(data) < size:
			return fmt.Errorf("malformed reply: attribute %d has %d bytes, want %d", w.Type(), len(data), size)
		case size > 0:
			data = data[:size]
		}
		b = nl.AppendAttr(b, w.Type(), data)
	}
	if err := w.Err(); err != nil {
		return err
	}
	return to.UnmarshalBinary(b)
}

// dump reads a table of the namespace.
func dump[T any](ctx context.Context, ns nsconn.NS, typ uint16, body []byte, decode func([]byte) (T, error)) (all []T, err error) {
	c, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	err = c.Dump(ctx, nl.Request{Type: typ, Body: body}, func() { all = all[:0] }, func(m nl.Message) error {
		v, err := decode(m.Body)
		all = append(all, v)
		return err
	})
	return all, err
}

// get reads one entry.
func get[T any](ctx context.Context, ns nsconn.NS, typ uint16, body []byte, decode func([]byte) (T, error)) (v T, err error) {
	c, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return v, err
	}
	err = c.Call(ctx, nl.Request{Type: typ, Body: body}, func(m nl.Message) (err error) {
		v, err = decode(m.Body)
		return err
	})
	return v, err
}

func familyOf(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addr is the address in bytes, or the zero Addr.
func addr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}
