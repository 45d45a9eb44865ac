//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
)

// reference are the keys of the plugins that this one stands in for (bridge,
// portmap, firewall, bandwidth and host-local 1.9.1) and of those that may come
// behind it (tuning, sbr and vrf), which are neither in config nor in pool. A configuration that sets one relies on it, so
// the plugin obeys it or refuses it by name, and never ignores it.
type reference struct {
	// Of bridge.
	ForceAddress              bool        `json:"forceAddress"`
	PortIsolation             bool        `json:"portIsolation"`
	DisableContainerInterface bool        `json:"disableContainerInterface"`
	PromiscMode               bool        `json:"promiscMode"`
	MacSpoofChk               bool        `json:"macspoofchk"`
	EnableDAD                 bool        `json:"enabledad"`
	VLAN                      int         `json:"vlan"`
	VLANTrunk                 []vlanTrunk `json:"vlanTrunk"`
	PreserveDefaultVlan       bool        `json:"preserveDefaultVlan"`
	IPMasqBackend             string      `json:"ipMasqBackend"`

	// Of portmap. Its snat needs nothing: a visitor's address is replaced only where
	// no answer would come to it, and without that, too, such a visit fails.
	Backend              string   `json:"backend"` // of firewall, too
	ConditionsV4         []string `json:"conditionsV4"`
	ConditionsV6         []string `json:"conditionsV6"`
	MasqAll              bool     `json:"masqAll"`
	MarkMasqBit          *int     `json:"markMasqBit"`
	ExternalSetMarkChain *string  `json:"externalSetMarkChain"`

	// Of firewall.
	IngressPolicy          string `json:"ingressPolicy"`
	IptablesAdminChainName string `json:"iptablesAdminChainName"`
	FirewalldZone          string `json:"firewalldZone"`

	// Of bandwidth.
	ShapedSubnets   []string `json:"shapedSubnets"`
	UnshapedSubnets []string `json:"unshapedSubnets"`

	// Of tuning.
	Sysctl   map[string]string `json:"sysctl"`
	Promisc  bool              `json:"promisc"`
	Allmulti *bool             `json:"allmulti"`
	TxQLen   *int              `json:"txQLen"`
	DataDir  string            `json:"dataDir"`

	// Of sbr and vrf.
	Table          *int     `json:"table"`
	Gateways       []string `json:"gateways"`
	AddSourceHints bool     `json:"addSourceHints"`
	VRFName        string   `json:"vrfname"`
}

// A vlanTrunk is one VLAN, or a range of them.
type vlanTrunk struct {
	ID    *int `json:"id"`
	MinID *int `json:"minID"`
	MaxID *int `json:"maxID"`
}

// unsupported is the error for a key that is known and cannot be obeyed
// (ErrUnsupportedField of the specification, which wants key and value named).
func unsupported(key string, value any, why string) error {
	v, err := json.Marshal(value)
	if err != nil {
		v = fmt.Appendf(nil, "%v", value)
	}
	return types.NewError(types.ErrUnsupportedField, fmt.Sprintf("%s: %s is not supported", key, v), why)
}

// check refuses what is not obeyed. A key that asks for nothing, such as false or
// an empty list, is fine.
func (r *reference) check() error {
	if err := r.checkVLANs(); err != nil {
		return err
	}
	behind := func(plugin string) string { return "the plugin " + plugin + " may come behind this one" }
	const nftables = "rules are made with nftables, by no other program"
	for _, k := range []struct {
		key   string
		asked bool
		value any
		why   string
	}{
		{"ipMasqBackend", r.IPMasqBackend != "" && r.IPMasqBackend != "nftables", r.IPMasqBackend, nftables},
		{"backend", r.Backend != "" && r.Backend != "nftables", r.Backend, nftables},
		{"conditionsV4", len(r.ConditionsV4) > 0, r.ConditionsV4, "hostIP of a mapping and a policy say who reaches a port"},
		{"conditionsV6", len(r.ConditionsV6) > 0, r.ConditionsV6, "hostIP of a mapping and a policy say who reaches a port"},
		{"masqAll", r.MasqAll, r.MasqAll, "containers see the addresses of their visitors"},
		{"markMasqBit", r.MarkMasqBit != nil, r.MarkMasqBit, "packets are not marked"},
		{"externalSetMarkChain", r.ExternalSetMarkChain != nil, r.ExternalSetMarkChain, "packets are not marked"},
		{"ingressPolicy", !slices.Contains([]string{"", "same-bridge", "isolated"}, r.IngressPolicy), r.IngressPolicy, "\"same-bridge\" is what holds, \"isolated\" is as isolate"},
		{"iptablesAdminChainName", r.IptablesAdminChainName != "", r.IptablesAdminChainName, nftables},
		{"firewalldZone", r.FirewalldZone != "", r.FirewalldZone, nftables},
		{"shapedSubnets", len(r.ShapedSubnets) > 0, r.ShapedSubnets, "a limit is for all that passes the container's link"},
		{"unshapedSubnets", len(r.UnshapedSubnets) > 0, r.UnshapedSubnets, "a limit is for all that passes the container's link"},
		{"sysctl", len(r.Sysctl) > 0, r.Sysctl, behind("tuning")},
		{"promisc", r.Promisc, r.Promisc, behind("tuning")},
		{"allmulti", r.Allmulti != nil, r.Allmulti, behind("tuning")},
		{"txQLen", r.TxQLen != nil, r.TxQLen, behind("tuning")},
		{"dataDir", r.DataDir != "", r.DataDir, behind("tuning") + "; that of the allocator is a key of ipam"},
		{"table", r.Table != nil, r.Table, behind("sbr or vrf")},
		{"gateways", len(r.Gateways) > 0, r.Gateways, behind("sbr")},
		{"addSourceHints", r.AddSourceHints, true, behind("sbr")},
		{"vrfname", r.VRFName != "", r.VRFName, behind("vrf")},
	} {
		if k.asked {
			return unsupported(k.key, k.value, k.why)
		}
	}
	return nil
}

// checkVLANs refuses ids that are none, with the words for that.
func (r *reference) checkVLANs() error {
	isID := func(id *int) bool { return id == nil || *id >= 1 && *id <= 4094 }
	if r.VLAN != 0 && !isID(&r.VLAN) {
		return invalid("vlan is no VLAN", fmt.Sprintf("%d: 1 to 4094 are possible", r.VLAN))
	}
	for _, t := range r.VLANTrunk {
		b, _ := json.Marshal(t)
		switch {
		case !isID(t.ID) || !isID(t.MinID) || !isID(t.MaxID):
			return invalid("vlanTrunk has an id that is no VLAN", fmt.Sprintf("%s: 1 to 4094 are possible", b))
		case (t.MinID == nil) != (t.MaxID == nil):
			return invalid("vlanTrunk: minID and maxID go together", string(b))
		case t.MinID != nil && *t.MaxID < *t.MinID:
			return invalid("vlanTrunk: a range ends before it begins", string(b))
		}
	}
	return nil
}
