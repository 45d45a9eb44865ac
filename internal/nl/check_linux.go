package nl

import (
	"encoding/binary"

	"github.com/boxwire/boxwire/internal/refuse"
)

// check refuses a request with an attribute that is too long to be encoded. Such a
// request is long itself, and every attribute around the one at fault is too long as
// well: a short request needs no look, a long one only at its outermost attributes.
func (r *Request) check(family int) error {
	if len(r.Body) <= maxPayload {
		return nil
	}
	for at := headerLen(family, r.Type); at+attrHeader <= len(r.Body); {
		n := int(binary.NativeEndian.Uint16(r.Body[at:]))
		if n == tooLong {
			typ := binary.NativeEndian.Uint16(r.Body[at+2:]) & typeMask
			return refuse.Input("%s is longer than the %d bytes that an attribute of a netlink message can have", r.pathName([]uint16{typ}), maxPayload)
		}
		at += align(n)
	}
	return nil
}

func checkAll(family int, reqs []Request) error {
	for i := range reqs {
		if err := reqs[i].check(family); err != nil {
			return err
		}
	}
	return nil
}
