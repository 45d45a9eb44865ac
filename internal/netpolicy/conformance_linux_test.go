package netpolicy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/nat"
	corev1 "k8s.io/api/core/v1"
)

// A scenario is one test of a NetworkPolicy. It begins with no policy.
type scenario struct {
	name  string
	steps []step
}

// A step changes objects. Then every connection is what the oracle says; and what truth says, which
// is the table of the upstream test, where there is one.
type step struct {
	set    string // policies to create or update, as YAML
	remove string // the name of one to delete
	change func(c *cluster)

	// truth are lines "tcp 80: x/a > y/*: no". Of the lines about a connection, the last one
	// decides; without one, it is allowed. A line ends with the protocol and port it is about.
	truth string
}

// TestNetworkPolicies runs the scenarios in one cluster, each with the whole matrix: 100 pairs, two
// families, three protocols, two ports.
func TestNetworkPolicies(t *testing.T) {
	c := newCluster(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			sub := *c
			sub.T = t
			sub.reset()
			for i, st := range s.steps {
				for _, np := range parse(t, st.set) {
					sub.policies[np.Name] = np
				}
				delete(sub.policies, st.remove)
				if st.change != nil {
					st.change(&sub)
				}
				sub.apply()
				sub.compare(fmt.Sprintf("step %d", i+1), st.truth)
				sub.compareNode()
			}
		})
	}
}

// compare compares every connection with the oracle, and those between pods with the truth.
func (c *cluster) compare(when, truth string) {
	c.Helper()
	policies, wrong := c.all(), 0
	for _, p := range c.probes() {
		want := p.allowed(policies)
		upstream := want
		if truth != "" && p.src != p.dst && p.from.Namespace != "" && p.to.Namespace != "" {
			upstream = c.true(truth, p.connection, want)
		}
		if upstream != want {
			c.Errorf("%s: %v: %v -> %v: the oracle says %t, the upstream test %t", when, p, p.from, p.to, want, upstream)
			wrong++
		}
		silent := !p.reached && strings.Contains(p.err.Error(), "deadline") || !p.reached && strings.Contains(p.err.Error(), "timeout")
		if p.reached != want || silent {
			c.Errorf("%s: %v: %v -> %v: reached %t (%v), want %t", when, p, p.from, p.to, p.reached, p.err, want)
			wrong++
		}
		if wrong > 20 {
			c.Fatal("and more")
		}
	}
}

// true is what the lines say about a connection; otherwise, where they are about another protocol or
// port, what the oracle says.
func (c *cluster) true(truth string, conn connection, oracle bool) bool {
	c.Helper()
	is := oracle
	for line := range strings.Lines(truth) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		kind, said, _ := strings.Cut(line, ": ")
		if kind != fmt.Sprintf("%s %d", shorts[conn.proto], conn.port) {
			continue
		}
		is = true
		for rule := range strings.SplitSeq(said, ", ") {
			var from, to, says string
			if rule == "all" {
				continue
			}
			if n, err := fmt.Sscanf(rule, "%s > %s %s", &from, &to, &says); n != 3 || says != "yes" && says != "no" {
				c.Fatalf("%q is no line: %v", rule, err)
			}
			if glob(from, conn.from.String()) && glob(to, conn.to.String()) {
				is = says == "yes"
			}
		}
	}
	return is
}

func glob(pattern, name string) bool {
	if pattern == "*" {
		return true
	}
	ok, _ := path.Match(pattern, name)
	return ok
}

// compareNode checks that each pod reaches its node, and is reached by it, whatever the policies
// say.
func (c *cluster) compareNode() {
	c.Helper()
	for _, e := range c.ends[:len(c.ends)-1] {
		for i, a := range e.addrs {
			for _, way := range []struct {
				from *end
				to   netip.Addr
			}{{e, wan[i].Addr()}, {&end{NS: c.node}, a}} {
				if err := way.from.connect(c.Context(), nil, netip.AddrPortFrom(way.to, 80), corev1.ProtocolTCP); err != nil {
					c.Errorf("%s and its node: %v", e.name, err)
				}
			}
		}
	}
}

// TestWhatDoesNotFit shows the limit that the package's documentation names: one rule for each peer.
func TestWhatDoesNotFit(t *testing.T) {
	c := newCluster(t)
	set := func(peers int) error {
		many := []Pod{*c.pod("x/a")}
		for i := range peers {
			many = append(many, Pod{Namespace: "x", Name: fmt.Sprint(i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 65, byte(i >> 8), byte(i)})}})
		}
		policies, err := Translate(parse(t, `{metadata: {name: p}, spec: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: pod, operator: DoesNotExist}]}}]}]}}`), many)
		c.must(err)
		return c.gw.SetPolicies(t.Context(), policies...)
	}
	if err := set(nat.MaxRules); err != nil {
		t.Error(err)
	}
	if err := set(nat.MaxRules + 1); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "more than 4096 rules") {
		t.Errorf("%v", err)
	}
}
