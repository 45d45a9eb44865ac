package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

func TestCheckNoticesWhatIsGone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, says string
		where      string // "host" or "box"
		remove     string // LINK is the host's end
	}{
		{"nothing", "", "host", "true"},
		{"the container's link", "is gone", "box", "ip link del eth0"},
		{"the container's link is down", "eth0 is down", "box", "ip link set eth0 down"},
		{"its hardware address", "hardware address", "box", "ip link set eth0 address 02:00:00:00:00:99"},
		{"its IPv4 address", "10.89.0.2/24", "box", "ip addr del 10.89.0.2/24 dev eth0"},
		{"its IPv6 address", "fd89::2/64", "box", "ip addr del fd89::2/64 dev eth0"},
		{"its default route", "route", "box", "ip route del default"},
		{"its IPv6 default route", "route", "box", "ip -6 route del default"},
		{"the host's end is down", "is down", "host", "ip link set LINK down"},
		{"the host's end is no port", "no port", "host", "ip link set LINK nomaster"},
		{"the hairpin mode", "hairpin", "host", "ip link set LINK type bridge_slave hairpin off"},
		{"its MTU", "MTU", "host", "ip link set LINK mtu 1300"},
		{"the container's MTU", "MTU", "box", "ip link set eth0 mtu 1300"},
		{"the limit of what comes in", "limit", "host", "tc qdisc del dev LINK root"},
		{"the limit of what goes out", "limit", "host", "tc qdisc del dev LINK ingress"},
		{"the link that limits", "limit", "host", "ip link del IFB"},
		{"the gateway's address", "10.89.0.1/24", "host", "ip addr del 10.89.0.1/24 dev boxwire0"},
		{"the bridge is down", "bridge is down", "host", "ip link set boxwire0 down"},
		{"the bridge", "boxwire0 is gone", "host", "ip link del boxwire0"},
		{"the port", "port tcp 0.0.0.0:8080", "host", "nft delete element inet boxwire-cni any4 '{ tcp . 8080 }'"},
		{"the IPv6 port", "port tcp [::]:8080", "host", "nft delete element inet boxwire-cni any6 '{ tcp . 8080 }'"},
		{"the masquerade", "masq4", "host", "nft delete element inet boxwire-cni masq4 '{ boxwire0 }'"},
		{"the network", "network", "host", "nft delete element inet boxwire-cni ifs '{ boxwire0 }'"},
		{"a subnet", "same4", "host", "nft delete element inet boxwire-cni same4 '{ 10.89.0.0/24 . boxwire0 }'"},
		{"the rules", "rules", "host", "nft flush chain inet boxwire-cni publish"},
		{"the ruleset", "boxwire-cni is gone", "host", "nft flush ruleset"},
		{"a network that is open", "masquerade true, internal true", "host", "nft add element inet boxwire-cni internal '{ boxwire0 }'"},
		{"a rule of another program", "rules", "host", "nft insert rule inet boxwire-cni forward drop"},
		{"route_localnet", "route_localnet is off", "host", "echo 0 >/proc/sys/net/ipv4/conf/boxwire0/route_localnet"},
		{"the forwarding", "forwarding is off", "host", "echo 0 >/proc/sys/net/ipv4/conf/boxwire0/forwarding"},
		{"the lease", "assigned", "host", "rm STATE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, `"mtu": 1400`)
			c := r.container("c1", publish8080+limited)
			r.add(c)
			hostEnd, err := link.Get(t.Context(), r.host, attachment{"testnet", "c1", "eth0"}.link())
			if err != nil {
				t.Fatal(err)
			}
			ns := r.host
			if test.where == "box" {
				ns = c.ns
			}
			command := strings.NewReplacer("LINK", hostEnd.Name, "IFB", ifbOf(hostEnd.Index), "STATE", filepath.Join(r.dir, "state", "testnet.json")).Replace(test.remove)
			if tool, _, _ := strings.Cut(command, " "); tool == "ip" || tool == "tc" || tool == "nft" {
				testutil.Witness(t, tool)
			}
			if out, err := ns.Command(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", command, err, out)
			}
			look := func() string { // CHECK repairs nothing
				now := r.nft("--stateless", "list", "ruleset") + testutil.Run(t, r.host, "tc", "qdisc") + testutil.Run(t, c.ns, "ip", "route")
				for _, ns := range []*netns.NS{r.host, c.ns} { // of link-local addresses the kernel changes the flags
					now += testutil.Run(t, ns, "ip", "-o", "-4", "addr") + testutil.Run(t, ns, "ip", "-o", "-6", "addr", "show", "scope", "global")
				}
				return now
			}
			before := look()
			err = r.check(c)
			switch {
			case test.says == "" && err != nil:
				t.Errorf("CHECK: %v", err)
			case test.says != "" && (codeOf(err) != codeDrift || !strings.Contains(err.Error(), test.says)):
				t.Errorf("CHECK says %v, want %q", err, test.says)
			}
			if after := look(); after != before {
				t.Errorf("before CHECK there was\n%s\nand there is\n%s", before, after)
			}
			r.del(c)
			r.gc()
			r.clean()
		})
	}
}
