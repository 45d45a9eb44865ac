// Package netpolicy translates Kubernetes' NetworkPolicy (networking.k8s.io/v1) into policies of
// package nat. It exists to show by tests that a [nat.Policy] can say what a NetworkPolicy says.
//
// A namespace without a NetworkPolicy, a pod that none selects and a direction that none names are
// not limited: they have no [nat.Policy], or no Rules. Replies always pass.
//
// # What NetworkPolicy leaves open
//
// A pod always reaches its node and is reached by it, so each limited Egress has a rule for the
// host. What is said about neither TCP, UDP nor SCTP is up to the implementation: here it passes
// where a rule names no ports. A name of a port that a pod does not have is no port. The name of a
// port in Egress is that of the destination's, also if an IPBlock or nothing names the destination.
//
// # What cannot be said
//
// A [nat.Policy] names each peer by its addresses, so there is one rule for each selected address
// and port, at most [nat.MaxRules] for a pod. A pod that may reach all of a namespace of 5,000
// pods, but for others, does not fit. A range of ports takes several elements of the kernel, which
// have a maximum too. Labels of peers that change make policies that change.
//
// A pod that shares the network of its node has the node's addresses. It has no policy, and as a
// peer it is its node.
package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/nat"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Pod is what a translation has to know about a pod.
type Pod struct {
	Namespace, Name string
	Labels          map[string]string
	NamespaceLabels map[string]string
	Addrs           []netip.Addr           // one a family; none before the pod has a network
	Ports           []corev1.ContainerPort // with their names
}

func (p Pod) String() string { return p.Namespace + "/" + p.Name }

// Translate returns the policies of the pods that are selected, in the order of the pods, each
// owned by "namespace/name".
func Translate(policies []networkingv1.NetworkPolicy, pods []Pod) ([]nat.Policy, error) {
	var all []nat.Policy
	for _, pod := range pods {
		var egress, ingress direction
		for _, np := range policies {
			t := translation{pods: pods, pod: pod, policy: np}
			if err := t.add(&egress, &ingress); err != nil {
				return nil, fmt.Errorf("NetworkPolicy %s/%s: %w", np.Namespace, np.Name, err)
			}
		}
		if len(pod.Addrs) > 0 && (egress.rules != nil || ingress.rules != nil) {
			all = append(all, nat.Policy{Box: pod.Addrs, Owner: pod.String(), Egress: egress.rules, Ingress: ingress.rules})
		}
	}
	return all, nil
}

// A direction is what a pod's policies allow in one direction; without rules, it is not limited.
type direction struct {
	rules *nat.Rules
	have  map[string]bool
}

// limit limits the direction. What is not added is denied.
func (d *direction) limit() {
	if d.rules == nil {
		d.rules, d.have = &nat.Rules{}, make(map[string]bool)
	}
}

// add adds a rule, unless it is there.
func (d *direction) add(r nat.Rule) {
	if text := r.String(); !d.have[text] {
		d.have[text] = true
		d.rules.Allow = append(d.rules.Allow, r)
	}
}

// A translation is of one NetworkPolicy for one pod.
type translation struct {
	pods   []Pod
	pod    Pod
	policy networkingv1.NetworkPolicy
}

// add adds what the NetworkPolicy allows the pod.
func (t translation) add(egress, ingress *direction) error {
	spec := t.policy.Spec
	selected, err := selects(&spec.PodSelector, t.pod.Labels)
	if err != nil || !selected || t.pod.Namespace != t.policy.Namespace {
		return err
	}
	types := spec.PolicyTypes
	if len(types) == 0 {
		types = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(spec.Egress) > 0 {
			types = append(types, networkingv1.PolicyTypeEgress)
		}
	}
	if slices.Contains(types, networkingv1.PolicyTypeIngress) {
		ingress.limit()
		for i, r := range spec.Ingress {
			if err := t.rules(ingress, r.From, r.Ports, false); err != nil {
				return fmt.Errorf("ingress[%d]: %w", i, err)
			}
		}
	}
	if slices.Contains(types, networkingv1.PolicyTypeEgress) {
		egress.limit()
		egress.add(nat.Rule{Host: true})
		for i, r := range spec.Egress {
			if err := t.rules(egress, r.To, r.Ports, true); err != nil {
				return fmt.Errorf("egress[%d]: %w", i, err)
			}
		}
	}
	return nil
}

// rules adds one rule of a direction: each peer with each port.
func (t translation) rules(d *direction, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, egress bool) error {
	blocks, err := t.blocks(peers)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if !slices.ContainsFunc(t.pod.Addrs, func(a netip.Addr) bool { return a.Is4() == b.Peer.Addr().Is4() }) {
			continue // the pod has no address of that family
		}
		if len(ports) == 0 {
			d.add(b)
		}
		for i, p := range ports {
			if err := t.port(d, b, p, egress); err != nil {
				return fmt.Errorf("ports[%d]: %w", i, err)
			}
		}
	}
	return nil
}

// port adds the rules of one port for a block of peers.
func (t translation) port(d *direction, block nat.Rule, port networkingv1.NetworkPolicyPort, egress bool) error {
	proto := corev1.ProtocolTCP
	if port.Protocol != nil {
		proto = *port.Protocol
	}
	var ok bool
	if block.Proto, ok = protocols[proto]; !ok {
		return fmt.Errorf("%q is no protocol of a NetworkPolicy", proto)
	}
	switch {
	case port.Port == nil && port.EndPort != nil:
		return fmt.Errorf("endPort %d needs a port", *port.EndPort)
	case port.Port == nil:
		d.add(block)
	case port.Port.Type == intstr.String && port.EndPort != nil:
		return fmt.Errorf("endPort %d needs a number as port, not %q", *port.EndPort, port.Port.StrVal)
	case port.Port.Type == intstr.String && egress:
		for _, to := range t.pods {
			for _, a := range to.Addrs {
				if n, ok := to.named(port.Port.StrVal, proto); ok && holds(block, a) {
					d.add(nat.Rule{Peer: netip.PrefixFrom(a, a.BitLen()), Proto: block.Proto, Port: n})
				}
			}
		}
	case port.Port.Type == intstr.String:
		if block.Port, ok = t.pod.named(port.Port.StrVal, proto); ok {
			d.add(block)
		}
	default:
		last := port.Port.IntVal
		if port.EndPort != nil {
			last = *port.EndPort
		}
		if port.Port.IntVal < 1 || last < port.Port.IntVal || last > 65535 {
			return fmt.Errorf("%d to %d are no ports", port.Port.IntVal, last)
		}
		block.Port, block.PortLast = uint16(port.Port.IntVal), uint16(last)
		d.add(block)
	}
	return nil
}

var protocols = map[corev1.Protocol]nat.Proto{corev1.ProtocolTCP: nat.TCP, corev1.ProtocolUDP: nat.UDP, corev1.ProtocolSCTP: nat.SCTP}

// named is the number of a pod's port.
func (p Pod) named(name string, proto corev1.Protocol) (uint16, bool) {
	for _, c := range p.Ports {
		if c.Name == name && (c.Protocol == proto || c.Protocol == "" && proto == corev1.ProtocolTCP) {
			return uint16(c.ContainerPort), true
		}
	}
	return 0, false
}

// holds reports whether an address is in a rule's Peer and in none of its exceptions.
func holds(r nat.Rule, a netip.Addr) bool {
	return r.Peer.Contains(a) && !slices.ContainsFunc(r.Except, func(e netip.Prefix) bool { return e.Contains(a) })
}

// blocks returns the peers as rules that have no protocol and port yet. No peer is everybody.
func (t translation) blocks(peers []networkingv1.NetworkPolicyPeer) (all []nat.Rule, err error) {
	if len(peers) == 0 {
		return []nat.Rule{{Peer: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, {Peer: netip.PrefixFrom(netip.IPv6Unspecified(), 0)}}, nil
	}
	for i, p := range peers {
		var more []nat.Rule
		switch selector := p.PodSelector != nil || p.NamespaceSelector != nil; {
		case p.IPBlock != nil && selector:
			err = fmt.Errorf("an ipBlock and a selector exclude each other")
		case p.IPBlock != nil:
			more, err = ipBlock(*p.IPBlock)
		case selector:
			more, err = t.selected(p)
		default:
			err = fmt.Errorf("the peer is empty")
		}
		if err != nil {
			return nil, fmt.Errorf("peer %d: %w", i, err)
		}
		all = append(all, more...)
	}
	return all, nil
}

// ipBlock returns the block with the widest of its exceptions.
func ipBlock(b networkingv1.IPBlock) ([]nat.Rule, error) {
	cidr, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return nil, err
	}
	r := nat.Rule{Peer: cidr.Masked()}
	for _, text := range b.Except {
		e, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		if e = e.Masked(); e.Bits() <= r.Peer.Bits() || !r.Peer.Contains(e.Addr()) {
			return nil, fmt.Errorf("the exception %v is not strictly within %v", e, r.Peer)
		}
		r.Except = append(r.Except, e)
	}
	slices.SortFunc(r.Except, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	var widest []netip.Prefix
	for _, e := range r.Except {
		if !slices.ContainsFunc(widest, e.Overlaps) {
			widest = append(widest, e)
		}
	}
	r.Except = widest
	return []nat.Rule{r}, nil
}

// selected returns the addresses of the pods that a peer selects.
func (t translation) selected(p networkingv1.NetworkPolicyPeer) (all []nat.Rule, err error) {
	for _, pod := range t.pods {
		is := pod.Namespace == t.policy.Namespace
		if p.NamespaceSelector != nil {
			if is, err = selects(p.NamespaceSelector, pod.NamespaceLabels); err != nil {
				return nil, err
			}
		}
		if p.PodSelector != nil && is {
			if is, err = selects(p.PodSelector, pod.Labels); err != nil {
				return nil, err
			}
		}
		for _, a := range pod.Addrs {
			if is {
				all = append(all, nat.Rule{Peer: netip.PrefixFrom(a, a.BitLen())})
			}
		}
	}
	return all, nil
}

func selects(s *metav1.LabelSelector, of map[string]string) (bool, error) {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(of)), err
}
