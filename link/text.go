package link

import (
	"fmt"
	"strings"

	"github.com/boxwire/boxwire/internal/enum"
)

// enumString returns the name of a value; one without is written with its type:
// "OperState(9)".
func enumString[T enum.Number](names map[T]string, v T) string {
	if name, ok := names[v]; ok {
		return name
	}
	return fmt.Sprintf("%s(%d)", fmt.Sprintf("%T", v)[len("link."):], uint32(v))
}

// The names of the values.
var (
	operStates       = map[OperState]string{OperUnknown: "UNKNOWN", OperNotPresent: "NOTPRESENT", OperDown: "DOWN", OperLowerLayerDown: "LOWERLAYERDOWN", OperTesting: "TESTING", OperDormant: "DORMANT", OperUp: "UP"}
	topicNames       = map[Topic]string{TopicLinks: "links", TopicAddrs: "addrs", TopicNeighbours: "neighbours", TopicFDB: "fdb"}
	portStates       = map[PortState]string{PortDisabled: "disabled", PortListening: "listening", PortLearning: "learning", PortForwarding: "forwarding", PortBlocking: "blocking"}
	multicastRouters = map[MulticastRouter]string{MulticastRouterNever: "never", MulticastRouterAuto: "auto", MulticastRouterAlways: "always", MulticastRouterTemporary: "temporary"}
	bridgeSTPModes   = map[BridgeSTPMode]string{BridgeSTPAuto: "auto", BridgeSTPUser: "user", BridgeSTPKernel: "kernel"}
	bondModes        = map[BondMode]string{BondRoundRobin: "balance-rr", BondActiveBackup: "active-backup", BondXOR: "balance-xor", BondBroadcast: "broadcast", Bond8023AD: "802.3ad", BondTLB: "balance-tlb", BondALB: "balance-alb"}
	bondARPValidates = map[BondARPValidate]string{BondARPValidateNone: "none", BondARPValidateActive: "active", BondARPValidateBackup: "backup", BondARPValidateAll: "all", BondARPValidateFilter: "filter", BondARPValidateFilterActive: "filter_active", BondARPValidateFilterBackup: "filter_backup"}
	bondReselects    = map[BondReselect]string{BondReselectAlways: "always", BondReselectBetter: "better", BondReselectFailure: "failure"}
	bondMACs         = map[BondMAC]string{BondMACSame: "none", BondMACActive: "active", BondMACFollow: "follow"}
	bondHashes       = map[BondHash]string{BondHashL2: "layer2", BondHashL34: "layer3+4", BondHashL23: "layer2+3", BondHashEncap23: "encap2+3", BondHashEncap34: "encap3+4", BondHashVLANSrcMAC: "vlan+srcmac"}
	bondADSelects    = map[BondADSelect]string{BondADStable: "stable", BondADBandwidth: "bandwidth", BondADCount: "count", BondADPriority: "actor_port_prio"}
	macvlanModes     = map[MacvlanMode]string{MacvlanPrivate: "private", MacvlanVEPA: "vepa", MacvlanBridge: "bridge", MacvlanPassthru: "passthru", MacvlanSource: "source"}
	ipvlanModes      = map[IPVLANMode]string{IPVLANL2: "l2", IPVLANL3: "l3", IPVLANL3S: "l3s"}
	netkitModes      = map[NetkitMode]string{NetkitL2: "l2", NetkitL3: "l3"}
	netkitPolicies   = map[NetkitPolicy]string{NetkitForward: "forward", NetkitBlackhole: "blackhole"}
	netkitScrubs     = map[NetkitScrub]string{NetkitScrubNone: "none", NetkitScrubDefault: "default"}
	tunnelDFs        = map[TunnelDF]string{TunnelDFUnset: "unset", TunnelDFSet: "set", TunnelDFInherit: "inherit"}
	vlanProtocols    = map[VLANProtocol]string{VLAN8021Q: "802.1Q", VLAN8021AD: "802.1ad"}
	addrGenModes     = map[AddrGenMode]string{AddrGenEUI64: "eui64", AddrGenNone: "none", AddrGenStablePrivacy: "stable_secret", AddrGenRandom: "random"}
	xdpModes         = map[XDPMode]string{XDPNone: "none", XDPDriver: "driver", XDPGeneric: "generic", XDPOffload: "offload", XDPMulti: "multi"}
	addrScopes       = map[AddrScope]string{AddrScopeGlobal: "global", AddrScopeSite: "site", AddrScopeLink: "link", AddrScopeHost: "host"}
	addrProtocols    = map[AddrProtocol]string{AddrProtocolNone: "unspec", AddrProtocolLoopback: "kernel_lo", AddrProtocolRA: "kernel_ra", AddrProtocolLinkLocal: "kernel_ll"}
	fdbTypes         = map[FDBType]string{FDBStatic: "static", FDBDynamic: "dynamic", FDBLocal: "permanent"}
	neighbourStates  = map[NeighbourState]string{
		NeighbourIncomplete: "INCOMPLETE", NeighbourReachable: "REACHABLE", NeighbourStale: "STALE", NeighbourDelay: "DELAY",
		NeighbourProbe: "PROBE", NeighbourFailed: "FAILED", NeighbourNoARP: "NOARP", NeighbourPermanent: "PERMANENT",
	}
)

// String returns the state as ip-link(8) prints it.
func (v OperState) String() string { return enumString(operStates, v) }

// MarshalText returns the name, or the number of a value without one.
func (v OperState) MarshalText() ([]byte, error) { return enum.Marshal(operStates, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *OperState) UnmarshalText(text []byte) error { return enum.Unmarshal(operStates, v, text) }

// String returns the topic in lower case.
func (v Topic) String() string { return enumString(topicNames, v) }

// MarshalText returns the name, or the number of a value without one.
func (v Topic) MarshalText() ([]byte, error) { return enum.Marshal(topicNames, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *Topic) UnmarshalText(text []byte) error { return enum.Unmarshal(topicNames, v, text) }

// String returns the state as bridge(8) prints it.
func (v PortState) String() string { return enumString(portStates, v) }

// MarshalText returns the name, or the number of a value without one.
func (v PortState) MarshalText() ([]byte, error) { return enum.Marshal(portStates, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *PortState) UnmarshalText(text []byte) error { return enum.Unmarshal(portStates, v, text) }

// String returns "never", "auto", "always" or "temporary".
func (v MulticastRouter) String() string { return enumString(multicastRouters, v) }

// MarshalText returns the name, or the number of a value without one.
func (v MulticastRouter) MarshalText() ([]byte, error) { return enum.Marshal(multicastRouters, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *MulticastRouter) UnmarshalText(text []byte) error {
	return enum.Unmarshal(multicastRouters, v, text)
}

// String returns "auto", "user" or "kernel".
func (v BridgeSTPMode) String() string { return enumString(bridgeSTPModes, v) }

// MarshalText returns the name, or the number of a value without one.
func (v BridgeSTPMode) MarshalText() ([]byte, error) { return enum.Marshal(bridgeSTPModes, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *BridgeSTPMode) UnmarshalText(text []byte) error {
	return enum.Unmarshal(bridgeSTPModes, v, text)
}

// String returns the mode as ip-link(8) prints it.
func (v BondMode) String() string { return enumString(bondModes, v) }

// MarshalText returns the name, or the number of a value without one.
func (v BondMode) MarshalText() ([]byte, error) { return enum.Marshal(bondModes, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *BondMode) UnmarshalText(text []byte) error { return enum.Unmarshal(bondModes, v, text) }

// String returns the value as ip-link(8) prints it.
func (v BondARPValidate) String() string { return enumString(bondARPValidates, v) }

// MarshalText returns the name, or the number of a value without one.
func (v BondARPValidate) MarshalText() ([]byte, error) { return enum.Marshal(bondARPValidates, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *BondARPValidate) UnmarshalText(text []byte) error {
	return enum.Unmarshal(bondARPValidates, v, text)
}

// String returns the value as ip-link(8) prints it.
func (v BondReselect) String() string { return enumString(bondReselects, v) }

// MarshalText returns the name, or the number of a value without one.
func (v BondReselect) MarshalText() ([]byte, error) { return enum.Marshal(bondReselects, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *BondReselect) UnmarshalText(text []byte) error {
	return enum.Unmarshal(bondReselects, v, text)
}

// String returns the value of fail_over_mac as ip-link(8) prints it.
func (v BondMAC) String() string { return enumString(bondMACs, v) }

// MarshalText returns the name, or the number of a value without one.
func (v BondMAC) MarshalText() ([]byte, error) { return enum.Marshal(bondMACs, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *BondMAC) UnmarshalText(text []byte) error { return enum.Unmarshal(bondMACs, v, text) }

// String returns the policy as ip-link(8) prints it.
func (v BondHash) String() string { return enumString(bondHashes, v) }

// MarshalText returns the name, or the number of a value without one.
func (v BondHash) MarshalText() ([]byte, error) { return enum.Marshal(bondHashes, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *BondHash) UnmarshalText(text []byte) error { return enum.Unmarshal(bondHashes, v, text) }

// String returns the value as ip-link(8) prints it.
func (v BondADSelect) String() string { return enumString(bondADSelects, v) }

// MarshalText returns the name, or the number of a value without one.
func (v BondADSelect) MarshalText() ([]byte, error) { return enum.Marshal(bondADSelects, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *BondADSelect) UnmarshalText(text []byte) error {
	return enum.Unmarshal(bondADSelects, v, text)
}

// String returns the mode as ip-link(8) prints it.
func (v MacvlanMode) String() string { return enumString(macvlanModes, v) }

// MarshalText returns the name, or the number of a value without one.
func (v MacvlanMode) MarshalText() ([]byte, error) { return enum.Marshal(macvlanModes, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *MacvlanMode) UnmarshalText(text []byte) error { return enum.Unmarshal(macvlanModes, v, text) }

// String returns the mode as ip-link(8) prints it.
func (v IPVLANMode) String() string { return enumString(ipvlanModes, v) }

// MarshalText returns the name, or the number of a value without one.
func (v IPVLANMode) MarshalText() ([]byte, error) { return enum.Marshal(ipvlanModes, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *IPVLANMode) UnmarshalText(text []byte) error { return enum.Unmarshal(ipvlanModes, v, text) }

// String returns the mode as ip-link(8) prints it.
func (v NetkitMode) String() string { return enumString(netkitModes, v) }

// MarshalText returns the name, or the number of a value without one.
func (v NetkitMode) MarshalText() ([]byte, error) { return enum.Marshal(netkitModes, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *NetkitMode) UnmarshalText(text []byte) error { return enum.Unmarshal(netkitModes, v, text) }

// String returns the policy as ip-link(8) prints it.
func (v NetkitPolicy) String() string { return enumString(netkitPolicies, v) }

// MarshalText returns the name, or the number of a value without one.
func (v NetkitPolicy) MarshalText() ([]byte, error) { return enum.Marshal(netkitPolicies, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *NetkitPolicy) UnmarshalText(text []byte) error {
	return enum.Unmarshal(netkitPolicies, v, text)
}

// String returns "none" or "default".
func (v NetkitScrub) String() string { return enumString(netkitScrubs, v) }

// MarshalText returns the name, or the number of a value without one.
func (v NetkitScrub) MarshalText() ([]byte, error) { return enum.Marshal(netkitScrubs, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *NetkitScrub) UnmarshalText(text []byte) error { return enum.Unmarshal(netkitScrubs, v, text) }

// String returns "unset", "set" or "inherit".
func (v TunnelDF) String() string { return enumString(tunnelDFs, v) }

// MarshalText returns the name, or the number of a value without one.
func (v TunnelDF) MarshalText() ([]byte, error) { return enum.Marshal(tunnelDFs, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *TunnelDF) UnmarshalText(text []byte) error { return enum.Unmarshal(tunnelDFs, v, text) }

// String returns the protocol as ip-link(8) prints it.
func (v VLANProtocol) String() string { return enumString(vlanProtocols, v) }

// MarshalText returns the name, or the number of a value without one.
func (v VLANProtocol) MarshalText() ([]byte, error) { return enum.Marshal(vlanProtocols, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *VLANProtocol) UnmarshalText(text []byte) error {
	return enum.Unmarshal(vlanProtocols, v, text)
}

// String returns the mode as ip-link(8) prints it.
func (v AddrGenMode) String() string { return enumString(addrGenModes, v) }

// MarshalText returns the name, or the number of a value without one.
func (v AddrGenMode) MarshalText() ([]byte, error) { return enum.Marshal(addrGenModes, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *AddrGenMode) UnmarshalText(text []byte) error { return enum.Unmarshal(addrGenModes, v, text) }

// String returns "none", "driver", "generic", "offload" or "multi".
func (v XDPMode) String() string { return enumString(xdpModes, v) }

// MarshalText returns the name, or the number of a value without one.
func (v XDPMode) MarshalText() ([]byte, error) { return enum.Marshal(xdpModes, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *XDPMode) UnmarshalText(text []byte) error { return enum.Unmarshal(xdpModes, v, text) }

// String returns the scope as ip-address(8) prints it.
func (v AddrScope) String() string { return enumString(addrScopes, v) }

// MarshalText returns the name, or the number of a value without one.
func (v AddrScope) MarshalText() ([]byte, error) { return enum.Marshal(addrScopes, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *AddrScope) UnmarshalText(text []byte) error { return enum.Unmarshal(addrScopes, v, text) }

// String returns the protocol as ip-address(8) prints it.
func (v AddrProtocol) String() string { return enumString(addrProtocols, v) }

// MarshalText returns the name, or the number of a value without one.
func (v AddrProtocol) MarshalText() ([]byte, error) { return enum.Marshal(addrProtocols, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *AddrProtocol) UnmarshalText(text []byte) error {
	return enum.Unmarshal(addrProtocols, v, text)
}

// String returns the type as bridge(8) names it.
func (v FDBType) String() string { return enumString(fdbTypes, v) }

// MarshalText returns the name, or the number of a value without one.
func (v FDBType) MarshalText() ([]byte, error) { return enum.Marshal(fdbTypes, v) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (v *FDBType) UnmarshalText(text []byte) error { return enum.Unmarshal(fdbTypes, v, text) }

// String returns the state as ip-neighbour(8) prints it, several with "|" between them.
func (v NeighbourState) String() string {
	if v == 0 {
		return "0"
	}
	var list []string
	for bit := NeighbourState(1); bit != 0; bit <<= 1 {
		if v&bit != 0 {
			list = append(list, enum.Name(neighbourStates, bit))
		}
	}
	return strings.Join(list, "|")
}

// MarshalText returns what String does.
func (v NeighbourState) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads names or numbers with "|" between them. Other text is os.ErrInvalid.
func (v *NeighbourState) UnmarshalText(text []byte) error {
	var all NeighbourState
	for word := range strings.SplitSeq(string(text), "|") {
		var one NeighbourState
		if err := enum.Unmarshal(neighbourStates, &one, []byte(word)); err != nil {
			return err
		}
		all |= one
	}
	*v = all
	return nil
}
