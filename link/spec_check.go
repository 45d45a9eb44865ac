package link

import (
	"cmp"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/linkname"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// check refuses what the kernel would refuse without a reason, and what it would
// accept and ignore. ns is the namespace given to Create.
func (s *Spec) check(ns *netns.NS) (o options, err error) {
	if ns == nil {
		return o, refuse.Input("the namespace is nil")
	}
	if err := s.checkCommon(); err != nil {
		return o, err
	}
	outer := s
	if s.NS == nil {
		outer = new(*s)
		outer.NS = ns
	}
	return checkKind(s.Kind, outer)
}

// checkCommon checks what the outer end and a peer have in common.
func (s *Spec) checkCommon() error {
	if err := linkname.Check(s.Name); err != nil {
		return err
	}
	if s.Name == "all" || s.Name == "default" {
		return refuse.Input("a link cannot be named %q: its settings would stand where those of all links do (net.ipv4.conf.%s)", s.Name, s.Name)
	}
	if s.Index < 0 || s.Index > 1<<31-1 {
		return refuse.Input("index %d is out of range (1 to 2147483647, or 0)", s.Index)
	}
	if err := s.Master.check("master"); err != nil {
		return err
	}
	if s.Master.Index != 0 && s.Master.Index == s.Index {
		return refuse.Input("the link is its own master (index %d)", s.Index)
	}
	if s.MTU != 0 && (s.MTU < minMTU || s.MTU > maxMTU) {
		return refuse.Input("MTU %d is out of range (%d to %d, or 0 for the default)", s.MTU, minMTU, maxMTU)
	}
	if err := checkMAC(s.MAC); err != nil {
		return err
	}
	if err := s.Parent.check("parent"); err != nil {
		return err
	}
	if s.TxQueues < 0 || s.TxQueues > 4096 || s.RxQueues < 0 || s.RxQueues > 4096 {
		return refuse.Input("%d and %d queues are out of range (1 to 4096, or 0 for the default)", s.TxQueues, s.RxQueues)
	}
	if err := checkTexts(s.Name, s.Alias, s.AltNames); err != nil {
		return err
	}
	set := s.settings()
	if err := checkFields(set.common()); err != nil {
		return err
	}
	if s.Master == (Ref{}) && (s.Port != (PortOptions{}) || s.BondPort != (BondPort{})) {
		return refuse.Input("a link without a Master is no port: Port and BondPort must be zero")
	}
	if err := cmp.Or(s.Port.check(), set.checkLate(), s.IPv6.check()); err != nil {
		return err
	}
	if err := checkAddrs(s.Addrs); err != nil {
		return err
	}
	return checkMTU(s.MTU, s.Addrs)
}

// checkMTU refuses an MTU that is too small for the addresses.
func checkMTU(mtu int, addrs []netip.Prefix) error {
	if mtu == 0 || mtu >= minMTUIPv6 {
		return nil
	}
	if i := slices.IndexFunc(addrs, isIPv6); i >= 0 {
		return refuse.Input("MTU %d is too small for the IPv6 address %s (at least %d)", mtu, addrs[i], minMTUIPv6)
	}
	return nil
}

func isIPv6(p netip.Prefix) bool { return p.Addr().Is6() }

// checkTexts checks the alias and the alternative names of a link.
func checkTexts(name, alias string, altNames []string) error {
	if len(alias) > 255 {
		return refuse.Input("the alias has %d bytes; at most 255 are possible", len(alias))
	}
	if strings.ContainsRune(alias, 0) {
		return refuse.Input("the alias %q has a NUL", alias)
	}
	size := 0
	for i, alt := range altNames {
		// The kernel takes them in one attribute, whose length has 16 bits.
		if size += 4 + (len(alt)+1+3)&^3; size > maxAltNames {
			return refuse.Input("%d alternative names are more than fit into one message", len(altNames))
		}
		if err := linkname.CheckAlt(alt); err != nil {
			return &causeError{text: "alternative name: " + err.Error(), err: err}
		}
		if alt == name || slices.Contains(altNames[:i], alt) {
			return refuse.Input("the name %q appears twice", alt)
		}
	}
	return nil
}

func checkMAC(mac net.HardwareAddr) error {
	if mac == nil {
		return nil
	}
	if len(mac) != 6 {
		return refuse.Input("the hardware address %q has %d bytes, not 6", mac, len(mac))
	}
	if mac[0]&1 != 0 {
		return refuse.Input("the hardware address %s is a multicast address", mac)
	}
	for _, b := range mac {
		if b != 0 {
			return nil
		}
	}
	return refuse.Input("the hardware address %s is all zero", mac)
}

// checkKind refuses a kind that cannot be made.
func checkKind(k Kind, outer *Spec) (o options, err error) {
	if k == nil {
		return o, refuse.Input("no Kind is given")
	}
	if o, err = checkOptions(k); err != nil {
		return o, err
	}
	switch k.(type) {
	case VLAN, Macvlan, Macvtap, IPVLAN, IPVTAP, Other:
	default:
		if outer.Parent != (Ref{}) {
			return o, refuse.Input("a %s lies on no other link: Parent must be the zero Ref", k.name())
		}
	}
	if err := k.check(outer); err != nil || o.other == nil {
		return o, err
	}
	return o, checkPeer(k.name(), o.other.spec, outer)
}

// checkOptions refuses a value that is not one of the kinds, and options that are
// out of range.
func checkOptions(k Kind) (o options, err error) {
	switch k.(type) { // as kindOf has them
	case Bridge, Veth, Dummy, IFB, VLAN, Macvlan, Macvtap, IPVLAN, IPVTAP, VXLAN, Geneve, VRF, Bond, Tun, Netkit, WireGuard, Other:
	default: // a pointer to a kind, or a struct that embeds one
		if v := reflect.ValueOf(k); v.Kind() == reflect.Pointer && v.IsNil() {
			return o, refuse.Input("Kind is a nil %T", k)
		}
		return o, refuse.Input("Kind is a %T: give a plain value such as link.Bridge{}", k)
	}
	o = declare(k)
	return o, checkFields(o.fields)
}

// checkPeer checks the other end of a pair.
func checkPeer(kind string, peer, outer *Spec) error {
	if peer.Kind != nil {
		return refuse.Input("the peer of a %s must not have a Kind of its own", kind)
	}
	err := peer.checkCommon()
	if err == nil && peer.MTU == 0 {
		err = checkMTU(outer.MTU, peer.Addrs)
	}
	if err != nil {
		return &causeError{text: "peer: " + err.Error(), err: err}
	}
	if outer.MTU == 0 && peer.MTU != 0 && peer.MTU < minMTUIPv6 && slices.ContainsFunc(outer.Addrs, isIPv6) {
		return refuse.Input("the peer's MTU %d, which is the link's too, is too small for an IPv6 address (at least %d)", peer.MTU, minMTUIPv6)
	}
	if peer.Parent != (Ref{}) {
		return refuse.Input("the peer of a %s has no Parent", kind)
	}
	same := peer.NS == nil || (outer.NS != nil && peer.NS.Equal(outer.NS))
	if same && peer.Name == outer.Name {
		return refuse.Input("both ends are named %q in the same namespace", outer.Name)
	}
	if peer.Index != 0 && outer.Index == 0 {
		return refuse.Input("the peer asks for index %d and the outer end for none: the kernel would ignore it; give both an Index", peer.Index)
	}
	if same && peer.Index != 0 && peer.Index == outer.Index {
		return refuse.Input("both ends ask for index %d in the same namespace", outer.Index)
	}
	return nil
}
