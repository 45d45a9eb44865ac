package nat

import (
	"cmp"
	"context"
	"slices"

	"github.com/boxwire/boxwire/internal/forwarding"
	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/rtnl"
	"golang.org/x/sys/unix"
)

// maxDevices is how many links the flowtable has at most. The kernel describes all of them in one
// message of 3.7 KiB (nf_tables_fill_flowtable_info, NLMSG_GOODSIZE).
const maxDevices = 150

// flowDevices returns the devices of the flowtable: the links of the networks with the option that
// exist, and those that lead elsewhere. That takes an address: a link without one, such as the end of a
// box's that has yet to become a port of a bridge, leads to no router.
//
// The ports of the networks' bridges are among them where the kernel takes no flow without. It sends to
// them past the bridge, and its hooks do not see the flow (nft_dev_path_info, DEV_PATH_BRIDGE).
func (n *NAT) flowDevices(ctx context.Context, p *forwarding.Plan, networks []string) ([]string, error) {
	addrs, err := rtnl.Addrs(ctx, n.ns, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	addressed := make(map[int]bool)
	for _, a := range addrs {
		if leadsElsewhere(a) {
			addressed[a.Link] = true
		}
	}
	candidates := make([]flowDevice, 0, len(p.Routed))
	bridges := make(map[int]bool)
	for name, index := range p.Routed {
		switch {
		case slices.Contains(networks, name):
			candidates = append(candidates, flowDevice{name, index, deviceOwn})
			bridges[index] = true
		case addressed[index]:
			candidates = append(candidates, flowDevice{name, index, deviceElsewhere})
		}
	}
	for name, port := range p.Ports {
		if bridges[port.Master] && throughPorts() {
			candidates = append(candidates, flowDevice{name, port.Index, devicePort})
		}
	}
	slices.SortFunc(candidates, func(a, b flowDevice) int { return cmp.Or(a.rank-b.rank, a.index-b.index) })
	var devices []string
	for _, d := range candidates[:min(len(candidates), maxDevices)] {
		devices = append(devices, d.name)
	}
	slices.Sort(devices)
	return devices, nil
}

// flowDevice is a link that may be a device of the flowtable.
type flowDevice struct {
	name        string
	index, rank int
}

// The ranks of devices: who is first has one of the places.
const (
	deviceOwn = iota
	deviceElsewhere
	devicePort
)

// throughPorts reports whether the kernel takes a flow through a bridge only if the flowtable has the port.
func throughPorts() bool { return kernel.AtLeast(7, 2) }

// leadsElsewhere reports whether a link with the address may lead to a router.
func leadsElsewhere(a rtnl.Addr) bool {
	ip := a.Local.Addr()
	return ip.IsValid() && !ip.IsLinkLocalUnicast() && !ip.IsLoopback()
}
