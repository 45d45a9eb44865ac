package route

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/boxwire/boxwire/internal/enum"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Encap is a lightweight tunnel: a header that packets get as they leave by a route
// (linux/lwtunnel.h). It is one of [IPEncap], [MPLSEncap], [Seg6Encap], [Seg6LocalEncap]
// and [RawEncap]. A kind whose kernel module is missing is errors.ErrUnsupported.
type Encap interface {
	fmt.Stringer // as ip-route(8) writes it
	check() error
}

// IPEncap passes the packet to a tunnel link in external mode (vxlan, gre, geneve and
// others). The link sends it in an IPv4 or IPv6 packet, according to the family of Dst.
// Several routes can thus share one tunnel link.
type IPEncap struct {
	ID       uint64     // the tunnel id: VNI, GRE key
	Src      netip.Addr // the source of the outer packet; the zero Addr lets the kernel choose
	Dst      netip.Addr // its destination, required
	TTL, TOS uint8      // of the outer packet
	Flags    TunnelFlags
	Options  []byte // options of the tunnel, raw: the attributes inside LWTUNNEL_IP_OPTS
}

// TunnelFlags is what the outer header carries (TUNNEL_*).
type TunnelFlags uint16

// The flags.
const (
	TunnelChecksum TunnelFlags = 1 << 0
	TunnelKey      TunnelFlags = 1 << 2 // the ID
	TunnelSequence TunnelFlags = 1 << 3
)

// String returns "ip id 7 dst 10.0.0.1 ttl 64 ...", or ip6.
func (e IPEncap) String() string {
	var b strings.Builder
	b.WriteString("ip")
	if e.Dst.Is6() {
		b.WriteString("6")
	}
	fmt.Fprintf(&b, " id %d", e.ID)
	if e.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", e.Src)
	}
	fmt.Fprintf(&b, " dst %s", e.Dst)
	if e.TTL != 0 {
		fmt.Fprintf(&b, " ttl %d", e.TTL)
	}
	if e.TOS != 0 {
		fmt.Fprintf(&b, " tos %d", e.TOS)
	}
	for _, f := range tunnelFlagNames {
		if e.Flags&f.flag != 0 {
			b.WriteString(" " + f.name)
		}
	}
	if rest := e.Flags &^ (TunnelKey | TunnelChecksum | TunnelSequence); rest != 0 {
		fmt.Fprintf(&b, " flags %#x", uint16(rest))
	}
	if len(e.Options) > 0 {
		b.WriteString(" opts " + hex.EncodeToString(e.Options))
	}
	return b.String()
}

var tunnelFlagNames = []struct {
	flag TunnelFlags
	name string
}{{TunnelKey, "key"}, {TunnelChecksum, "csum"}, {TunnelSequence, "seq"}}

func (e IPEncap) check() error {
	switch {
	case !e.Dst.IsValid():
		return refuse.Input("the encapsulation has no destination")
	case e.Src.IsValid() && e.Src.Is4() != e.Dst.Is4():
		return refuse.Input("the encapsulation leads from %s to %s, of another family", e.Src, e.Dst)
	case e.Dst.Is4In6() || e.Dst.Zone() != "" || e.Src.Is4In6() || e.Src.Zone() != "":
		return refuse.Input("the encapsulation's addresses are plain IPv4 or IPv6")
	}
	return nil
}

// MPLSEncap pushes MPLS labels (linux/mpls_iptunnel.h; module mpls_iptunnel).
type MPLSEncap struct {
	Labels []uint32 // from the outermost, 20 bits each; at least one
	TTL    uint8    // of the labels; 0 takes the packet's own
}

// String returns "mpls 100/200 ttl 64".
func (e MPLSEncap) String() string {
	s := "mpls " + strings.Trim(strings.ReplaceAll(fmt.Sprint(e.Labels), " ", "/"), "[]")
	if e.TTL != 0 {
		s += fmt.Sprintf(" ttl %d", e.TTL)
	}
	return s
}

func (e MPLSEncap) check() error {
	if n := len(e.Labels); n == 0 || n > 30 {
		return refuse.Input("the encapsulation has %d MPLS labels; it takes 1 to 30", n)
	}
	for _, l := range e.Labels {
		if l >= 1<<20 {
			return refuse.Input("the MPLS label %d has more than 20 bits", l)
		}
	}
	return nil
}

// Seg6Encap gives an IPv6 or IPv4 packet a segment routing header
// (linux/seg6_iptunnel.h).
type Seg6Encap struct {
	Mode     Seg6Mode
	Segments []netip.Addr // in the order they are visited; at least one, IPv6
	HMAC     uint32       // the id of the key that signs the header; 0 does not sign
}

// Seg6Mode is the way in which the header is added.
type Seg6Mode uint8

// The modes (SEG6_IPTUN_MODE_*).
const (
	Seg6ModeInline     Seg6Mode = 0 // inserted into the packet
	Seg6ModeEncap      Seg6Mode = 1 // in front of the packet, with an outer IPv6 header
	Seg6ModeL2Encap    Seg6Mode = 2 // in front of the frame
	Seg6ModeEncapRed   Seg6Mode = 3 // Seg6ModeEncap, the first segment only as the destination (>= 6.0)
	Seg6ModeL2EncapRed Seg6Mode = 4 // Seg6ModeL2Encap, likewise (>= 6.0)
)

var seg6Modes = map[Seg6Mode]string{
	Seg6ModeInline: "inline", Seg6ModeEncap: "encap", Seg6ModeL2Encap: "l2encap", Seg6ModeEncapRed: "encap.red", Seg6ModeL2EncapRed: "l2encap.red",
}

// String returns the name that ip-route(8) uses.
func (m Seg6Mode) String() string { return enum.Name(seg6Modes, m) }

// MarshalText returns what String does.
func (m Seg6Mode) MarshalText() ([]byte, error) { return enum.Marshal(seg6Modes, m) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (m *Seg6Mode) UnmarshalText(text []byte) error { return enum.Unmarshal(seg6Modes, m, text) }

// String returns "seg6 mode encap segs fd00::1,fd00::2".
func (e Seg6Encap) String() string {
	s := fmt.Sprintf("seg6 mode %s segs %s", e.Mode, joinAddrs(e.Segments))
	if e.HMAC != 0 {
		s += fmt.Sprintf(" hmac %#x", e.HMAC)
	}
	return s
}

func (e Seg6Encap) check() error {
	if e.Mode > Seg6ModeL2EncapRed {
		return refuse.Input("the segment routing mode %d is unknown", e.Mode)
	}
	return checkSegments(e.Segments)
}

func checkSegments(segs []netip.Addr) error {
	if n := len(segs); n == 0 || n > 126 { // hdrlen counts 8 bytes in 8 bits
		return refuse.Input("the encapsulation has %d segments; it takes 1 to 126", n)
	}
	for _, s := range segs {
		if !s.Is6() || s.Is4In6() || s.Zone() != "" || s.IsUnspecified() {
			return refuse.Input("the segment %s is no plain IPv6 address", s)
		}
	}
	return nil
}

// Seg6LocalEncap is what the owner of a segment does with packets to it
// (linux/seg6_local.h). It is for IPv6 routes only. ip-route(8) lists which fields an
// action takes.
type Seg6LocalEncap struct {
	Action   Seg6Action
	Segments []netip.Addr // for End.B6 and End.B6.Encaps
	Table    Table        // for End.T, End.DT6
	VRFTable Table        // the table of a VRF, for End.DT4, End.DT6, End.DT46 (>= 5.11, 5.14)
	Via4     netip.Addr   // nh4, for End.DX4
	Via6     netip.Addr   // nh6, for End.X, End.DX6
	In, Out  int          // links, for End.DX2 and others
	Count    bool         // count packets, bytes and errors (>= 5.14; ignored before)

	Flavors   Seg6Flavors // 5.10 ignores them
	BlockBits uint8       // the block's length for NextCSID; 0 is 32 (>= 6.1)
	NodeBits  uint8       // the node function's; 0 is 16 (>= 6.1)
}

// Seg6Action is what a segment's owner does (SEG6_LOCAL_ACTION_*).
type Seg6Action uint32

// The actions, by the names of RFC 8986. End.BPF is a [RawEncap].
const (
	Seg6ActionEnd        Seg6Action = 1
	Seg6ActionEndX       Seg6Action = 2
	Seg6ActionEndT       Seg6Action = 3
	Seg6ActionEndDX2     Seg6Action = 4
	Seg6ActionEndDX6     Seg6Action = 5
	Seg6ActionEndDX4     Seg6Action = 6
	Seg6ActionEndDT6     Seg6Action = 7
	Seg6ActionEndDT4     Seg6Action = 8 // >= 5.11
	Seg6ActionEndB6      Seg6Action = 9
	Seg6ActionEndB6Encap Seg6Action = 10
	Seg6ActionEndDT46    Seg6Action = 16 // >= 5.14
)

var seg6Actions = map[Seg6Action]string{
	Seg6ActionEnd: "End", Seg6ActionEndX: "End.X", Seg6ActionEndT: "End.T", Seg6ActionEndDX2: "End.DX2", Seg6ActionEndDX6: "End.DX6", Seg6ActionEndDX4: "End.DX4", Seg6ActionEndDT6: "End.DT6",
	Seg6ActionEndDT4: "End.DT4", Seg6ActionEndB6: "End.B6", Seg6ActionEndB6Encap: "End.B6.Encaps", Seg6ActionEndDT46: "End.DT46",
}

// String returns the action's name, or its number.
func (a Seg6Action) String() string { return enum.Name(seg6Actions, a) }

// MarshalText returns what String does.
func (a Seg6Action) MarshalText() ([]byte, error) { return enum.Marshal(seg6Actions, a) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (a *Seg6Action) UnmarshalText(text []byte) error { return enum.Unmarshal(seg6Actions, a, text) }

// Seg6Flavors are variants of an action (SEG6_LOCAL_FLV_OP_*).
type Seg6Flavors uint32

// The flavors.
const (
	Seg6FlavorPSP      Seg6Flavors = 1 << 1 // the last but one pops the header (>= 6.3)
	Seg6FlavorUSP      Seg6Flavors = 1 << 2
	Seg6FlavorUSD      Seg6Flavors = 1 << 3
	Seg6FlavorNextCSID Seg6Flavors = 1 << 4 // compressed segments (>= 6.1)
)

var flavorNames = []struct {
	flag Seg6Flavors
	name string
}{{Seg6FlavorPSP, "psp"}, {Seg6FlavorUSP, "usp"}, {Seg6FlavorUSD, "usd"}, {Seg6FlavorNextCSID, "next-csid"}}

// String returns "seg6local action End.DX4 nh4 10.0.0.1".
func (e Seg6LocalEncap) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seg6local action %s", e.Action)
	if len(e.Segments) > 0 {
		fmt.Fprintf(&b, " segs %s", joinAddrs(e.Segments))
	}
	if e.Table != 0 {
		fmt.Fprintf(&b, " table %s", e.Table)
	}
	if e.VRFTable != 0 {
		fmt.Fprintf(&b, " vrftable %s", e.VRFTable)
	}
	if e.Via4.IsValid() {
		fmt.Fprintf(&b, " nh4 %s", e.Via4)
	}
	if e.Via6.IsValid() {
		fmt.Fprintf(&b, " nh6 %s", e.Via6)
	}
	if e.In != 0 {
		fmt.Fprintf(&b, " iif %d", e.In)
	}
	if e.Out != 0 {
		fmt.Fprintf(&b, " oif %d", e.Out)
	}
	if e.Count {
		b.WriteString(" count")
	}
	if e.Flavors != 0 {
		b.WriteString(" flavors " + e.Flavors.String())
	}
	if e.BlockBits != 0 {
		fmt.Fprintf(&b, " lblen %d", e.BlockBits)
	}
	if e.NodeBits != 0 {
		fmt.Fprintf(&b, " nflen %d", e.NodeBits)
	}
	return b.String()
}

// String returns the flavors' names, separated by commas.
func (f Seg6Flavors) String() string {
	var names []string
	for _, n := range flavorNames {
		if f&n.flag != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ",")
}

func (e Seg6LocalEncap) check() error {
	const all = Seg6FlavorPSP | Seg6FlavorUSP | Seg6FlavorUSD | Seg6FlavorNextCSID
	switch {
	case e.Action == 0:
		return refuse.Input("the seg6local encapsulation has no action")
	case e.Via4.IsValid() && !e.Via4.Is4():
		return refuse.Input("%s in the place of an IPv4 gateway", e.Via4)
	case e.Via6.IsValid() && (!e.Via6.Is6() || e.Via6.Is4In6() || e.Via6.Zone() != ""):
		return refuse.Input("%s in the place of a plain IPv6 gateway", e.Via6)
	case !isIndex(e.In) || !isIndex(e.Out):
		return refuse.Input("iif %d or oif %d is not the index of a link", e.In, e.Out)
	case e.Flavors&^all != 0:
		return refuse.Input("the flavors %#x are unknown", uint32(e.Flavors))
	case (e.BlockBits != 0 || e.NodeBits != 0) && e.Flavors&Seg6FlavorNextCSID == 0:
		return refuse.Input("lengths without the flavor next-csid")
	}
	if len(e.Segments) > 0 {
		return checkSegments(e.Segments)
	}
	return nil
}

// RawEncap is an encapsulation that this package does not know, in the kernel's encoding. A
// known kind with unknown attributes is also listed as one.
type RawEncap struct {
	Kind uint16 // LWTUNNEL_ENCAP_*
	Data []byte // the attributes inside RTA_ENCAP
}

// String returns "raw 6 0a0b0c0d".
func (e RawEncap) String() string { return fmt.Sprintf("raw %d %x", e.Kind, e.Data) }

func (e RawEncap) check() error {
	if e.Kind == 0 {
		return refuse.Input("the raw encapsulation has no kind")
	}
	if len(e.Data) == 0 || len(e.Data) > maxEncap {
		return refuse.Input("the raw encapsulation has %d bytes; it takes 1 to %d", len(e.Data), maxEncap)
	}
	return nil
}

// maxEncap keeps an attribute, and those around it, within 16 bits of length.
const maxEncap = 8192

func equalEncap(a, b Encap) bool { return reflect.DeepEqual(a, b) }

func joinAddrs(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ",")
}

func isIndex(dev int) bool { return dev >= 0 && int64(dev) <= 1<<31-1 }
