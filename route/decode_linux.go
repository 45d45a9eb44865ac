package route

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

var errMalformed = errors.New("malformed reply: no route in it")

// decode reads the body of an RTM_NEWROUTE message. ok is false for a route of
// another family than IPv4 and IPv6, and for an entry of the route cache.
// Attributes that are unknown here are skipped.
func decode(b []byte) (r Route, ok bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return r, false, errMalformed
	}
	af, bits := b[0], int(b[1])
	if af != unix.AF_INET && af != unix.AF_INET6 {
		return r, false, nil
	}
	r.Table, r.Protocol, r.Type = Table(b[4]), Protocol(b[5]), Type(b[7])
	if r.Scope = Scope(b[6]); r.Scope == unix.RT_SCOPE_UNIVERSE {
		r.Scope = ScopeUniverse
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	if flags&unix.RTM_F_CLONED != 0 {
		return r, false, nil
	}
	r.OnLink = flags&unix.RTNH_F_ONLINK != 0
	dst := netip.IPv4Unspecified()
	if af == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	w := nl.Walk(b[unix.SizeofRtMsg:])
	for w.Next() {
		switch w.Type() {
		case unix.RTA_DST:
			dst = addrOf(af, w.Data())
		case unix.RTA_GATEWAY:
			r.Via = addrOf(af, w.Data())
		case unix.RTA_VIA: // a gateway of the other family: family, then address
			if d := w.Data(); len(d) > 2 {
				r.Via = addrOf(uint8(binary.NativeEndian.Uint16(d)), d[2:])
			}
		case unix.RTA_OIF:
			r.Dev = int(w.U32())
		case unix.RTA_PREFSRC:
			r.Src = addrOf(af, w.Data())
		case unix.RTA_PRIORITY:
			r.Metric = w.U32()
		case unix.RTA_TABLE:
			r.Table = Table(w.U32())
		}
	}
	if err := w.Err(); err != nil {
		return r, false, err
	}
	r.Dst = netip.PrefixFrom(dst, bits)
	if !r.Dst.IsValid() {
		return r, false, errMalformed
	}
	return r, true, nil
}

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
