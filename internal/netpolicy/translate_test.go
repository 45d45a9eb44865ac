package netpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/nat"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// twoPods are pods of the namespace x.
func twoPods() []Pod {
	return []Pod{
		{
			Namespace: "x", Name: "a", Labels: map[string]string{"pod": "a"}, NamespaceLabels: map[string]string{"team": "red"},
			Addrs: []netip.Addr{netip.MustParseAddr("10.64.0.1"), netip.MustParseAddr("fd64::1")},
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}},
		},
		{
			Namespace: "x", Name: "b", Labels: map[string]string{"pod": "b"}, NamespaceLabels: map[string]string{"team": "red"},
			Addrs: []netip.Addr{netip.MustParseAddr("10.64.0.2")},
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		},
		{Namespace: "x", Name: "waits", Labels: map[string]string{"pod": "a"}}, // without a network yet
	}
}

// parse reads policies. The namespace is x, unless they say otherwise.
func parse(t testing.TB, text string) (all []networkingv1.NetworkPolicy) {
	t.Helper()
	for doc := range strings.SplitSeq(text, "---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		np := networkingv1.NetworkPolicy{}
		if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(doc, "\t", "  ")), &np); err != nil {
			t.Fatalf("%v in %s", err, doc)
		}
		if np.Namespace == "" {
			np.Namespace = "x"
		}
		all = append(all, np)
	}
	return all
}

// text is a policy in one line.
func text(p nat.Policy) string {
	line := p.Owner
	for _, d := range []struct {
		name  string
		rules *nat.Rules
	}{{"out", p.Egress}, {"in", p.Ingress}} {
		if d.rules == nil {
			continue
		}
		var rules []string
		for _, r := range d.rules.Allow {
			rules = append(rules, r.String())
		}
		line += fmt.Sprintf(" %s[%s]", d.name, strings.Join(rules, ", "))
	}
	return line
}

func TestTranslation(t *testing.T) {
	t.Parallel()
	const a = `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, `
	const b = `{metadata: {name: q}, spec: {podSelector: {matchLabels: {pod: b}}, `
	for _, test := range []struct {
		name, policies string
		want           []string
	}{
		{"no policy", ``, nil},
		{"another namespace's", `{metadata: {name: p, namespace: w}, spec: {podSelector: {}}}`, nil},
		{"deny ingress", a + `policyTypes: [Ingress]}}`, []string{"x/a in[]"}},
		{"deny both, all pods", `{metadata: {name: p}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}`, []string{"x/a out[host] in[]", "x/b out[host] in[]"}},
		{"types by default", a + `egress: [{}]}}`, []string{"x/a out[host, 0.0.0.0/0, ::/0] in[]"}},
		{"an egress that policyTypes do not name", a + `policyTypes: [Ingress], egress: [{}]}}`, []string{"x/a in[]"}},
		{"everybody, for a pod of one family", b + `ingress: [{}]}}`, []string{"x/b in[0.0.0.0/0]"}},
		{"a protocol", a + `ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{protocol: SCTP}]}]}}`, []string{"x/a in[sctp 10.64.0.2/32]"}},
		{"a port is one of TCP", b + `ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}], ports: [{port: 80}]}]}}`, []string{"x/b in[tcp 10.64.0.1/32 port 80, tcp 10.64.0.2/32 port 80]"}},
		{"a range", b + `ingress: [{ports: [{port: 80, endPort: 90, protocol: UDP}, {port: 7, endPort: 7}]}]}}`, []string{"x/b in[udp 0.0.0.0/0 port 80-90, tcp 0.0.0.0/0 port 7]"}},
		{"a name in ingress", `{metadata: {name: p}, spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: web}]}]}}`, []string{"x/a in[tcp 192.0.2.0/24 port 80]", "x/b in[tcp 192.0.2.0/24 port 8080]"}},
		{"a name in egress", b + `policyTypes: [Egress], egress: [{ports: [{port: web}]}]}}`, []string{"x/b out[host, tcp 10.64.0.1/32 port 80, tcp 10.64.0.2/32 port 8080]"}},
		{"a name of another protocol", a + `ingress: [{ports: [{port: web, protocol: UDP}, {port: dns, protocol: UDP}]}]}}`, []string{"x/a in[udp 0.0.0.0/0 port 53, udp ::/0 port 53]"}},
		{"a block of another family", b + `ingress: [{from: [{ipBlock: {cidr: "fd00::/8"}}]}]}}`, []string{"x/b in[]"}},
		{"exceptions in each other, and host bits", b + `ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8, except: [10.1.1.0/24, 10.1.0.7/16, 10.2.0.0/16, 10.2.0.0/16]}}]}]}}`, []string{"x/b in[10.0.0.0/8 except 10.1.0.0/16 except 10.2.0.0/16]"}},
		{"policies add up, each rule once", a + `ingress: [{from: [{podSelector: {}}]}]}}
---
{metadata: {name: r}, spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}, {ports: [{port: 80}]}]}}`, []string{
			"x/a in[10.64.0.1/32, fd64::1/128, 10.64.0.2/32, tcp 0.0.0.0/0 port 80, tcp ::/0 port 80]",
			"x/b in[10.64.0.2/32, tcp 0.0.0.0/0 port 80]"}},
		{"no pod is selected", a + `ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}]}]}}`, []string{"x/a in[]"}},
		{"a namespace's pods", a + `ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {}}]}]}}`, []string{"x/a in[]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := Translate(parse(t, test.policies), twoPods())
			if err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, p := range got {
				texts = append(texts, text(p))
			}
			if !slices.Equal(texts, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(texts, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// What the server of the API refuses is refused here as well, with the place that it is in.
func TestWhatIsNoNetworkPolicy(t *testing.T) {
	t.Parallel()
	for says, spec := range map[string]string{
		"NetworkPolicy x/p: ingress[0]: peer 1: the peer is empty": `ingress: [{from: [{podSelector: {}}, {}]}]`,
		"an ipBlock and a selector exclude each other":             `ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]`,
		"egress[1]: peer 0: netip.ParsePrefix(\"10.0.0.0\")":       `egress: [{}, {to: [{ipBlock: {cidr: 10.0.0.0}}]}]`,
		"netip.ParsePrefix(\"nonsense\")":                          `ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [nonsense]}}]}]`,
		"10.0.0.0/8 is not strictly within 10.0.0.0/8":             `ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]`,
		"11.0.0.0/16 is not strictly within 10.0.0.0/8":            `ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]`,
		"ingress[0]: ports[1]: \"ICMP\" is no protocol":            `ingress: [{ports: [{port: 1}, {protocol: ICMP}]}]`,
		"endPort 90 needs a port":                                  `ingress: [{ports: [{endPort: 90}]}]`,
		"endPort 90 needs a number as port, not \"web\"":           `ingress: [{ports: [{port: web, endPort: 90}]}]`,
		"80 to 79 are no ports":                                    `ingress: [{ports: [{port: 80, endPort: 79}]}]`,
		"1 to 65536 are no ports":                                  `ingress: [{ports: [{port: 1, endPort: 65536}]}]`,
		"0 to 0 are no ports":                                      `ingress: [{ports: [{port: 0}]}]`,
		"\"Near\" is not a valid label selector operator":          `ingress: [{from: [{podSelector: {matchExpressions: [{key: k, operator: Near}]}}]}]`,
	} {
		_, err := Translate(parse(t, `{metadata: {name: p}, spec: {podSelector: {}, `+spec+`}}`), twoPods())
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", spec, err, says)
		}
	}
}
