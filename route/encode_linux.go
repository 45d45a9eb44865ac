package route

import (
	"encoding/binary"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

const rtaNHID = 30 // RTA_NH_ID

// attrNames names the attributes of route messages for errors.
var attrNames = map[uint16]string{
	unix.RTA_DST: "RTA_DST", unix.RTA_SRC: "RTA_SRC", unix.RTA_IIF: "RTA_IIF", unix.RTA_OIF: "RTA_OIF",
	unix.RTA_GATEWAY: "RTA_GATEWAY", unix.RTA_PRIORITY: "RTA_PRIORITY", unix.RTA_PREFSRC: "RTA_PREFSRC",
	unix.RTA_METRICS: "RTA_METRICS", unix.RTA_MULTIPATH: "RTA_MULTIPATH", unix.RTA_FLOW: "RTA_FLOW",
	unix.RTA_TABLE: "RTA_TABLE", unix.RTA_MARK: "RTA_MARK", unix.RTA_VIA: "RTA_VIA", unix.RTA_PREF: "RTA_PREF",
	unix.RTA_ENCAP_TYPE: "RTA_ENCAP_TYPE", unix.RTA_ENCAP: "RTA_ENCAP", unix.RTA_EXPIRES: "RTA_EXPIRES",
	unix.RTA_UID: "RTA_UID", unix.RTA_IP_PROTO: "RTA_IP_PROTO", unix.RTA_SPORT: "RTA_SPORT", unix.RTA_DPORT: "RTA_DPORT",
	rtaNHID: "RTA_NH_ID",
}

func names(path []uint16) string { return attrNames[path[0]] }

func afOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

var verbFlags = [...]uint16{
	verbAdd:     unix.NLM_F_CREATE | unix.NLM_F_EXCL,
	verbReplace: unix.NLM_F_CREATE | unix.NLM_F_REPLACE,
	verbChange:  unix.NLM_F_REPLACE,
	verbAppend:  unix.NLM_F_CREATE | unix.NLM_F_APPEND,
	verbDelete:  0,
}

// request builds the message for the verb; its body is appended to b.
func (r *Route) request(b []byte, v verb) nl.Request {
	if v == verbDelete {
		return nl.Request{Type: unix.RTM_DELROUTE, Body: r.appendDelete(b), Names: names}
	}
	return nl.Request{Type: unix.RTM_NEWROUTE, Flags: verbFlags[v], Body: r.appendAdd(b), Names: names}
}

// appendAdd builds the body that adds or replaces a route.
func (r *Route) appendAdd(b []byte) []byte {
	h := r.header()
	if h.protocol == 0 {
		h.protocol = ProtoStatic
	}
	if h.typ == 0 {
		h.typ = TypeUnicast
	}
	h.scope = uint8(r.scope()) // ScopeUniverse is 0 in 8 bits
	if r.OnLink {
		h.flags = unix.RTNH_F_ONLINK
	}
	b = r.appendKey(b, h)
	b = appendEncap(b, unix.RTA_ENCAP_TYPE, unix.RTA_ENCAP, r.Encap)
	b = appendRealm(b, r.Realm)
	b = r.Metrics.append(b)
	if r.Expires != 0 {
		b = nl.AppendU32(b, unix.RTA_EXPIRES, uint32(r.Expires.Seconds()))
	}
	if r.Pref != PrefMedium {
		b = nl.AppendU8(b, unix.RTA_PREF, uint8(r.Pref))
	}
	return b
}

// appendDelete builds the body that deletes a route. A field that is not given
// matches any.
func (r *Route) appendDelete(b []byte) []byte {
	h := r.header()
	h.scope = uint8(r.Scope)
	if r.Scope == 0 {
		h.scope = unix.RT_SCOPE_NOWHERE // fib_table_delete: any
	}
	return r.appendKey(b, h)
}

// header is struct rtmsg but for the table, which is an attribute as well.
type header struct {
	family, dstLen, srcLen, tos uint8
	protocol                    Protocol
	scope                       uint8
	typ                         Type
	flags                       uint32
}

func (r *Route) header() header {
	return header{
		family: afOf(r.Dst.Addr()), dstLen: uint8(r.Dst.Bits()), srcLen: uint8(max(r.From.Bits(), 0)), tos: r.TOS,
		protocol: r.Protocol, typ: r.Type,
	}
}

func (h header) append(b []byte, table Table) []byte {
	short := uint8(unix.RT_TABLE_COMPAT)
	if table < 256 {
		short = uint8(table)
	}
	b = append(b, h.family, h.dstLen, h.srcLen, h.tos, short, uint8(h.protocol), h.scope, uint8(h.typ))
	return binary.NativeEndian.AppendUint32(b, h.flags)
}

// appendKey appends the header and what identifies a route: the attributes that
// a delete compares.
func (r *Route) appendKey(b []byte, h header) []byte {
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
	if r.From.Bits() > 0 {
		b = appendAddr(b, unix.RTA_SRC, r.From.Addr())
	}
	b = appendVia(b, r.is4(), r.Via)
	if r.Dev != 0 {
		b = nl.AppendU32(b, unix.RTA_OIF, uint32(r.Dev))
	}
	if r.Src.IsValid() {
		b = appendAddr(b, unix.RTA_PREFSRC, r.Src)
	}
	if r.Metric != 0 {
		b = nl.AppendU32(b, unix.RTA_PRIORITY, r.Metric)
	}
	if r.NextHop != 0 {
		b = nl.AppendU32(b, rtaNHID, r.NextHop)
	}
	if len(r.Hops) > 0 {
		var at int
		b, at = nl.Begin(b, unix.RTA_MULTIPATH)
		for i := range r.Hops {
			b = r.Hops[i].append(b, r.is4())
		}
		nl.End(b, at)
	}
	return b
}

// append appends a struct rtnexthop and its attributes.
func (h *Hop) append(b []byte, is4 bool) []byte {
	at := len(b)
	flags := uint8(0)
	if h.OnLink {
		flags = unix.RTNH_F_ONLINK
	}
	b = append(b, 0, 0, flags, uint8(h.Weight-1))
	b = binary.NativeEndian.AppendUint32(b, uint32(h.Dev))
	b = appendVia(b, is4, h.Via)
	b = appendEncap(b, unix.RTA_ENCAP_TYPE, unix.RTA_ENCAP, h.Encap)
	b = appendRealm(b, h.Realm)
	binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at))
	return b
}

// appendVia appends a gateway: of the destination's family, or as family and
// address (struct rtvia).
func appendVia(b []byte, is4 bool, via netip.Addr) []byte {
	switch {
	case !via.IsValid():
		return b
	case is4 && via.Is6():
		raw := via.As16()
		return nl.AppendAttr(b, unix.RTA_VIA, append(binary.NativeEndian.AppendUint16(nil, unix.AF_INET6), raw[:]...))
	}
	return appendAddr(b, unix.RTA_GATEWAY, via)
}

func appendRealm(b []byte, r Realm) []byte {
	if r == (Realm{}) {
		return b
	}
	return nl.AppendU32(b, unix.RTA_FLOW, uint32(r.From)<<16|uint32(r.To))
}

func (m *Metrics) append(b []byte) []byte {
	if m == nil || *m == (Metrics{}) {
		return b
	}
	b, at := nl.Begin(b, unix.RTA_METRICS)
	if m.Lock != 0 {
		b = nl.AppendU32(b, rtaxLock, uint32(m.Lock))
	}
	for i, d := range metrics {
		if v := m.value(i); v != 0 {
			b = nl.AppendU32(b, d.attr, v)
		}
	}
	if m.Congestion != "" {
		b = nl.AppendAttr(b, rtaxCCAlgo, []byte(m.Congestion))
	}
	nl.End(b, at)
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
	// ProtoUnspec is 0 in 8 bits: any.
	b := header{family: af, protocol: f.Protocol, typ: f.Type}.append(make([]byte, 0, 32), f.Table)
	if f.Table >= 256 {
		b = nl.AppendU32(b, unix.RTA_TABLE, uint32(f.Table))
	}
	if f.Dev != 0 {
		b = nl.AppendU32(b, unix.RTA_OIF, uint32(f.Dev))
	}
	return nl.Request{Type: unix.RTM_GETROUTE, Body: b, Names: names}
}
