package netpolicy

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// A cluster is a node with nine pods in three namespaces, and a client beyond it:
//
//	x/a 10.64.0.1, fd64::1 --- xa --+
//	x/b 10.64.0.2, fd64::2 --- xb --+ node --- wan 203.0.113.1, 2001:db8::1 --- 203.0.113.2, 2001:db8::2 outside
//	...                             |
//	z/c 10.64.0.9, fd64::9 --- zc --+
//
// Each pod has a link to the node, which routes, and its addresses have the length of an address.
// All ends serve TCP, UDP and SCTP on the ports 80 and 81.
type cluster struct {
	*testing.T
	node *netns.NS
	gw   *nat.NAT
	ends []*end // the pods, and the outside last

	networks []nat.Network
	policies map[string]networkingv1.NetworkPolicy // by name
	pods     []Pod                                 // as they are labelled now
}

// An end is where connections begin and end. That of no pod has no namespace.
type end struct {
	*netns.NS
	name  string
	addrs []netip.Addr
	sctp  []*sctp // by family, as addrs
}

var (
	ports    = []int32{80, 81}
	protos   = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	gateways = []netip.Addr{netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("fe80::1")}
	outside  = []netip.Prefix{netip.MustParsePrefix("203.0.113.2/24"), netip.MustParsePrefix("2001:db8::2/64")}
	wan      = []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
	pods     = []netip.Prefix{netip.MustParsePrefix("10.64.0.0/24"), netip.MustParsePrefix("fd64::/64")}
)

func newCluster(t *testing.T) *cluster {
	t.Helper()
	netnstest.NeedIPv6(t)
	c := &cluster{T: t, node: netnstest.New(t)}
	// Every denied packet gets its answer.
	for key, value := range map[string]string{"net.ipv4.icmp_ratelimit": "0", "net.ipv4.icmp_ratemask": "0", "net.ipv6.icmp.ratemask": "0"} {
		c.must(c.node.SetSysctl(t.Context(), key, value))
	}
	var err error
	if c.gw, err = nat.Open(t.Context(), c.node, nat.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.gw.Close() })
	for i, name := range []string{"x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c"} {
		four, six := pods[0].Addr().As4(), pods[1].Addr().As16()
		four[3], six[15] = byte(i+1), byte(i+1)
		e := &end{NS: netnstest.New(t), name: name, addrs: []netip.Addr{netip.AddrFrom4(four), netip.AddrFrom16(six)}}
		c.ends = append(c.ends, e)
		n := nat.Network{Interface: name[:1] + name[2:], Trusted: []netip.Prefix{outside[0].Masked(), outside[1].Masked()}}
		for _, a := range e.addrs {
			n.Subnets = append(n.Subnets, netip.PrefixFrom(a, a.BitLen()))
		}
		c.connect(e, n.Interface, n.Subnets, []netip.Prefix{netip.PrefixFrom(gateways[0], 32), netip.PrefixFrom(gateways[1], 64)}, gateways)
		c.networks = append(c.networks, n)
	}
	for i := range c.networks { // every pod reaches every pod
		for _, other := range c.networks {
			if other.Interface != c.networks[i].Interface {
				c.networks[i].AllowTo = append(c.networks[i].AllowTo, other.Interface)
			}
		}
	}
	e := &end{NS: netnstest.New(t), name: "outside", addrs: []netip.Addr{outside[0].Addr(), outside[1].Addr()}}
	c.ends = append(c.ends, e)
	c.connect(e, "wan", outside, wan, []netip.Addr{wan[0].Addr(), wan[1].Addr()})
	for _, e := range c.ends {
		c.serve(e)
	}
	c.serve(&end{NS: c.node})
	c.reset()
	c.apply()
	return c
}

func (c *cluster) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// connect makes the link between the node and an end, which gets a default route to the gateways.
func (c *cluster) connect(e *end, name string, addrs, node []netip.Prefix, via []netip.Addr) {
	c.Helper()
	ctx := c.Context()
	l, err := link.Create(ctx, c.node, link.Spec{Name: name, Up: true, Addrs: node, Kind: link.Veth{
		Peer: link.Spec{NS: e.NS, Name: "eth0", Up: true, Addrs: addrs},
	}})
	c.must(err)
	eth, err := link.Get(ctx, e.NS, "eth0")
	c.must(err)
	for i, a := range addrs {
		if a.IsSingleIP() {
			c.must(route.Add(ctx, c.node, route.Route{Dst: a, Dev: l.Index}))
		}
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if i == 1 {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		c.must(route.Add(ctx, e.NS, route.Route{Dst: all, Via: via[i], Dev: eth.Index, OnLink: true}))
	}
}

// reset takes away the policies, and what has been changed of the labels.
func (c *cluster) reset() {
	c.policies = make(map[string]networkingv1.NetworkPolicy)
	c.pods = nil
	for _, e := range c.ends[:len(c.ends)-1] {
		p := Pod{
			Namespace: e.name[:1], Name: e.name[2:], Addrs: e.addrs,
			Labels:          map[string]string{"pod": e.name[2:]},
			NamespaceLabels: map[string]string{corev1.LabelMetadataName: e.name[:1]},
		}
		for _, proto := range protos {
			for _, port := range ports {
				p.Ports = append(p.Ports, corev1.ContainerPort{Name: fmt.Sprintf("serve-%d-%s", port, shorts[proto]), ContainerPort: port, Protocol: proto})
			}
		}
		c.pods = append(c.pods, p)
	}
}

var shorts = map[corev1.Protocol]string{corev1.ProtocolTCP: "tcp", corev1.ProtocolUDP: "udp", corev1.ProtocolSCTP: "sctp"}

// pod is one of the pods, to change.
func (c *cluster) pod(name string) *Pod {
	return &c.pods[slices.IndexFunc(c.ends, func(e *end) bool { return e.name == name })]
}

// all are the policies, sorted.
func (c *cluster) all() (all []networkingv1.NetworkPolicy) {
	for _, name := range slices.Sorted(maps.Keys(c.policies)) {
		all = append(all, c.policies[name])
	}
	return all
}

// apply brings the node to what the objects say.
func (c *cluster) apply() {
	c.Helper()
	policies, err := Translate(c.all(), c.pods)
	c.must(err)
	for i := range policies {
		policies[i].Refuse = true // nothing waits
	}
	c.must(c.gw.Sync(c.Context(), nat.State{Networks: c.networks, Policies: policies}))
}

// A probe is one connection, and what became of it.
type probe struct {
	connection
	reached bool
	err     error // of what was not reached
}

func (p probe) String() string {
	return fmt.Sprintf("%s %v -> %v port %d", p.proto, p.src, p.dst, p.port)
}

// atOnce is how many probes are under way.
const atOnce = 32

// probes connects from each end to each other one, by each protocol, to each port, in both
// families.
func (c *cluster) probes() (all []probe) {
	c.Helper()
	pod := func(i int) Pod {
		if i < len(c.pods) {
			return c.pods[i]
		}
		return Pod{}
	}
	for f, from := range c.ends {
		for t, to := range c.ends {
			for family := range from.addrs {
				for _, proto := range protos {
					for _, port := range ports {
						all = append(all, probe{connection: connection{pod(f), pod(t), from.addrs[family], to.addrs[family], proto, port}})
					}
				}
			}
		}
	}
	turns := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	i := 0
	for _, from := range c.ends {
		for range c.ends {
			for family := range from.addrs {
				for range len(protos) * len(ports) {
					p := &all[i]
					i++
					turns <- struct{}{}
					wg.Go(func() {
						defer func() { <-turns }()
						ctx, cancel := context.WithTimeout(c.Context(), 10*time.Second)
						defer cancel()
						p.err = from.connect(ctx, from.sctp[family], netip.AddrPortFrom(p.dst, uint16(p.port)), p.proto)
						p.reached = p.err == nil
					})
				}
			}
		}
	}
	wg.Wait()
	return all
}
