package netpolicy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A connection is judged by what the documentation of the objects' fields says. The code shares
// nothing with the translation.
type connection struct {
	from, to Pod // without a namespace: no pod
	src, dst netip.Addr
	proto    corev1.Protocol
	port     int32
}

// allowed reports whether the client's side and the server's side allow a connection. A pod always
// reaches itself.
func (c connection) allowed(policies []networkingv1.NetworkPolicy) bool {
	if c.src == c.dst {
		return true
	}
	return c.sideAllows(policies, networkingv1.PolicyTypeEgress) && c.sideAllows(policies, networkingv1.PolicyTypeIngress)
}

// sideAllows reports whether one side is not isolated, or one of its policies has a rule for it.
func (c connection) sideAllows(policies []networkingv1.NetworkPolicy, side networkingv1.PolicyType) bool {
	subject := c.to
	if side == networkingv1.PolicyTypeEgress {
		subject = c.from
	}
	isolated := false
	for _, np := range policies {
		if subject.Namespace != np.Namespace || !matches(np.Spec.PodSelector, subject.Labels) || !applies(np.Spec, side) {
			continue
		}
		isolated = true
		if side == networkingv1.PolicyTypeEgress {
			for _, r := range np.Spec.Egress {
				if c.peerMatches(np.Namespace, r.To, c.to, c.dst) && c.portMatches(r.Ports) {
					return true
				}
			}
			continue
		}
		for _, r := range np.Spec.Ingress {
			if c.peerMatches(np.Namespace, r.From, c.from, c.src) && c.portMatches(r.Ports) {
				return true
			}
		}
	}
	return !isolated
}

func applies(spec networkingv1.NetworkPolicySpec, side networkingv1.PolicyType) bool {
	if spec.PolicyTypes != nil {
		return slices.Contains(spec.PolicyTypes, side)
	}
	return side == networkingv1.PolicyTypeIngress || spec.Egress != nil
}

func (c connection) peerMatches(namespace string, peers []networkingv1.NetworkPolicyPeer, pod Pod, addr netip.Addr) bool {
	if len(peers) == 0 {
		return true
	}
	for _, p := range peers {
		if p.IPBlock != nil {
			in := func(cidr string) bool { return netip.MustParsePrefix(cidr).Contains(addr) }
			if in(p.IPBlock.CIDR) && !slices.ContainsFunc(p.IPBlock.Except, in) {
				return true
			}
			continue
		}
		if pod.Namespace == "" { // selectors select pods
			continue
		}
		switch {
		case p.NamespaceSelector == nil && pod.Namespace != namespace:
		case p.NamespaceSelector != nil && !matches(*p.NamespaceSelector, pod.NamespaceLabels):
		case p.PodSelector != nil && !matches(*p.PodSelector, pod.Labels):
		default:
			return true
		}
	}
	return false
}

func (c connection) portMatches(ports []networkingv1.NetworkPolicyPort) bool {
	if len(ports) == 0 {
		return true
	}
	for _, p := range ports {
		switch {
		case p.Protocol == nil && c.proto != corev1.ProtocolTCP, p.Protocol != nil && *p.Protocol != c.proto:
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			for _, named := range c.to.Ports {
				if named.Name == p.Port.StrVal && named.Protocol == c.proto && named.ContainerPort == c.port {
					return true
				}
			}
		case p.EndPort != nil:
			if p.Port.IntVal <= c.port && c.port <= *p.EndPort {
				return true
			}
		case p.Port.IntVal == c.port:
			return true
		}
	}
	return false
}

// matches evaluates a selector. An empty one selects everything.
func matches(s metav1.LabelSelector, labels map[string]string) bool {
	for k, v := range s.MatchLabels {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		have, ok := labels[e.Key]
		in := ok && slices.Contains(e.Values, have)
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			ok = in
		case metav1.LabelSelectorOpNotIn:
			ok = !in
		case metav1.LabelSelectorOpExists:
		case metav1.LabelSelectorOpDoesNotExist:
			ok = !ok
		}
		if !ok {
			return false
		}
	}
	return true
}
