//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// A config is what comes in on standard input. Keys mean what they mean to the
// reference plugins that have them.
type config struct {
	types.PluginConf

	Bridge           string `json:"bridge"`           // "boxwire0"; of tap, one of the container
	IsGateway        bool   `json:"isGateway"`        // the bridge gets the gateways' addresses
	IsDefaultGateway bool   `json:"isDefaultGateway"` // and the container a default route to them
	IPMasq           bool   `json:"ipMasq"`
	HairpinMode      bool   `json:"hairpinMode"`
	MTU              int    `json:"mtu"`
	Isolate          bool   `json:"isolate"`       // containers of the network reach each other's published ports only
	Internal         bool   `json:"internal"`      // no way out
	AcceptForward    bool   `json:"acceptForward"` // iptables' forward chain, Docker's say, accepts the network
	Flowtable        bool   `json:"flowtable"`     // the kernel's flowtable forwards established flows
	limits                  // for every container; without any, those of the runtime hold
	reference
	modeKeys

	// Policy is what the container may reach, and who may reach it: for every container of the
	// network, unless the runtime has one for this container.
	Policy json.RawMessage `json:"policy"`

	RuntimeConfig struct {
		MAC          string          `json:"mac"`
		IPs          []string        `json:"ips"`
		PortMappings []portMapping   `json:"portMappings"`
		Bandwidth    *limits         `json:"bandwidth"`
		Policy       json.RawMessage `json:"policy"`
		DeviceID     string          `json:"deviceID"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			MAC    string          `json:"mac"`
			IPs    []string        `json:"ips"`
			Policy json.RawMessage `json:"policy"`
		} `json:"cni"`
	} `json:"args"`

	mac       net.HardwareAddr // that is asked for
	wanted    []netip.Addr     // the same
	pool      *pool            // of the built-in allocator; nil without
	policy    *nat.Policy      // without addresses and owner; nil without
	policyKey string           // where policy is from
}

// limits are of the bandwidth capability, in bits per second and bits, as the
// container sees them: ingress is what it receives.
type limits struct {
	IngressRate  uint64 `json:"ingressRate"`
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

// A portMapping is one entry of the portMappings capability.
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// parseConfig reads the configuration and refuses what cannot work.
func parseConfig(args *skel.CmdArgs) (*config, error) {
	c := &config{}
	if err := json.Unmarshal(args.StdinData, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the network configuration cannot be read", err.Error())
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
	}
	if c.RuntimeConfig.Bandwidth != nil && c.limits == (limits{}) {
		c.limits = *c.RuntimeConfig.Bandwidth
	}
	if c.IsDefaultGateway {
		c.IsGateway = true
	}
	if c.IngressPolicy == "isolated" {
		c.Isolate = true
	}
	return c, c.find(args.StdinData)
}

// requested reads the requested hardware and IP addresses: those of the
// capabilities, or of args.cni, or of CNI_ARGS (CONVENTIONS.md of CNI), whose other
// keys are for other plugins. ADD alone needs them, so DEL does not fail for them.
func (c *config) requested(args string) error {
	mac, ips := c.Args.CNI.MAC, c.Args.CNI.IPs
	macCode, ipCode := types.ErrInvalidNetworkConfig, types.ErrInvalidNetworkConfig
	for pair := range strings.SplitSeq(args, ";") {
		k, v, ok := strings.Cut(pair, "=")
		switch {
		case pair == "":
		case !ok:
			return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS cannot be read", fmt.Sprintf("%q is no KEY=VALUE", pair))
		case k == "MAC" && mac == "" && c.RuntimeConfig.MAC == "":
			mac, macCode = v, types.ErrInvalidEnvironmentVariables
		case k == "IP" && len(ips)+len(c.RuntimeConfig.IPs) == 0:
			ips, ipCode = strings.Split(v, ","), types.ErrInvalidEnvironmentVariables
		}
	}
	if mac == "" && (c.as == modeMacvlan || c.as == modeTap) {
		mac = c.modeKeys.MAC
	}
	if c.RuntimeConfig.MAC != "" {
		mac = c.RuntimeConfig.MAC
	}
	if len(c.RuntimeConfig.IPs) > 0 {
		ips = c.RuntimeConfig.IPs
	}
	if mac != "" {
		var err error
		if c.mac, err = net.ParseMAC(mac); err != nil || len(c.mac) != 6 || c.mac[0]&1 != 0 {
			return types.NewError(macCode, "mac is no hardware address of a link", fmt.Sprintf("%q: six bytes, unicast", mac))
		}
	}
	for _, s := range ips {
		ip, _, _ := strings.Cut(s, "/")
		addr, err := netip.ParseAddr(strings.TrimSpace(ip))
		if err != nil || addr.Zone() != "" {
			return types.NewError(ipCode, "a wanted IP address cannot be read", fmt.Sprintf("%q", s))
		}
		if addr = addr.Unmap(); !slices.Contains(c.wanted, addr) {
			c.wanted = append(c.wanted, addr)
		}
	}
	return nil
}

// find reads where the attachment's things are: what every verb needs.
func (c *config) find(stdin []byte) (err error) {
	c.findMode()
	if c.as == modePTP { // it is the gateway by its nature
		c.IsGateway = true
	}
	if c.Bridge == "" && c.as != modeTap || len(c.Bridge) > 15 || strings.ContainsAny(c.Bridge, "/: \t\n%") {
		return invalid("bridge is no name of a link", fmt.Sprintf("%q: 1 to 15 bytes without '/', ':', '%%' and blanks", c.Bridge))
	}
	if c.IPAM.Type == allocatorType {
		c.pool, err = parsePool(stdin)
	}
	return err
}

// check refuses what cannot work. DEL and GC do without: an attachment of an older
// version, or of a configuration that ADD has refused, goes all the same.
func (c *config) check() error {
	if err := c.reference.check(); err != nil {
		return err
	}
	if err := c.parsePolicy(); err != nil {
		return err
	}
	if err := c.checkMode(); err != nil {
		return err
	}
	if c.PromiscMode && c.HairpinMode {
		return invalid("promiscMode and hairpinMode exclude each other", "packets would come back twice")
	}
	if c.as == modeBridge && c.IsGateway && len(c.segment()) > 15 {
		return invalid("bridge is too long for its link in the VLAN", fmt.Sprintf("%q: 15 bytes are possible", c.segment()))
	}
	if c.inVLANs() && c.policy != nil {
		return invalid("vlan, vlanTrunk and "+c.policyKey+" exclude each other", "a policy needs the host to route between siblings, which it does by the bridge itself")
	}
	if c.DisableContainerInterface && c.IPAM.Type != "" {
		return invalid("disableContainerInterface and ipam exclude each other", "a link that is down has no use for addresses")
	}
	if c.MTU != 0 && (c.MTU < 68 || c.MTU > 65535) {
		return invalid("mtu is out of range", fmt.Sprintf("%d: 68 to 65535 are possible", c.MTU))
	}
	for _, m := range c.RuntimeConfig.PortMappings {
		if err := m.check(); err != nil {
			return err
		}
	}
	if err := c.checkRates(); err != nil {
		return err
	}
	// STATUS comes without the ranges that the runtime has for each container.
	if c.pool != nil && !(len(c.pool.Ranges) == 0 && c.Capabilities["ipRanges"]) {
		if err := c.pool.check(); err != nil {
			return err
		}
	}
	return nil
}

// checkRates refuses limits that cannot be set.
func (c *config) checkRates() error {
	for _, rate := range []uint64{c.IngressRate, c.EgressRate} {
		if rate != 0 && (rate < 8 || rate > 1e15) {
			return invalid("a rate is out of range", fmt.Sprintf("%d: 8 to 10^15 bits per second are possible", rate))
		}
	}
	if c.IngressRate == 0 && c.IngressBurst != 0 || c.EgressRate == 0 && c.EgressBurst != 0 {
		return invalid("a burst needs a rate", "")
	}
	return nil
}

var protocols = map[string]nat.Proto{"": nat.TCP, "tcp": nat.TCP, "udp": nat.UDP, "sctp": nat.SCTP}

func (m portMapping) proto() (nat.Proto, bool) {
	p, ok := protocols[strings.ToLower(m.Protocol)]
	return p, ok
}

func (m portMapping) check() error {
	for name, port := range map[string]int{"hostPort": m.HostPort, "containerPort": m.ContainerPort} {
		if port < 1 || port > 65535 {
			return invalid("portMappings: "+name+" is no port", fmt.Sprintf("%d: 1 to 65535 are possible", port))
		}
	}
	if _, ok := m.proto(); !ok {
		return invalid("portMappings: the protocol is none of tcp, udp and sctp", fmt.Sprintf("%q", m.Protocol))
	}
	if m.HostIP != "" {
		if a, err := netip.ParseAddr(m.HostIP); err != nil || a.Zone() != "" {
			return invalid("portMappings: hostIP is no address", fmt.Sprintf("%q", m.HostIP))
		}
	}
	return nil
}

// ports are the nat package's ports for the mappings: one for each family that
// the container has an address of, unless the mapping names one.
func (c *config) ports(owner string, box []netip.Prefix) ([]nat.Port, error) {
	var all []nat.Port
	for _, m := range c.RuntimeConfig.PortMappings {
		found := false
		proto, _ := m.proto()
		for _, is4 := range []bool{true, false} {
			host := netip.IPv6Unspecified()
			if is4 {
				host = netip.IPv4Unspecified()
			}
			if m.HostIP != "" {
				if host = netip.MustParseAddr(m.HostIP).Unmap(); host.Is4() != is4 {
					continue
				}
			}
			for _, b := range box {
				if b.Addr().Is4() == is4 {
					var err error
					if all, err = addPort(all, nat.Port{
						Proto: proto, Owner: owner,
						Host: netip.AddrPortFrom(host, uint16(m.HostPort)),
						Box:  netip.AddrPortFrom(b.Addr(), uint16(m.ContainerPort)),
					}); err != nil {
						return nil, err
					}
					found = true
					break
				}
			}
		}
		if !found {
			return nil, invalid("portMappings: the container has no address of that family", fmt.Sprintf("host port %d on %q", m.HostPort, m.HostIP))
		}
	}
	return all, nil
}

// addPort adds a port to those before it. Of two that lead to one place, the one on
// all addresses is enough. portmap takes both, as often as they come.
func addPort(all []nat.Port, p nat.Port) ([]nat.Port, error) {
	for i, have := range all {
		if !overlap(have, p) {
			continue
		}
		if have.Box != p.Box {
			return nil, invalid("portMappings: one host port leads to two ports of the container", fmt.Sprintf("%v and %v", have, p))
		}
		if have.Host == p.Host || have.Host.Addr().IsUnspecified() {
			return all, nil
		}
		if p.Host.Addr().IsUnspecified() {
			return addPort(slices.Delete(all, i, i+1), p)
		}
	}
	return append(all, p), nil
}

// rates are the limits as the host's end of the pair sees them: what the
// container receives, the host's end sends.
func (c *config) rates() (egress, ingress link.Limit) {
	return limit(c.IngressRate, c.IngressBurst), limit(c.EgressRate, c.EgressBurst)
}

// limit takes bits. A burst above what tc can say, which engines send for "any",
// is the most it can: what passes in 274 s.
func limit(rate, burst uint64) link.Limit {
	return link.Limit{Rate: link.Rate(rate), Burst: int(min(burst/8, min(rate/8, 1<<30)*270, 1<<30))}
}
