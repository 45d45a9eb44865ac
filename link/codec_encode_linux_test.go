package link

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/jsimonetti/rtnetlink/v2/driver"
	"golang.org/x/sys/unix"
)

// The requests of rtnetlink's own encoder, an independent one, are compared
// byte by byte, those for a veth by attributes. The encoder does not mark
// IFLA_LINKINFO as nested, which is put right.
func TestNewLinkBytesEqualIndependentEncoder(t *testing.T) {
	t.Parallel()
	master := uint32(7)
	mac, peerMAC := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	for _, c := range []struct {
		name string
		spec Spec
		fd   int
		want rtnetlink.LinkMessage
	}{
		{"bridge", Spec{Name: "br0", Kind: Bridge{}}, -1, rtnetlink.LinkMessage{
			Attributes: &rtnetlink.LinkAttributes{Name: "br0", Info: &rtnetlink.LinkInfo{Kind: "bridge"}},
		}},
		{"bridge with everything", Spec{Name: "br0", MTU: 1400, MAC: mac, Index: 12, Master: Ref{Index: 7}, Up: true, Kind: Bridge{}}, -1, rtnetlink.LinkMessage{
			Index: 12, Flags: unix.IFF_UP, Change: unix.IFF_UP,
			Attributes: &rtnetlink.LinkAttributes{Name: "br0", MTU: 1400, Address: mac, Master: &master, Info: &rtnetlink.LinkInfo{Kind: "bridge"}},
		}},
		{"veth", Spec{Name: "a", Kind: Veth{Peer: Spec{Name: "b"}}}, -1, rtnetlink.LinkMessage{
			Attributes: &rtnetlink.LinkAttributes{Name: "a", Info: &rtnetlink.LinkInfo{Kind: "veth", Data: &driver.Veth{
				PeerInfo: &rtnetlink.LinkMessage{Attributes: &rtnetlink.LinkAttributes{Name: "b"}},
			}}},
		}},
		{"veth with everything", Spec{
			Name: "web0", MTU: 1400, MAC: mac, Index: 12, Master: Ref{Index: 7}, Up: true,
			// The peer's Up and Master must not be in the message.
			Kind: Veth{Peer: Spec{Name: "eth0", MTU: 1300, MAC: peerMAC, Index: 13, Up: true, Master: Ref{Index: 9}}},
		}, 42, rtnetlink.LinkMessage{
			Index: 12, Flags: unix.IFF_UP, Change: unix.IFF_UP,
			Attributes: &rtnetlink.LinkAttributes{
				Name: "web0", MTU: 1400, Address: mac, Master: &master,
				Info: &rtnetlink.LinkInfo{Kind: "veth", Data: &driver.Veth{PeerInfo: &rtnetlink.LinkMessage{
					Index:      13,
					Attributes: &rtnetlink.LinkAttributes{Name: "eth0", MTU: 1300, Address: peerMAC, NetNS: rtnetlink.NetNSForFD(42)},
				}}},
			},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, err := c.want.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			markNested(want, unix.IFLA_LINKINFO)
			r := made(&c.spec, c.fd)
			switch _, veth := c.spec.Kind.(Veth); {
			case veth: // the encoder knows no numbers of queues
				const queues = " 00031=01000000 00032=01000000"
				g, w := canonical(r.Body, unix.SizeofIfInfomsg), canonical(want, unix.SizeofIfInfomsg)
				nested := binary.NativeEndian.AppendUint16(nil, unix.IFLA_LINKINFO|unix.NLA_F_NESTED)
				if !bytes.Contains(r.Body, nested) || strings.Count(g, queues) != 2 || strings.ReplaceAll(g, queues, "") != w {
					t.Errorf("request\n got %s\nwant %s, and one queue of each end", g, w)
				}
			case !bytes.Equal(r.Body, want):
				t.Errorf("request\n got %x\nwant %x", r.Body, want)
			}
			if r.Type != unix.RTM_NEWLINK || r.Flags != unix.NLM_F_CREATE|unix.NLM_F_EXCL {
				t.Errorf("type %d, flags %#x", r.Type, r.Flags)
			}
		})
	}
}

// markNested sets NLA_F_NESTED on an attribute at the top level.
func markNested(b []byte, typ uint16) {
	for b = b[unix.SizeofIfInfomsg:]; len(b) >= 4; {
		if binary.NativeEndian.Uint16(b[2:]) == typ {
			binary.NativeEndian.PutUint16(b[2:], typ|unix.NLA_F_NESTED)
		}
		b = b[(int(binary.NativeEndian.Uint16(b))+3)&^3:]
	}
}

func TestAddrBytesEqualIndependentEncoder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prefix string
		dad    bool
		want   rtnetlink.AddressMessage
	}{
		{"10.88.0.2/16", false, rtnetlink.AddressMessage{Family: unix.AF_INET, PrefixLength: 16, Index: 3, Attributes: &rtnetlink.AddressAttributes{
			Address: net.IP{10, 88, 0, 2}, Local: net.IP{10, 88, 0, 2}, Broadcast: net.IP{10, 88, 255, 255},
		}}},
		{"10.0.0.1/31", true, rtnetlink.AddressMessage{Family: unix.AF_INET, PrefixLength: 31, Index: 3, Attributes: &rtnetlink.AddressAttributes{
			Address: net.IP{10, 0, 0, 1}, Local: net.IP{10, 0, 0, 1},
		}}},
		{"fd88::2/64", false, rtnetlink.AddressMessage{Family: unix.AF_INET6, PrefixLength: 64, Index: 3, Flags: unix.IFA_F_NODAD, Attributes: &rtnetlink.AddressAttributes{
			Address: net.ParseIP("fd88::2"), Local: net.ParseIP("fd88::2"),
		}}},
		{"fd88::2/64", true, rtnetlink.AddressMessage{Family: unix.AF_INET6, PrefixLength: 64, Index: 3, Attributes: &rtnetlink.AddressAttributes{
			Address: net.ParseIP("fd88::2"), Local: net.ParseIP("fd88::2"),
		}}},
	} {
		want, err := c.want.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got := addrRequest(unix.RTM_NEWADDR, 3, netip.MustParsePrefix(c.prefix), c.dad).Body
		if !sameAttrs(got, want, unix.SizeofIfAddrmsg) {
			t.Errorf("%s, DAD %v\n got %x\nwant %x", c.prefix, c.dad, got, want)
		}
	}
}

// sameAttrs compares the header byte by byte and the attributes in any order;
// the empty attributes of type 0 and IFA_FLAGS, which the other encoder always
// sends, are ignored.
func sameAttrs(got, want []byte, header int) bool {
	if len(got) < header || !bytes.Equal(got[:header], want[:header]) {
		return false
	}
	split := func(b []byte) map[string]bool {
		m := map[string]bool{}
		for b = b[header:]; len(b) >= 4; {
			n := int(binary.NativeEndian.Uint16(b))
			if typ := binary.NativeEndian.Uint16(b[2:]); typ != unix.IFA_FLAGS && typ != unix.IFA_UNSPEC {
				m[string(b[:n])] = true
			}
			b = b[(n+3)&^3:]
		}
		return m
	}
	g, w := split(got), split(want)
	if len(g) != len(w) {
		return false
	}
	for k := range g {
		if !w[k] {
			return false
		}
	}
	return true
}

func TestAttributeNames(t *testing.T) {
	t.Parallel()
	info, data := uint16(unix.IFLA_LINKINFO), uint16(unix.IFLA_INFO_DATA)
	for _, c := range []struct {
		names func([]uint16) string
		path  []uint16
		want  string
	}{
		{linkNames, []uint16{unix.IFLA_MTU}, "IFLA_MTU"},
		{linkNames, []uint16{info, unix.IFLA_INFO_KIND}, "IFLA_LINKINFO/IFLA_INFO_KIND"},
		{namesOf(Bridge{}), []uint16{info, data, 1}, "IFLA_LINKINFO/IFLA_INFO_DATA/IFLA_BR_FORWARD_DELAY"},
		{namesOf(Veth{}), []uint16{info, data, 1}, "IFLA_LINKINFO/IFLA_INFO_DATA/VETH_INFO_PEER"},
		{namesOf(Veth{}), []uint16{info, data, 1, unix.IFLA_NET_NS_FD}, "IFLA_LINKINFO/IFLA_INFO_DATA/VETH_INFO_PEER/IFLA_NET_NS_FD"},
		{linkNames, []uint16{9999}, "9999"},
		{addrNames, []uint16{unix.IFA_LOCAL}, "IFA_LOCAL"},
	} {
		if got := c.names(c.path); got != c.want {
			t.Errorf("names of %v: %q, want %q", c.path, got, c.want)
		}
	}
}

// made is the message that makes a link in the namespace that it is sent in.
func made(s *Spec, peerFD int) nl.Request {
	o := declare(s.Kind)
	o.forNew()
	e := planEnd(outer, s)
	create := newLink(&e, &o, conditions{peerMoved: peerFD >= 0})
	if peerFD >= 0 {
		binary.NativeEndian.PutUint32(create.reqs[0].Body[create.fds[inner]:], uint32(peerFD))
	}
	return create.reqs[0]
}
