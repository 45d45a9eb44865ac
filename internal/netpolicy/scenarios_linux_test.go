package netpolicy

import corev1 "k8s.io/api/core/v1"

// The scenarios with "should" in their names are those of Kubernetes' tests of conformance
// (test/e2e/network/netpol/network_policy.go), with their policies and their tables.
var scenarios = []scenario{
	{"should support a 'default-deny-ingress' policy", []step{{
		set:   `{metadata: {name: deny}, spec: {podSelector: {}, policyTypes: [Ingress]}}`,
		truth: "tcp 80: * > x/* no\nudp 80: * > x/* no\nsctp 80: * > x/* no",
	}}},
	{"should support a 'default-deny-all' policy", []step{{
		set:   `{metadata: {name: deny}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}`,
		truth: "tcp 80: * > x/* no, x/* > * no",
	}}},
	{"should enforce policy to allow traffic from pods within server namespace based on PodSelector", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}}`,
		truth: "tcp 80: * > x/a no, x/b > x/a yes",
	}}},
	{"should enforce policy to allow ingress traffic for a target", []step{{
		set: `{metadata: {name: deny}, spec: {podSelector: {}, policyTypes: [Ingress]}}
---
{metadata: {name: allow}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {}, namespaceSelector: {}}]}]}}`,
		truth: "tcp 80: * > x/* no, * > x/a yes",
	}}},
	{"should enforce policy to allow ingress traffic from pods in all namespaces", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {}}]}]}}`,
		truth: "tcp 80: all",
	}}},
	{"should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}]}]}}`,
		truth: "tcp 80: x/* > x/a no, z/* > x/a no",
	}}},
	{"should enforce policy based on PodSelector with MatchExpressions", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b]}]}}]}]}}`,
		truth: "tcp 80: * > x/a no, x/b > x/a yes",
	}}},
	{"should enforce policy based on NamespaceSelector with MatchExpressions", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: ["y"]}]}}]}]}}`,
		truth: "tcp 80: x/* > x/a no, z/* > x/a no",
	}}},
	{"should enforce policy based on PodSelector or NamespaceSelector", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [x]}]}}, {podSelector: {matchLabels: {pod: b}}}]}]}}`,
		truth: "tcp 80: x/a > x/a no, x/c > x/a no",
	}}},
	{"should enforce policy based on PodSelector and NamespaceSelector", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [x]}]}, podSelector: {matchLabels: {pod: b}}}]}]}}`,
		truth: "tcp 80: * > x/a no, y/b > x/a yes, z/b > x/a yes",
	}}},
	{"should enforce policy based on Multiple PodSelectors and NamespaceSelectors", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [x]}]}, podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}}]}]}}`,
		truth: "tcp 80: x/* > x/a no, y/a > x/a no, z/a > x/a no",
	}}},
	{"should enforce policy based on any PodSelectors", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {podSelector: {matchLabels: {pod: c}}}]}]}}`,
		truth: "tcp 80: * > x/a no, x/b > x/a yes, x/c > x/a yes",
	}}},
	{"should enforce policy to allow traffic only from a pod in a different namespace based on PodSelector and NamespaceSelector", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}, podSelector: {matchLabels: {pod: a}}}]}]}}`,
		truth: "tcp 80: * > x/a no, y/a > x/a yes\nudp 80: * > x/a no, y/a > x/a yes\nsctp 80: * > x/a no, y/a > x/a yes",
	}}},
	{"should enforce policy based on Ports", []step{
		{
			set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}], ports: [{port: 81, protocol: TCP}]}]}}`,
			truth: "tcp 81: x/* > x/a no, z/* > x/a no",
		},
		{
			set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}], ports: [{port: 81, protocol: UDP}]}]}}`,
			truth: "udp 81: x/* > x/a no, z/* > x/a no",
		},
		{
			set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}], ports: [{port: 81, protocol: SCTP}]}]}}`,
			truth: "sctp 81: x/* > x/a no, z/* > x/a no",
		},
	}},
	{"should enforce multiple, stacked policies with overlapping podSelectors", []step{
		{
			set:   `{metadata: {name: p81}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}], ports: [{port: 81, protocol: TCP}]}]}}`,
			truth: "tcp 81: x/* > x/a no, z/* > x/a no\ntcp 80: * > x/a no",
		},
		{
			set:   `{metadata: {name: p80}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}], ports: [{port: 80, protocol: TCP}]}]}}`,
			truth: "tcp 80: x/* > x/a no, z/* > x/a no\ntcp 81: x/* > x/a no, z/* > x/a no",
		},
	}},
	{"should support allow-all policy", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {}, ingress: [{}]}}`,
		truth: "tcp 80: all\ntcp 81: all",
	}}},
	{"should allow ingress access on one named port", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {}, ingress: [{ports: [{port: serve-81-tcp}]}]}}`,
		truth: "tcp 81: all\ntcp 80: * > x/* no",
	}}},
	{"should allow ingress access from namespace on one named port", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}], ports: [{port: serve-80-tcp, protocol: TCP}]}]}}`,
		truth: "tcp 80: x/* > x/a no, z/* > x/a no\ntcp 81: * > x/a no",
	}}},
	{"should allow egress access on one named port", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]}}`,
		truth: "tcp 80: all\ntcp 81: x/* > * no",
	}}},
	{"should enforce updated policy", []step{
		{set: `{metadata: {name: p}, spec: {podSelector: {}, ingress: [{}]}}`, truth: "tcp 81: all"},
		{set: `{metadata: {name: p}, spec: {podSelector: {}, ingress: [], policyTypes: [Ingress]}}`, truth: "tcp 81: * > x/* no"},
	}},
	{"should allow ingress access from updated namespace", []step{
		{
			set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns2: updated}}}]}]}}`,
			truth: "tcp 80: * > x/a no",
		},
		{
			change: func(c *cluster) {
				for _, name := range []string{"y/a", "y/b", "y/c"} {
					c.pod(name).NamespaceLabels["ns2"] = "updated"
				}
			},
			truth: "tcp 80: * > x/a no, y/* > x/a yes",
		},
	}},
	{"should allow ingress access from updated pod", []step{
		{
			set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b, pod2: updated}}}]}]}}`,
			truth: "tcp 80: * > x/a no",
		},
		{change: func(c *cluster) { c.pod("x/b").Labels["pod2"] = "updated" }, truth: "tcp 80: * > x/a no, x/b > x/a yes"},
	}},
	{"should deny ingress from pods on other namespaces", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}}`,
		truth: "tcp 80: y/* > x/* no, z/* > x/* no",
	}}},
	{"should deny ingress access to updated pod", []step{
		{set: `{metadata: {name: p}, spec: {podSelector: {matchLabels: {target: isolated}}, policyTypes: [Ingress]}}`, truth: "tcp 80: all"},
		{change: func(c *cluster) { c.pod("x/a").Labels["target"] = "isolated" }, truth: "tcp 80: * > x/a no"},
	}},
	{"should deny egress from pods based on PodSelector", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}}`,
		truth: "tcp 80: x/a > * no",
	}}},
	{"should deny egress from all pods in a namespace", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {}, policyTypes: [Egress]}}`,
		truth: "tcp 80: x/* > * no",
	}}},
	{"should work with Ingress, Egress specified together", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress, Ingress], ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}], egress: [{ports: [{port: 80}]}]}}`,
		truth: "tcp 80: * > x/a no, x/b > x/a yes\ntcp 81: * > x/a no, x/a > * no, x/b > x/a yes",
	}}},
	{"should support denying of egress traffic on the client side (even if the server explicitly allows this traffic)", []step{{
		set: `{metadata: {name: out}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}, podSelector: {matchLabels: {pod: a}}}]}]}}
---
{metadata: {name: in-a, namespace: "y"}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}, podSelector: {matchLabels: {pod: a}}}]}]}}
---
{metadata: {name: in-b, namespace: "y"}, spec: {podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}, podSelector: {matchLabels: {pod: a}}}]}]}}`,
		truth: "tcp 80: x/a > * no, * > y/a no, x/a > y/a yes, * > y/b no",
	}}},
	{"should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and NamespaceSelector", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}, podSelector: {matchLabels: {pod: a}}}]}]}}`,
		truth: "tcp 80: x/a > * no, x/a > y/a yes",
	}}},
	{"should enforce ingress policy allowing any port traffic to a server on a specific protocol", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{protocol: TCP}]}]}}`,
		truth: "tcp 80: all\ntcp 81: all\nudp 80: * > x/a no",
	}}},
	{"should enforce multiple ingress policies with ingress allow-all policy taking precedence", []step{
		{set: `{metadata: {name: p80}, spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}}`, truth: "tcp 81: * > x/* no"},
		{set: `{metadata: {name: all}, spec: {podSelector: {}, ingress: [{}]}}`, truth: "tcp 81: all"},
	}},
	{"should enforce multiple egress policies with egress allow-all policy taking precedence", []step{
		{set: `{metadata: {name: p80}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}}`, truth: "tcp 81: x/* > * no"},
		{set: `{metadata: {name: all}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{}]}}`, truth: "tcp 81: all"},
	}},
	{"should stop enforcing policies after they are deleted", []step{
		{set: `{metadata: {name: deny}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}`, truth: "tcp 80: x/* > * no, * > x/* no"},
		{remove: "deny", truth: "tcp 80: all"},
	}},
	{"should allow egress access to server in CIDR block", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.64.0.5/32}}, {ipBlock: {cidr: "fd64::5/128"}}]}]}}`,
		truth: "tcp 80: x/a > * no, x/a > y/b yes",
	}}},
	{"should enforce except clause while egress access to server in CIDR block", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.64.0.0/16, except: [10.64.0.2/32]}}, {ipBlock: {cidr: "fd64::/64", except: ["fd64::2/128"]}}]}]}}`,
		truth: "tcp 80: x/a > x/b no",
	}}},
	{"should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed", []step{
		{
			set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.64.0.0/16, except: [10.64.0.2/32]}}, {ipBlock: {cidr: "fd64::/64", except: ["fd64::2/128"]}}]}]}}`,
			truth: "tcp 80: x/a > x/b no",
		},
		{ // a second policy, as the test's name has it; the upstream test replaces the first one
			set:   `{metadata: {name: q}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.64.0.2/32}}, {ipBlock: {cidr: "fd64::2/128"}}]}]}}`,
			truth: "tcp 80: all",
		},
		{remove: "p", truth: "tcp 80: x/a > * no, x/a > x/b yes"},
	}},
	{"should enforce policies to check ingress and egress policies can be controlled independently based on PodSelector", []step{
		{set: `{metadata: {name: out}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{}]}}`, truth: "tcp 80: all"},
		{set: `{metadata: {name: in}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}}`, truth: "tcp 80: * > x/a no"},
	}},
	{"should not mistakenly treat 'protocol: SCTP' as 'protocol: TCP', even if the plugin doesn't support SCTP", []step{{
		set: `{metadata: {name: deny}, spec: {podSelector: {}, policyTypes: [Ingress]}}
---
{metadata: {name: sctp}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81, protocol: SCTP}]}]}}`,
		truth: "tcp 81: * > x/* no\nsctp 81: * > x/* no, * > x/a yes",
	}}},
	{"should properly isolate pods that are selected by a policy allowing SCTP, even if the plugin doesn't support SCTP", []step{{
		set:   `{metadata: {name: sctp}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80, protocol: SCTP}]}]}}`,
		truth: "tcp 81: * > x/a no\nsctp 80: all",
	}}},
	{"should not allow access by TCP when a policy specifies only UDP", []step{{
		set:   `{metadata: {name: udp}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81, protocol: UDP}]}]}}`,
		truth: "tcp 81: * > x/a no\nudp 81: all",
	}}},
	{"should enforce policy to allow traffic based on NamespaceSelector with MatchLabels using default ns label", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}]}]}}`,
		truth: "tcp 80: x/* > x/a no, z/* > x/a no",
	}}},
	{"should enforce policy based on NamespaceSelector with MatchExpressions using default ns label", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: ["y"]}]}}]}]}}`,
		truth: "tcp 80: x/a > y/* no",
	}}},

	// What the fields' documentation says beyond these tests.
	{"policyTypes are Ingress, and Egress where there are rules of it", []step{{
		set: `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]}}
---
{metadata: {name: q}, spec: {podSelector: {matchLabels: {pod: c}}}}`,
		truth: "tcp 80: * > x/a no, x/a > * no, x/a > x/b yes, * > x/c no",
	}}},
	{"a range of ports", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81, endPort: 32000}]}, {ports: [{port: 1, endPort: 80, protocol: UDP}, {port: 80, endPort: 81, protocol: SCTP}]}]}}`,
		truth: "tcp 80: * > x/a no\ntcp 81: all\nudp 80: all\nudp 81: * > x/a no\nsctp 80: all\nsctp 81: all",
	}}},
	{"the name of a port is that of the server's, in both directions", []step{
		{
			set:    `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: web}]}]}}`,
			change: nameWeb,
			truth:  "tcp 80: x/a > * no, x/a > y/a yes\ntcp 81: x/a > * no, x/a > y/b yes\nudp 80: x/a > * no",
		},
		{
			remove: "p",
			set:    `{metadata: {name: q, namespace: "y"}, spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}}], ports: [{port: web, protocol: TCP}]}]}}`,
			truth:  "tcp 80: * > y/* no, x/* > y/a yes\ntcp 81: * > y/* no, x/* > y/b yes",
		},
		{ // the name of another protocol is another name
			set:   `{metadata: {name: q, namespace: "y"}, spec: {podSelector: {}, ingress: [{ports: [{port: web, protocol: UDP}]}]}}`,
			truth: "tcp 80: * > y/* no\ntcp 81: * > y/* no\nudp 80: * > y/* no\nudp 81: * > y/* no, * > y/c yes",
		},
		{ // in Egress also where an ipBlock names the server
			remove: "q",
			set:    `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.64.0.0/24}}, {ipBlock: {cidr: "fd64::/64"}}], ports: [{port: web}]}]}}`,
			truth:  "tcp 80: x/a > * no, x/a > y/a yes\ntcp 81: x/a > * no, x/a > y/b yes",
		},
	}},
	{"a name that no pod has is no port", []step{{
		set:   `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: nowhere}]}], egress: [{ports: [{port: nowhere}]}]}}`,
		truth: "tcp 80: * > x/a no, x/a > * no",
	}}},
	{"ipBlock with exceptions, from and to beyond the cluster", []step{
		{set: `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}, {ipBlock: {cidr: "2001:db8::/32"}}]}]}}`, truth: "tcp 80: * > x/a no"},
		{set: `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [203.0.113.0/30, 203.0.113.2/32, 10.0.0.0/8]}}, {ipBlock: {cidr: "::/0", except: ["2001:db8::/32"]}}]}]}}`},
		{set: `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.7/24, except: [203.0.113.4/30]}}], ports: [{port: 80}, {port: 81, protocol: UDP}]}]}}`, truth: "tcp 80: x/a > * no"},
		{set: `{metadata: {name: q}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.64.0.0/24, except: [10.64.0.4/30]}}]}, {to: [{ipBlock: {cidr: 10.64.0.0/23, except: [10.64.0.5/32, 10.64.0.0/30]}}]}]}}`},
	}},
	{"no peer is everybody, and no port is every port", []step{
		{set: `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [], ports: [{port: 80}]}]}}`, truth: "tcp 80: all\ntcp 81: * > x/a no"},
		{set: `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {}}], ports: []}]}}`, truth: "tcp 81: y/* > x/a no, z/* > x/a no\nsctp 81: y/* > x/a no, z/* > x/a no"},
	}},
	{"operators of expressions", []step{
		{set: `{metadata: {name: p}, spec: {podSelector: {matchExpressions: [{key: pod, operator: Exists}, {key: tier, operator: DoesNotExist}]}, ingress: [{from: [{podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [web]}]}}]}]}}`,
			change: func(c *cluster) { c.pod("x/b").Labels["tier"] = "web" },
			truth:  "tcp 80: * > x/a no, * > x/c no, x/a > x/c yes, x/c > x/a yes"},
	}},
	{"policies of several namespaces add up", []step{
		{set: `{metadata: {name: x-in}, spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}}
---
{metadata: {name: x-web}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}}
---
{metadata: {name: x-except}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.64.0.0/24, except: [10.64.0.4/32]}}], ports: [{port: 81, protocol: UDP}]}]}}
---
{metadata: {name: y-out, namespace: "y"}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}}], ports: [{port: 80}, {port: 80, protocol: SCTP}]}, {to: [{podSelector: {}}]}]}}
---
{metadata: {name: z-all, namespace: z}, spec: {podSelector: {matchLabels: {pod: c}}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}}`,
			truth: "tcp 80: y/* > z/* no, y/* > x/* no, z/* > x/* no, y/* > x/a yes, z/* > x/a yes"},
	}},
}

// nameWeb names a port of some pods "web": that of y/a is another one than that of y/b, and that of
// y/c is of UDP.
func nameWeb(c *cluster) {
	for name, port := range map[string]corev1.ContainerPort{
		"y/a": {Name: "web", ContainerPort: 80, Protocol: corev1.ProtocolTCP},
		"y/b": {Name: "web", ContainerPort: 81, Protocol: corev1.ProtocolTCP},
		"y/c": {Name: "web", ContainerPort: 81, Protocol: corev1.ProtocolUDP},
	} {
		c.pod(name).Ports = append(c.pod(name).Ports, port)
	}
}
