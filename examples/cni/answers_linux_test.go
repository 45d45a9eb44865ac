package main

import (
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// rules are the container's routing rules besides the kernel's own.
func (r *rig) rules(c container) (all string) {
	r.Helper()
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(testutil.Run(r, c.ns, "ip", family, "rule", "show")) {
			if !strings.Contains(line, "from all lookup") {
				all += line
			}
		}
	}
	return all
}

// A container in two networks answers by the network that it was asked in: visitors from outside, and
// its siblings in the other network. The order of ADD and DEL does not matter.
func TestAContainerAnswersByTheNetworkThatWasAsked(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	host, outside := netnstest.Host(t)
	r := newRigOn(t, host.NS, "")
	ports := func(port string) string {
		return `"portMappings": [{"hostPort": ` + port + `, "containerPort": 80}]`
	}
	c := r.container("both", ports("8080"))
	serve(t, c)
	r2, c2 := r.second(c, "eth1", "", "")
	c2.CapabilityArgs = map[string]any{"portMappings": []map[string]any{{"hostPort": 8081, "containerPort": 80}}}
	one, two := r.container("one", ""), r2.container("two", "")
	r.add(one)
	r2.add(two)
	all := func(when string, ports ...string) {
		t.Helper()
		for _, port := range ports {
			for _, at := range []string{"203.0.113.1:" + port, "[2001:db8::1]:" + port} {
				for _, from := range []container{{ns: outside.NS}, one, two} {
					if err := reach(t, from.ns, at, "both"); err != nil {
						t.Errorf("%s: %v", when, err)
					}
				}
			}
		}
	}
	check := func(when string, r *rig, c container) {
		t.Helper()
		if err := r.check(c); err != nil {
			t.Errorf("%s: CHECK: %v", when, err)
		}
	}
	r.add(c)
	if rules := r.rules(c); rules != "" {
		t.Errorf("a container in one network has the rules\n%s", rules)
	}
	r2.add(c2)
	all("with both", "8080", "8081")
	check("with both", r, c)
	check("with both", r2, c2)

	rules := r.rules(c)
	if strings.Count(rules, "\n") != 4 {
		t.Errorf("the rules are\n%s", rules)
	}
	testutil.Run(t, c.ns, "ip", "rule", "del", "priority", "1000")
	testutil.Run(t, c.ns, "ip", "rule", "del", "priority", "1000")
	if err := r.check(c); codeOf(err) != codeDrift || !strings.Contains(err.Error(), "10.89.0.") {
		t.Errorf("CHECK without the rules: %v", err)
	}

	r.del(c)
	all("with the second", "8081")
	if rules := r.rules(c); rules != "" {
		t.Errorf("when one network has gone, there are the rules\n%s", rules)
	}
	if out := testutil.Run(t, c.ns, "ip", "route", "show", "table", "all", "proto", "202"); out != "" {
		t.Errorf("when one network has gone, there are the routes\n%s", out)
	}
	r.add(c)
	all("with the first again", "8080", "8081")
	check("with the first again", r, c)
	check("with the first again", r2, c2)
	r2.del(c2)
	all("with the first", "8080")
	r.del(c)
	if rules := r.rules(c); rules != "" {
		t.Errorf("in the end, there are the rules\n%s", rules)
	}
	r.del(one)
	r2.del(two)
	r.gc()
	r2.gc()
}

// What a container does to its own routes does not keep DEL from its work: neither that of another network
// of a container that lives on, nor that of one whose processes have ended.
func TestAContainerCannotKeepDelFromItsWorkByItsRoutes(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string]string{
		"a gateway that is not reached any more": `link add x0 type veth peer name y0; link set x0 up; link set y0 up; addr add 192.0.2.1/24 dev x0; addr add 198.51.100.1/24 dev y0
			route add 203.0.113.0/24 dev x0; route add default via 203.0.113.9 dev x0 metric 7; route del 203.0.113.0/24 dev x0; route add default via 198.51.100.9 dev y0 metric 8`,
		"a gateway that its address is gone for": `link add x0 type veth peer name y0; link set x0 up; link set y0 up; addr add 192.0.2.1/24 dev x0; addr add 198.51.100.1/24 dev y0
			route add default via 192.0.2.9 dev x0 metric 7; route add default via 198.51.100.9 dev y0 metric 8; route add 100.64.0.0/10 via 192.0.2.9 dev x0 src 192.0.2.1; link set x0 down; link set y0 down`,
		"a source that is its link's": `link add x0 type veth peer name y0; link set x0 up; link set y0 up; addr add 192.0.2.1/24 dev x0; addr add 198.51.100.1/24 dev y0; addr add 192.0.2.77/32 dev lo
			route add default via 192.0.2.9 dev x0 metric 7 src 192.0.2.77; route add default via 198.51.100.9 dev y0 metric 8`,
		"a table of its own, and rules": `link add x0 type veth peer name y0; link set x0 up; link set y0 up; addr add 192.0.2.1/24 dev x0; addr add 198.51.100.1/24 dev y0
			rule add pref 1000 from 192.0.2.1 lookup 77; rule add pref 5 from all lookup 78 proto 202; route add default via 192.0.2.9 dev x0 metric 7; route add default via 198.51.100.9 dev y0 metric 8; rule del pref 0; rule add pref 9 prohibit`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			c := r.container("c1", "")
			r.add(c)
			r2, c2 := r.second(c, "eth1", "", "")
			r2.add(c2)
			for _, line := range strings.FieldsFunc(lines, func(r rune) bool { return r == ';' || r == '\n' }) {
				testutil.Run(t, c.ns, "ip", strings.Fields(line)...)
			}
			r2.del(c2)
			r.del(c)
			r.gc()
			r2.gc()
			r.clean()
		})
	}
}
