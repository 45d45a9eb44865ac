//go:build linux

package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// bridgeAlias marks a bridge as one that run has made, and removes again.
const bridgeAlias = "boxwire run bridge"

// portGroup is the link group of the boxes' bridge ports.
const portGroup = 0xb0c22

// gateway is the host's address in a subnet: the first one.
func gateway(subnet netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(subnet.Masked().Addr().Next(), subnet.Bits())
}

// ensureBridge makes the bridge and its network, or finds those that other boxes
// use and makes sure that they are what is asked for. A bridge that a run was killed
// over is finished.
func ensureBridge(ctx context.Context, host *netns.NS, o *options) (link.Link, error) {
	begin := link.Create
	br, err := link.Get(ctx, host, o.bridge)
	if err == nil {
		own, half, err := isOwn(ctx, br)
		if err != nil {
			return br, err
		}
		if !own {
			flag := "-bridge"
			if o.program.fixed() {
				flag = "bridge"
			}
			return br, fmt.Errorf("%s %s: there is such a link (%s), and %s has not made it", flag, o.bridge, kindOf(br), o.program.Name)
		}
		if !half {
			return br, checkBridge(ctx, br, o)
		}
		begin = link.Ensure
	} else if !errors.Is(err, os.ErrNotExist) {
		return br, err
	}
	if err := freeSubnets(ctx, host, o); err != nil {
		return br, err
	}
	spec := link.Spec{
		Name: o.bridge, Up: true, Kind: link.Bridge{MulticastSnooping: yes(false)}, MTU: o.mtu,
		MAC: stableMAC(o.bridge), Alias: bridgeAlias,
	}
	for _, s := range o.subnets {
		spec.Addrs = append(spec.Addrs, gateway(s))
	}
	if br, err = begin(ctx, host, spec); err != nil {
		return br, err
	}
	return br, addNetwork(ctx, host, o)
}

// addNetwork opens the way between the bridge and the world.
func addNetwork(ctx context.Context, host *netns.NS, o *options) error {
	gw, err := openNAT(ctx, host)
	if err != nil {
		return err
	}
	defer gw.Close()
	return gw.SetNetwork(ctx, nat.Network{
		Interface: o.bridge, Subnets: o.subnets,
		Masquerade: !o.internal, Internal: o.internal, Isolated: o.isolate, Trusted: o.trusted, PortGroup: portGroup,
	})
}

// isOwn says whether run has made a bridge, and whether it was killed before the
// bridge was finished: the kernel takes the hardware address in the message that
// makes a link, and the alias in the next only.
func isOwn(ctx context.Context, br link.Link) (own, half bool, err error) {
	alias, err := aliasOf(ctx, br)
	half = err == nil && alias == "" && br.Kind == "bridge" && bytes.Equal(br.MAC, stableMAC(br.Name))
	return half || alias == bridgeAlias, half, err
}

// checkBridge looks whether a bridge of run's is the one that is asked for.
func checkBridge(ctx context.Context, br link.Link, o *options) error {
	addrs, err := br.Addrs(ctx)
	if err != nil {
		return err
	}
	var have []netip.Prefix
	for _, a := range addrs {
		if !a.Prefix.Addr().IsLinkLocalUnicast() && a.Prefix == gateway(a.Prefix) && !slices.Contains(have, a.Prefix.Masked()) { // and not an address that was added by hand
			have = append(have, a.Prefix.Masked())
		}
	}
	if !o.ownSubnets {
		o.subnets = have // the bridge's are as good as the defaults
	}
	for _, s := range o.subnets {
		if !slices.Contains(have, s) {
			return fmt.Errorf("%s: the bridge %s has %v, for the boxes that are on it", o.subnet(s), o.bridge, have)
		}
	}
	gw, err := openNAT(ctx, br.NS())
	if err != nil {
		return err
	}
	defer gw.Close()
	networks, err := gw.ListNetworks(ctx)
	if err != nil {
		return err
	}
	for _, n := range networks {
		if n.Interface != o.bridge {
			continue
		}
		if n.Internal != o.internal || n.Isolated != o.isolate {
			return fmt.Errorf("-internal and -isolate are a bridge's: %s has -internal=%t -isolate=%t, for the boxes that are on it", o.bridge, n.Internal, n.Isolated)
		}
		if o.program.fixed() && !samePrefixes(n.Trusted, o.trusted) {
			return fmt.Errorf("trusted prefixes %v: the bridge %s has %v, for the boxes that are on it", o.trusted, o.bridge, n.Trusted)
		}
		return nil
	}
	return addNetwork(ctx, br.NS(), o) // cut off between the bridge and its network
}

// samePrefixes says whether two lists have the same prefixes, in any order.
func samePrefixes(a, b []netip.Prefix) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Prefix.Compare)
	slices.SortFunc(b, netip.Prefix.Compare)
	return slices.Equal(a, b)
}

// freeSubnets refuses a subnet that a link of the host is in already, and one of
// IPv6 where the host has none; that of the defaults is left out then.
func freeSubnets(ctx context.Context, host *netns.NS, o *options) error {
	// A kernel that was started without has no such setting.
	off, err := host.Sysctl(ctx, "net/ipv6/conf/default/disable_ipv6")
	if is6 := func(s netip.Prefix) bool { return s.Addr().Is6() }; err != nil || off != "0" {
		if i := slices.IndexFunc(o.subnets, is6); i >= 0 && o.ownSubnets {
			return fmt.Errorf("%s: IPv6 is switched off on this host (net.ipv6.conf.default.disable_ipv6)", o.subnet(o.subnets[i]))
		}
		o.subnets = slices.DeleteFunc(o.subnets, is6)
	}
	addrs, err := link.ListAddrs(ctx, host)
	if err != nil {
		return err
	}
	for _, s := range o.subnets {
		for _, a := range addrs {
			shared := o.program.fixed() && a.Prefix.Addr() == gateway(s).Addr() && a.Prefix.IsSingleIP()
			if shared || !a.Prefix.Masked().Overlaps(s) {
				continue
			}
			holder := fmt.Sprint("link ", a.Link)
			if l, err := link.ByIndex(ctx, host, a.Link); err == nil {
				holder = "link " + l.Name
			}
			hint := "; choose another with -subnet"
			if o.program.fixed() {
				hint = ""
			}
			return fmt.Errorf("subnet %v overlaps %v of %s%s", s, a.Prefix, holder, hint)
		}
	}
	return nil
}

// dropBridge removes the bridge with its network after the last box. It leaves a
// bridge alone that run has not made, and one whose network could not be removed:
// with the bridge the next try would not find it.
func dropBridge(ctx context.Context, host *netns.NS, name string) error {
	br, err := link.Get(ctx, host, name)
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	if own, _, err := isOwn(ctx, br); err != nil || !own {
		return err
	}
	ports, err := link.List(ctx, host, link.Filter{Master: br.Ref()})
	if err != nil || len(ports) > 0 {
		return err
	}
	gw, err := openOldNAT(ctx, host)
	if err != nil {
		return err
	}
	if gw != nil {
		defer gw.Close()
		if err := netns.IgnoreNotExist(gw.DeleteNetwork(ctx, name)); err != nil {
			return err
		}
	}
	return netns.IgnoreNotExist(br.Delete(ctx))
}

// dropTable removes networks whose bridge is gone, and a table that has neither
// networks nor ports.
func dropTable(ctx context.Context, host *netns.NS) error {
	gw, err := openOldNAT(ctx, host)
	if gw == nil {
		return err
	}
	defer gw.Close()
	networks, err := gw.ListNetworks(ctx)
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	used := false
	for _, n := range networks {
		_, err := link.Get(ctx, host, n.Interface)
		if errors.Is(err, os.ErrNotExist) {
			err = netns.IgnoreNotExist(gw.DeleteNetwork(ctx, n.Interface))
		} else {
			used = true
		}
		if err != nil {
			return err
		}
	}
	published, err := gw.ListPorts(ctx)
	if err == nil && !used && len(published) == 0 {
		err = gw.Delete(ctx)
	}
	return netns.IgnoreNotExist(err)
}

// stableMAC returns a locally administered hardware address made of a name. Without
// one, a bridge takes that of a port, and changes it as boxes come and go. By it
// run also knows its own bridge, before that has an alias, from one that was made
// by hand.
func stableMAC(name string) net.HardwareAddr {
	h := fnv.New64a()
	h.Write([]byte(name))
	sum := h.Sum(nil)
	return net.HardwareAddr{0x02, sum[1], sum[2], sum[3], sum[4], sum[5]}
}

func kindOf(l link.Link) string {
	if l.Kind == "" {
		return "hardware"
	}
	return l.Kind
}
