package route

import (
	"encoding/binary"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// attrNames names the attributes of route messages for errors.
var attrNames = map[uint16]string{
	unix.RTA_DST:       "RTA_DST",
	unix.RTA_SRC:       "RTA_SRC",
	unix.RTA_OIF:       "RTA_OIF",
	unix.RTA_GATEWAY:   "RTA_GATEWAY",
	unix.RTA_PRIORITY:  "RTA_PRIORITY",
	unix.RTA_PREFSRC:   "RTA_PREFSRC",
	unix.RTA_METRICS:   "RTA_METRICS",
	unix.RTA_MULTIPATH: "RTA_MULTIPATH",
	unix.RTA_TABLE:     "RTA_TABLE",
	unix.RTA_VIA:       "RTA_VIA",
	unix.RTA_ENCAP:     "RTA_ENCAP",
}

func names(path []uint16) string { return attrNames[path[0]] }

func afOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// add builds the message that adds or replaces a route; flags tell which.
func add(r *Route, flags uint16) nl.Request {
	h := header{family: afOf(r.Dst.Addr()), dstLen: uint8(r.Dst.Bits()), protocol: r.Protocol, typ: r.Type, scope: uint8(r.Scope)}
	if h.protocol == 0 {
		h.protocol = ProtoStatic
	}
	if h.typ == 0 {
		h.typ = Unicast
	}
	switch {
	case r.Scope == ScopeUniverse || h.family == unix.AF_INET6:
		h.scope = unix.RT_SCOPE_UNIVERSE
	case r.Scope != 0:
	case h.typ == Local:
		h.scope = unix.RT_SCOPE_HOST
	case !r.Via.IsValid() && r.Dev != 0:
		h.scope = unix.RT_SCOPE_LINK
	}
	if r.OnLink {
		h.flags = unix.RTNH_F_ONLINK
	}
	return nl.Request{Type: unix.RTM_NEWROUTE, Flags: flags, Body: appendRoute(nil, h, r), Names: names}
}

// remove builds the message that deletes a route. A field that is not given
// matches any.
func remove(r *Route) nl.Request {
	h := header{family: afOf(r.Dst.Addr()), dstLen: uint8(r.Dst.Bits()), protocol: r.Protocol, typ: r.Type, scope: uint8(r.Scope)}
	switch r.Scope {
	case 0:
		h.scope = unix.RT_SCOPE_NOWHERE // fib_table_delete: any
	case ScopeUniverse:
		h.scope = unix.RT_SCOPE_UNIVERSE
	}
	return nl.Request{Type: unix.RTM_DELROUTE, Body: appendRoute(nil, h, r), Names: names}
}

// header is struct rtmsg but for the table, which is an attribute as well.
type header struct {
	family, dstLen uint8
	protocol       Protocol
	scope          uint8
	typ            Type
	flags          uint32
}

func (h header) append(b []byte, table Table) []byte {
	short := uint8(unix.RT_TABLE_COMPAT)
	if table < 256 {
		short = uint8(table)
	}
	b = append(b, h.family, h.dstLen, 0, 0, short, uint8(h.protocol), h.scope, uint8(h.typ))
	return binary.NativeEndian.AppendUint32(b, h.flags)
}

func appendRoute(b []byte, h header, r *Route) []byte {
	table := r.Table
	if table == 0 {
		table = TableMain
	}
	if b == nil {
		b = make([]byte, 0, 112)
	}
	b = h.append(b, table)
	if table >= 256 {
		b = nl.AppendU32(b, unix.RTA_TABLE, uint32(table))
	}
	if r.Dst.Bits() > 0 {
		b = appendAddr(b, unix.RTA_DST, r.Dst.Addr())
	}
	if r.Via.IsValid() {
		b = appendAddr(b, unix.RTA_GATEWAY, r.Via)
	}
	if r.Dev != 0 {
		b = nl.AppendU32(b, unix.RTA_OIF, uint32(r.Dev))
	}
	if r.Src.IsValid() {
		b = appendAddr(b, unix.RTA_PREFSRC, r.Src)
	}
	if r.Metric != 0 {
		b = nl.AppendU32(b, unix.RTA_PRIORITY, r.Metric)
	}
	return b
}

func appendAddr(b []byte, typ uint16, a netip.Addr) []byte {
	if a.Is4() {
		raw := a.As4()
		return nl.AppendAttr(b, typ, raw[:])
	}
	raw := a.As16()
	return nl.AppendAttr(b, typ, raw[:])
}

// dump builds the question for the routes of one family. Strict checking is on
// on the socket, so that the kernel filters (>= 4.20).
func dump(af uint8, f Filter) nl.Request {
	b := header{family: af, protocol: f.Protocol, typ: f.Type}.append(make([]byte, 0, 32), f.Table)
	if f.Table >= 256 {
		b = nl.AppendU32(b, unix.RTA_TABLE, uint32(f.Table))
	}
	if f.Dev != 0 {
		b = nl.AppendU32(b, unix.RTA_OIF, uint32(f.Dev))
	}
	return nl.Request{Type: unix.RTM_GETROUTE, Body: b, Names: names}
}
