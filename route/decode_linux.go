package route

import (
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

var errMalformed = errors.New("malformed reply: no route in it")

// unlisted are flags of a message that say nothing about the route in it, or
// have a field of their own.
const unlisted = unix.RTM_F_NOTIFY | unix.RTM_F_CLONED | unix.RTM_F_EQUALIZE | unix.RTM_F_PREFIX |
	unix.RTM_F_LOOKUP_TABLE | unix.RTM_F_FIB_MATCH | unix.RTNH_F_ONLINK

// decode reads the body of an RTM_NEWROUTE or RTM_DELROUTE message. ok is false
// for a route of another family than IPv4 and IPv6, for an entry of the route
// cache and for one that the filter does not choose. Attributes that are unknown
// here are skipped.
func decode(b []byte, r *Route, f *Filter) (ok bool, err error) {
	cached, ok, err := decodeAny(b, r)
	if !ok || err != nil || cached || !f.match(r) {
		return false, err
	}
	r.tidy()
	return true, nil
}

// tidy takes out what the kernel adds for those who do not know next-hop
// objects, and the link that it makes up for routes that lead nowhere: what is
// listed can be added again.
func (r *Route) tidy() {
	if r.NextHop != 0 {
		r.Via, r.Dev, r.OnLink, r.Encap, r.Hops = netip.Addr{}, 0, false, nil, nil
	}
	if r.Type.leadsNowhere() {
		r.Via, r.Dev = netip.Addr{}, 0
	}
}

// decodeAny reads a route as it travels; cached is true for what a lookup
// resolved and for entries of the route cache.
func decodeAny(b []byte, r *Route) (cached, ok bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return false, false, errMalformed
	}
	af := b[0]
	if af != unix.AF_INET && af != unix.AF_INET6 {
		return false, false, nil
	}
	*r = Route{Table: Table(b[4]), Protocol: protocolOf(b[5]), Type: Type(b[7]), TOS: b[3]}
	if r.Scope = Scope(b[6]); r.Scope == unix.RT_SCOPE_UNIVERSE {
		r.Scope = ScopeUniverse
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	r.OnLink = flags&unix.RTNH_F_ONLINK != 0
	r.Flags = Flags(flags &^ unlisted)
	dst := netip.IPv4Unspecified()
	if af == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	from := dst
	var kind uint16
	var encap []byte
	w := nl.Walk(b[unix.SizeofRtMsg:])
	for w.Next() {
		switch w.Type() {
		case unix.RTA_DST:
			dst = addrOf(af, w.Data())
		case unix.RTA_SRC:
			from = addrOf(af, w.Data())
		case unix.RTA_GATEWAY:
			r.Via = addrOf(af, w.Data())
		case unix.RTA_VIA:
			r.Via = readVia(w.Data())
		case unix.RTA_OIF:
			r.Dev = int(w.U32())
		case unix.RTA_PREFSRC:
			r.Src = addrOf(af, w.Data())
		case unix.RTA_PRIORITY:
			r.Metric = w.U32()
		case unix.RTA_TABLE:
			r.Table = Table(w.U32())
		case unix.RTA_METRICS:
			r.Metrics, err = readMetrics(w.Nested())
		case unix.RTA_MULTIPATH:
			r.Hops, err = readHops(af, w.Data())
		case unix.RTA_FLOW:
			r.Realm = readRealm(w.U32())
		case unix.RTA_PREF:
			r.Pref = Preference(w.U8())
		case unix.RTA_CACHEINFO:
			r.Expires = readExpiry(w.Data())
		case unix.RTA_ENCAP_TYPE:
			kind = w.U16()
		case unix.RTA_ENCAP:
			encap = w.Data()
		case rtaNHID:
			r.NextHop = w.U32()
		}
		if err != nil {
			return false, false, err
		}
	}
	if err := w.Err(); err != nil {
		return false, false, err
	}
	if kind != 0 {
		r.Encap = readEncap(kind, encap)
	}
	r.Dst = netip.PrefixFrom(dst, int(b[1]))
	if b[2] > 0 {
		r.From = netip.PrefixFrom(from, int(b[2]))
	}
	if !r.Dst.IsValid() {
		return false, false, errMalformed
	}
	return flags&unix.RTM_F_CLONED != 0, true, nil
}

// protocolOf returns the protocol with the kernel's number.
func protocolOf(b uint8) Protocol { return cmp.Or(Protocol(b), ProtoUnspec) }

// readVia reads a gateway of another family (struct rtvia).
func readVia(b []byte) netip.Addr {
	if len(b) < 2 {
		return netip.Addr{}
	}
	return addrOf(uint8(binary.NativeEndian.Uint16(b)), b[2:])
}

func readRealm(v uint32) Realm { return Realm{From: uint16(v >> 16), To: uint16(v)} }

// readExpiry reads what is left of a route's life from a struct rta_cacheinfo,
// in hundredths of a second there (USER_HZ), and rounds it up to seconds.
func readExpiry(b []byte) time.Duration {
	if len(b) < 12 {
		return 0
	}
	ticks := int32(binary.NativeEndian.Uint32(b[8:]))
	if ticks <= 0 {
		return 0
	}
	return (time.Duration(ticks) + 99) / 100 * time.Second
}

// readHops reads a sequence of struct rtnexthop with their attributes.
func readHops(af uint8, b []byte) ([]Hop, error) {
	var hops []Hop
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return nil, errMalformed
		}
		h := Hop{
			Weight: int(b[3]) + 1, Dev: int(binary.NativeEndian.Uint32(b[4:])),
			OnLink: b[2]&unix.RTNH_F_ONLINK != 0, Flags: Flags(b[2] &^ unix.RTNH_F_ONLINK),
		}
		var kind uint16
		var encap []byte
		w := nl.Walk(b[unix.SizeofRtNexthop:n])
		for w.Next() {
			switch w.Type() {
			case unix.RTA_GATEWAY:
				h.Via = addrOf(af, w.Data())
			case unix.RTA_VIA:
				h.Via = readVia(w.Data())
			case unix.RTA_FLOW:
				h.Realm = readRealm(w.U32())
			case unix.RTA_ENCAP_TYPE:
				kind = w.U16()
			case unix.RTA_ENCAP:
				encap = w.Data()
			}
		}
		if err := w.Err(); err != nil {
			return nil, err
		}
		if kind != 0 {
			h.Encap = readEncap(kind, encap)
		}
		hops = append(hops, h)
		b = b[min((n+3)&^3, len(b)):]
	}
	return hops, nil
}

// readMetrics reads the attributes inside RTA_METRICS. Those that are unknown
// here are skipped; nil is none at all.
func readMetrics(w nl.Walker) (*Metrics, error) {
	var m Metrics
	for w.Next() {
		switch t := w.Type(); {
		case t == rtaxLock:
			m.Lock = Locks(w.U32())
		case t == rtaxCCAlgo:
			m.Congestion = w.String()
		default:
			if i := metricIndex[min(t, uint16(len(metricIndex)-1))]; i > 0 {
				m.setValue(i-1, w.U32())
			}
		}
	}
	if m == (Metrics{}) {
		return nil, w.Err()
	}
	return &m, w.Err()
}

// metricIndex gives an attribute's place in metrics, counted from 1.
var metricIndex = func() (index [rtaxMetrics + 1]int) {
	for i, d := range metrics {
		index[d.attr] = i + 1
	}
	return index
}()

// addrOf reads an address; the zero Addr where b holds none.
func addrOf(af uint8, b []byte) netip.Addr {
	switch {
	case af == unix.AF_INET && len(b) >= 4:
		return netip.AddrFrom4([4]byte(b))
	case af == unix.AF_INET6 && len(b) >= 16:
		return netip.AddrFrom16([16]byte(b))
	}
	return netip.Addr{}
}
