package nl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Extended acknowledgement attributes (linux/netlink.h: enum nlmsgerr_attrs).
const (
	extackMsg      = 1
	extackOffset   = 2
	extackMissType = 5 // >= 6.1
	extackMissNest = 6 // >= 6.1
)

func errnoName(e syscall.Errno) string { return unix.ErrnoName(e) }

// parseError reads the body of an NLMSG_ERROR message; nil means that it is an
// acknowledgement. req is the request it answers, for the name of the offender.
func parseError(m Message, family int, req *Request) *Error {
	if len(m.Body) < 4 {
		return &Error{Errno: unix.EBADMSG, Msg: "short error message"}
	}
	errno := -int32(binary.NativeEndian.Uint32(m.Body))
	if errno == 0 {
		return nil
	}
	e := &Error{Errno: syscall.Errno(errno)}
	if m.Flags&unix.NLM_F_ACK_TLVS == 0 || len(m.Body) < 4+unix.SizeofNlMsghdr {
		return e
	}
	skip := 4 + unix.SizeofNlMsghdr
	if m.Flags&unix.NLM_F_CAPPED == 0 { // the whole request is echoed first
		skip = 4 + align(int(binary.NativeEndian.Uint32(m.Body[4:])))
	}
	if skip > len(m.Body) {
		return e
	}
	e.extack(m.Body[skip:], family, req)
	return e
}

// isErrno reports whether an NLMSG_ERROR message has an errno.
func isErrno(m Message, errno syscall.Errno) bool {
	return len(m.Body) >= 4 && -int32(binary.NativeEndian.Uint32(m.Body)) == int32(errno)
}

// extack reads the attributes behind an error. They are advice, so malformed ones are
// ignored.
func (e *Error) extack(b []byte, family int, req *Request) {
	nest, missing := -1, -1
	for w := Walk(b); w.Next(); {
		switch w.Type() {
		case extackMsg:
			e.Msg = w.String()
		case extackOffset:
			if req != nil {
				e.Attr = req.attrName(family, int(w.U32()))
			}
		case extackMissNest:
			nest = int(w.U32())
		case extackMissType:
			missing = int(w.U32())
		}
	}
	if missing >= 0 && req != nil {
		path := []uint16{uint16(missing)}
		if nest >= 0 {
			path = append(attrPath(req.Body, headerLen(family, req.Type), nest-unix.SizeofNlMsghdr), path...)
		}
		e.Attr = "missing " + req.pathName(path)
	}
}

// attrName names the attribute of the request that stands at an offset which
// counts from the start of its netlink header.
func (r *Request) attrName(family, offset int) string {
	path := attrPath(r.Body, headerLen(family, r.Type), offset-unix.SizeofNlMsghdr)
	if len(path) == 0 {
		return ""
	}
	return r.pathName(path)
}

func (r *Request) pathName(path []uint16) string {
	if r.Names != nil {
		if s := r.Names(path); s != "" {
			return s
		}
	}
	var b bytes.Buffer
	b.WriteString("attribute ")
	for i, t := range path {
		if i > 0 {
			b.WriteByte('/')
		}
		fmt.Fprint(&b, t)
	}
	return b.String()
}

// attrPath returns the types of the attributes that enclose offset in b, from
// the outermost to the one that begins there.
func attrPath(b []byte, start, offset int) []uint16 {
	var path []uint16
	for start+attrHeader <= len(b) {
		n := int(binary.NativeEndian.Uint16(b[start:]))
		if n < attrHeader || start+n > len(b) || offset < start {
			return nil
		}
		if offset >= start+align(n) {
			start += align(n)
			continue
		}
		path = append(path, binary.NativeEndian.Uint16(b[start+2:])&typeMask)
		if offset < start+attrHeader {
			return path
		}
		b, start = b[:start+n], start+attrHeader
	}
	return path
}

// headerLen is the size of the fixed header between a netlink header and the
// attributes.
func headerLen(family int, typ uint16) int {
	switch family {
	case unix.NETLINK_NETFILTER, unix.NETLINK_GENERIC:
		return 4 // struct nfgenmsg, struct genlmsghdr
	}
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_GETLINK, unix.RTM_SETLINK,
		unix.RTM_NEWLINKPROP, unix.RTM_DELLINKPROP:
		return unix.SizeofIfInfomsg
	case unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_GETADDR:
		return unix.SizeofIfAddrmsg
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_GETQDISC, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER, unix.RTM_GETTFILTER:
		return 20 // struct tcmsg
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP, unix.RTM_GETNEXTHOP:
		return 8 // struct nhmsg
	}
	return unix.SizeofRtMsg // routes, rules and neighbours: 12 bytes each
}
