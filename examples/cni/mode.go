//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/link"
)

// The modes are the ways to plug a container in. Each does what the reference plugin
// of its name does.
const (
	modeBridge     = "bridge"
	modePTP        = "ptp"
	modeMacvlan    = "macvlan"
	modeIPVLAN     = "ipvlan"
	modeVLAN       = "vlan"
	modeHostDevice = "host-device"
	modeTap        = "tap"
	modeLoopback   = "loopback"
)

var modes = []string{modeBridge, modePTP, modeMacvlan, modeIPVLAN, modeVLAN, modeHostDevice, modeTap, modeLoopback}

// modeKeys are the keys that modes but bridge have.
type modeKeys struct {
	// Mode is one of the modes. A plugin that is installed under a mode's name has
	// that mode, and the key is the reference plugin's: how links of one parent
	// reach each other.
	Mode        string `json:"mode"`
	MacvlanMode string `json:"macvlanMode"` // bridge, private, vepa or passthru
	IPVLANMode  string `json:"ipvlanMode"`  // l2, l3 or l3s

	Master          string `json:"master"`          // of macvlan, ipvlan and vlan; by default the link of the default route, but for vlan
	VLANID          *int   `json:"vlanId"`          // of vlan
	LinkInContainer bool   `json:"linkInContainer"` // the master is in the container
	BcQueueLen      uint32 `json:"bcqueuelen"`      // broadcast frames that may wait, of macvlan
	MAC             string `json:"mac"`             // of macvlan and tap, unless the runtime asks for another

	// Of tap.
	MultiQueue     bool    `json:"multiQueue"`
	Owner          *uint32 `json:"owner"`
	Group          *uint32 `json:"group"`
	SelinuxContext string  `json:"selinuxContext"`

	// Of host-device: one of them.
	Device     string `json:"device"`
	HWAddr     string `json:"hwaddr"`
	KernelPath string `json:"kernelpath"`
	PCIBusID   string `json:"pciBusID"`

	as     string // the mode
	given  string // the bridge that the configuration names
	pair   string // of ptp: the host's end
	linked string // how links of one parent reach each other
}

// findMode reads which mode it is.
func (c *config) findMode() {
	switch {
	case slices.Contains(modes, c.Type):
		c.as, c.linked = c.Type, c.Mode
	case c.Mode == "":
		c.as = modeBridge
	case slices.Contains(modes, c.Mode):
		c.as = c.Mode
		if c.linked = c.IPVLANMode; c.as == modeMacvlan {
			c.linked = c.MacvlanMode
		}
	default: // which check refuses; DEL looks for what the host has
		c.as, c.linked = modeBridge, c.Mode
	}
	c.given = c.Bridge
	switch {
	case c.Bridge != "":
	case c.Type == modeBridge:
		c.Bridge = "cni0"
	case c.as != modeTap:
		c.Bridge = "boxwire0"
	}
}

// inside says whether the container has the whole of the attachment, and the host
// has no end of it.
func (c *config) inside() bool {
	return slices.Contains([]string{modeMacvlan, modeIPVLAN, modeVLAN, modeHostDevice, modeTap}, c.as)
}

var macvlanModes = map[string]link.MacvlanMode{
	"": link.MacvlanBridge, "bridge": link.MacvlanBridge, "private": link.MacvlanPrivate, "vepa": link.MacvlanVEPA, "passthru": link.MacvlanPassthru,
}

var ipvlanModes = map[string]*link.IPVLANMode{"": new(link.IPVLANL2), "l2": new(link.IPVLANL2), "l3": new(link.IPVLANL3), "l3s": new(link.IPVLANL3S)}

// checkMode refuses what a mode cannot do.
func (c *config) checkMode() error {
	if c.Type != modeBridge && c.as == modeBridge && c.linked != "" {
		return invalid("mode is none of "+strings.Join(modes, ", "), fmt.Sprintf("%q", c.Mode))
	}
	if err := c.checkForeign(); err != nil {
		return err
	}
	switch c.as {
	case modePTP:
		if c.IPAM.Type == "" {
			return invalid("ptp needs ipam", "the host finds the container by its address")
		}
	case modeMacvlan:
		if _, ok := macvlanModes[c.linked]; !ok {
			return invalid("macvlan has no such mode", fmt.Sprintf("%q: bridge, private, vepa and passthru are possible", c.linked))
		}
	case modeIPVLAN:
		if _, ok := ipvlanModes[c.linked]; !ok {
			return invalid("ipvlan has no such mode", fmt.Sprintf("%q: l2, l3 and l3s are possible", c.linked))
		}
	case modeVLAN:
		switch {
		case c.Master == "":
			return invalid("vlan needs master", "the link whose frames with the tag are the container's")
		case c.VLANID == nil || *c.VLANID < 1 || *c.VLANID > 4094:
			return invalid("vlanId is no VLAN", fmt.Sprintf("%s: 1 to 4094 are possible", number(c.VLANID)))
		}
	case modeTap:
		if c.SelinuxContext != "" {
			return unsupported("selinuxContext", c.SelinuxContext, "the device is made without another program, which would run in that context")
		}
	case modeLoopback:
		if c.linked != "" {
			return invalid("loopback has no modes", fmt.Sprintf("%q", c.linked))
		}
	}
	return nil
}

func number(n *int) string {
	if n == nil {
		return "none"
	}
	return fmt.Sprint(*n)
}

// checkForeign refuses keys that ask for something in another mode.
func (c *config) checkForeign() error {
	in := func(all ...string) bool { return slices.Contains(all, c.as) }
	for _, k := range []struct {
		key   string
		asked bool
		value any
		fits  bool
	}{
		{"isGateway", c.IsGateway && c.as != modePTP || c.IsDefaultGateway, true, in(modeBridge)},
		{"forceAddress", c.ForceAddress, true, in(modeBridge)},
		{"hairpinMode", c.HairpinMode, true, in(modeBridge)},
		{"portIsolation", c.PortIsolation, true, in(modeBridge)},
		{"promiscMode", c.PromiscMode, true, in(modeBridge)},
		{"macspoofchk", c.MacSpoofChk, true, in(modeBridge)},
		{"vlan", c.VLAN != 0, c.VLAN, in(modeBridge)},
		{"vlanTrunk", len(c.VLANTrunk) > 0, c.VLANTrunk, in(modeBridge)},
		{"disableContainerInterface", c.DisableContainerInterface, true, in(modeBridge)},
		{"ipMasq", c.IPMasq, true, in(modeBridge, modePTP)},
		{"bridge", c.given != "", c.given, in(modeBridge, modeTap)},
		{"ingressPolicy", c.IngressPolicy != "", c.IngressPolicy, in(modeBridge, modePTP)},
		{"isolate", c.Isolate, true, in(modeBridge, modePTP)},
		{"internal", c.Internal, true, in(modeBridge, modePTP)},
		{"acceptForward", c.AcceptForward, true, in(modeBridge, modePTP)},
		{"flowtable", c.Flowtable, true, in(modeBridge, modePTP)},
		{"policy", c.policy != nil, c.policyKey, in(modeBridge, modePTP)},
		{"portMappings", len(c.RuntimeConfig.PortMappings) > 0, c.RuntimeConfig.PortMappings, in(modeBridge, modePTP)},
		{"bandwidth", c.limits != limits{}, c.limits, in(modeBridge, modePTP)},
		{"preserveDefaultVlan", c.PreserveDefaultVlan, true, in(modeBridge)},
		{"master", c.Master != "", c.Master, in(modeMacvlan, modeIPVLAN, modeVLAN)},
		{"linkInContainer", c.LinkInContainer, true, in(modeMacvlan, modeIPVLAN, modeVLAN)},
		{"vlanId", c.VLANID != nil, c.VLANID, in(modeVLAN)},
		{"mac", c.modeKeys.MAC != "", c.modeKeys.MAC, in(modeMacvlan, modeTap)},
		{"bcqueuelen", c.BcQueueLen != 0, c.BcQueueLen, in(modeMacvlan)},
		{"macvlanMode", c.MacvlanMode != "", c.MacvlanMode, in(modeMacvlan)},
		{"ipvlanMode", c.IPVLANMode != "", c.IPVLANMode, in(modeIPVLAN)},
		{"multiQueue", c.MultiQueue, true, in(modeTap)},
		{"owner", c.Owner != nil, c.Owner, in(modeTap)},
		{"group", c.Group != nil, c.Group, in(modeTap)},
		{"selinuxContext", c.SelinuxContext != "", c.SelinuxContext, in(modeTap)},
		{"device", c.Device != "", c.Device, in(modeHostDevice)},
		{"hwaddr", c.HWAddr != "", c.HWAddr, in(modeHostDevice)},
		{"kernelpath", c.KernelPath != "", c.KernelPath, in(modeHostDevice)},
		{"pciBusID", c.PCIBusID != "", c.PCIBusID, in(modeHostDevice)},
		{"enabledad", c.EnableDAD, true, !in(modeHostDevice, modeLoopback)},
		{"mtu", c.MTU != 0, c.MTU, !in(modeHostDevice, modeLoopback)},
		{"ipam", c.IPAM.Type != "", c.IPAM.Type, !in(modeLoopback)},
	} {
		if k.asked && !k.fits {
			return unsupported(k.key, k.value, "the mode "+c.as+" has no such key")
		}
	}
	return nil
}
