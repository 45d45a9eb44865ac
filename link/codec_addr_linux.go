package link

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

const ifaProto = 11 // IFA_PROTO, linux/if_addr.h, >= 5.18

// lifetimeForever is the kernel's INFINITY_LIFE_TIME, in seconds.
const lifetimeForever = math.MaxUint32

// encodeAddr builds the message that edits an address.
func encodeAddr(index int, a *Addr, how edit) nl.Request {
	if how == editDelete {
		return nl.Request{Type: unix.RTM_DELADDR, Body: appendAddr(index, a, 0), Names: addrNames}
	}
	flags := a.Flags & settable
	small := flags
	if flags > math.MaxUint8 { // the header has room for eight
		small = 0
	}
	b := appendAddr(index, a, uint8(small))
	if a.Broadcast.IsValid() {
		b = nl.AppendAttr(b, unix.IFA_BROADCAST, a.Broadcast.AsSlice())
	}
	if a.Label != "" {
		b = nl.AppendString(b, unix.IFA_LABEL, a.Label)
	}
	if small != flags {
		b = nl.AppendU32(b, unix.IFA_FLAGS, uint32(flags))
	}
	if a.Valid != 0 || a.Preferred != 0 || a.Flags&AddrDeprecated != 0 {
		valid, preferred := lifetime(a.Valid), lifetime(a.Preferred)
		switch {
		case a.Flags&AddrDeprecated != 0:
			preferred = 0
		case a.Preferred == 0:
			preferred = valid
		}
		b = nl.AppendAttr(b, unix.IFA_CACHEINFO, cacheInfo(preferred, valid))
	}
	if a.Metric != 0 {
		b = nl.AppendU32(b, unix.IFA_RT_PRIORITY, a.Metric)
	}
	if a.Protocol != 0 {
		b = nl.AppendU8(b, ifaProto, uint8(a.Protocol))
	}
	return nl.Request{Type: unix.RTM_NEWADDR, Flags: uint16(how), Body: b, Names: addrNames}
}

// defaultMetric6 is the metric of the route to an IPv6 address's subnet where none is
// given (IP6_RT_PRIO_ADDRCONF).
const defaultMetric6 = 256

// replaceAddr builds the message that makes an address, or changes it from what it
// was. The kernel leaves an IPv6 address's metric alone where none is given: the
// default is given by its number.
func replaceAddr(index int, a, was *Addr) nl.Request {
	if was != nil && was.Metric != 0 && a.Metric == 0 && a.Prefix.Addr().Is6() {
		a = new(*a)
		a.Metric = defaultMetric6
	}
	return encodeAddr(index, a, editReplace)
}

// undoReplace builds what makes an address again what it was. Of an IPv6 address with a
// lifetime the kernel leaves the route of the old metric: the lifetime goes first.
func undoReplace(index int, was, a *Addr) (reqs []nl.Request) {
	if a.Prefix.Addr().Is6() && a.Valid != 0 && a.Metric != was.Metric {
		forever := *a
		forever.Valid, forever.Preferred = 0, 0
		reqs = append(reqs, encodeAddr(index, &forever, editReplace))
	}
	return append(reqs, replaceAddr(index, was, a))
}

// undoAddr builds what takes away an address that was just made, or makes it again
// what it was before. The route to the subnet of an IPv6 address with a lifetime
// outlives the address; that of one without goes with it, so the lifetime is taken away
// first.
func undoAddr(index int, a, before *Addr) []nl.Request {
	if before != nil {
		return undoReplace(index, before, a)
	}
	del := encodeAddr(index, a, editDelete)
	if a.Prefix.Addr().Is4() || a.Valid == 0 {
		return []nl.Request{del}
	}
	forever := *a
	forever.Valid, forever.Preferred = 0, 0
	return []nl.Request{encodeAddr(index, &forever, editReplace), del}
}

// appendAddr appends a struct ifaddrmsg and the address itself.
func appendAddr(index int, a *Addr, flags uint8) []byte {
	local := a.Prefix.Addr()
	family := uint8(unix.AF_INET)
	if local.Is6() {
		family = unix.AF_INET6
	}
	b := append(make([]byte, 0, 96), family, uint8(a.Prefix.Bits()), flags, uint8(a.Scope))
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = appendIP(b, unix.IFA_LOCAL, local)
	if a.Peer.IsValid() {
		local = a.Peer
	}
	return appendIP(b, unix.IFA_ADDRESS, local)
}

// appendIP appends an address as an attribute, without an allocation.
func appendIP(b []byte, typ uint16, a netip.Addr) []byte {
	if a.Is4() {
		raw := a.As4()
		return nl.AppendAttr(b, typ, raw[:])
	}
	raw := a.As16()
	return nl.AppendAttr(b, typ, raw[:])
}

// lifetime converts to the kernel's seconds, of which 0 is none and the largest
// number is for ever.
func lifetime(d time.Duration) uint32 {
	if d == 0 {
		return lifetimeForever
	}
	return uint32((d + time.Second - 1) / time.Second)
}

// cacheInfo is a struct ifa_cacheinfo.
func cacheInfo(preferred, valid uint32) []byte {
	b := make([]byte, unix.SizeofIfaCacheinfo)
	binary.NativeEndian.PutUint32(b, preferred)
	binary.NativeEndian.PutUint32(b[4:], valid)
	return b
}

// getAddrs asks for the addresses of one link, or of all with index 0; the
// kernel filters by index when the socket is strict (>= 4.20), and the decoder
// does in any case.
func getAddrs(index int) nl.Request {
	b := make([]byte, 4, 8) // family, prefix length, flags, scope: all must be 0
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	return nl.Request{Type: unix.RTM_GETADDR, Body: b, Names: addrNames}
}

// decodeAddr reads the body of an RTM_NEWADDR message into a. The label that a
// had before is kept if it is the same, which spares a list of many addresses an
// allocation each.
func decodeAddr(a *Addr, b []byte) error {
	label := a.Label
	if len(b) < unix.SizeofIfAddrmsg {
		return errShort
	}
	*a = Addr{Flags: AddrFlags(b[2]), Scope: AddrScope(b[3]), Link: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	family, bits := b[0], int(b[1])
	var local, address netip.Addr
	w := nl.Walk(b[unix.SizeofIfAddrmsg:])
	for w.Next() {
		switch w.Type() {
		case unix.IFA_LOCAL:
			local = addrOf(family, w.Data())
		case unix.IFA_ADDRESS:
			address = addrOf(family, w.Data())
		case unix.IFA_BROADCAST:
			a.Broadcast = addrOf(family, w.Data())
		case unix.IFA_LABEL:
			a.Label = intern(w.Data(), label)
		case unix.IFA_FLAGS: // all 32 bits; the header has 8
			a.Flags = AddrFlags(w.U32())
		case unix.IFA_RT_PRIORITY:
			a.Metric = w.U32()
		case ifaProto:
			a.Protocol = AddrProtocol(w.U8())
		case unix.IFA_CACHEINFO:
			if c := w.Data(); len(c) >= 8 {
				a.Preferred = fromLifetime(binary.NativeEndian.Uint32(c))
				a.Valid = fromLifetime(binary.NativeEndian.Uint32(c[4:]))
			}
		}
	}
	if err := w.Err(); err != nil {
		return err
	}
	switch {
	case !local.IsValid(): // IPv6, unless it is point-to-point
		local = address
	case address.IsValid() && address != local:
		a.Peer = address
	}
	a.Prefix = netip.PrefixFrom(local, bits)
	if !a.Prefix.IsValid() {
		return errors.New("malformed reply: no valid address in it")
	}
	return nil
}

// intern returns the NUL-terminated name in b, without an allocation if it is
// equal to last.
func intern(b []byte, last string) string {
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	if string(b) == last {
		return last
	}
	return string(b)
}

func fromLifetime(seconds uint32) time.Duration {
	if seconds == lifetimeForever {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// addrOf reads an address of the family; the zero Addr when b does not hold one.
func addrOf(family uint8, b []byte) netip.Addr {
	switch {
	case family == unix.AF_INET && len(b) >= 4:
		return netip.AddrFrom4([4]byte(b))
	case family == unix.AF_INET6 && len(b) >= 16:
		return netip.AddrFrom16([16]byte(b))
	}
	return netip.Addr{}
}
