package rtnl

import (
	"context"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// Addr is an address of a link.
type Addr struct {
	Link  int          // index
	Local netip.Prefix // of a point-to-point link, its own address and not the peer's
	Flags uint32       // unix.IFA_F_TENTATIVE, ...
}

// Addrs reads the addresses of a family (unix.AF_INET, ...) in the namespace, or all
// for unix.AF_UNSPEC.
func Addrs(ctx context.Context, ns nsconn.NS, family byte) ([]Addr, error) {
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0] = family
	return dump(ctx, ns, unix.RTM_GETADDR, body, DecodeAddr)
}

var addrSizes = sizes{unix.IFA_LOCAL: 0, unix.IFA_ADDRESS: 0, unix.IFA_FLAGS: 4}

// DecodeAddr decodes the body of a RTM_NEWADDR message. The address of a family other
// than IPv4 and IPv6 is zero.
func DecodeAddr(body []byte) (a Addr, err error) {
	var m rtnetlink.AddressMessage
	known := addrSizes
	if !isIP(body) {
		known = nil
	}
	if err := decode(&m, body, unix.SizeofIfAddrmsg, known, nil); err != nil {
		return a, err
	}
	a.Link, a.Flags = int(int32(m.Index)), uint32(m.Flags)
	if attrs := m.Attributes; attrs != nil {
		local := attrs.Local
		if local == nil {
			local = attrs.Address
		}
		a.Local = netip.PrefixFrom(addr(local), int(m.PrefixLength))
		if attrs.Flags != 0 { // all 32 bits
			a.Flags = attrs.Flags
		}
	}
	return a, nil
}

// isIP reports whether the first byte of a message is IPv4 or IPv6.
func isIP(body []byte) bool {
	return len(body) > 0 && (body[0] == unix.AF_INET || body[0] == unix.AF_INET6)
}
