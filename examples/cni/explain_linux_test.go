package main

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// explain calls the plugin as a command on the host.
func (r *rig) explain(args string) (status int, out string) {
	r.Helper()
	cmd := r.host.Command(context.WithoutCancel(r.Context()), filepath.Join(r.dir, "boxwire"), strings.Fields("explain "+args)...)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// A host is broken as it is in life: explain names what is wrong, says what to do, and once that is done finds nothing.
func TestExplainOfBrokenHosts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, conf string
		breaks     string // by sh, on the host
		args       string
		status     int
		says       []string
		mends      string // what it says to do
	}{
		{name: "nothing, of a port", args: "-port 8080/tcp", says: []string{"tcp 0.0.0.0:8080 leads to 10.89.0.2:80 of testnet/c1/eth0\n  no cause is found"}},
		{name: "nothing, of all", says: []string{"testnet/c1/eth0 (10.89.0.2, fd89::2), and its way to outside\n  no cause", "tcp [::]:8080 leads to [fd89::2]:80 of testnet/c1/eth0\n  no cause"}},
		{name: "nothing, of a network", args: "testnet", says: []string{"testnet/c1/eth0 (10.89.0.2, fd89::2), and its way to outside\n  no cause"}},
		{name: "nothing, of a pair", conf: ptp, args: "c1", says: []string{"testnet/c1/eth0 (10.89.0.2, fd89::2), and its way to outside\n  no cause"}},
		{name: "a plain switch", conf: noIPAM, args: "c1", says: []string{"it has no address here"}},
		{
			name: "forwarding off", breaks: "echo 0 >/proc/sys/net/ipv4/conf/boxwire0/forwarding", args: "c1", status: 1,
			says:  []string{"cause: the host does not forward what comes in by boxwire0 (net.ipv4.conf.boxwire0.forwarding is 0)\n", "to do: sysctl -w net.ipv4.conf.boxwire0.forwarding=1"},
			mends: "echo 1 >/proc/sys/net/ipv4/conf/boxwire0/forwarding",
		},
		{
			name: "a foreign policy by nft", breaks: "nft add table inet mine; nft add chain inet mine through '{ type filter hook forward priority 0; policy drop; }'", args: "-port 8080", status: 1,
			says:  []string{"cause: the policy of chain inet mine through drops connections to the port", `nft insert rule inet mine through iifname "boxwire0" accept`},
			mends: `nft insert rule inet mine through iifname "boxwire0" accept; nft insert rule inet mine through oifname "boxwire0" accept`,
		},
		{
			name: "a foreign policy by iptables", breaks: "iptables-nft -P FORWARD DROP", args: "-port 8080 -from 192.0.2.1", status: 1,
			says: []string{"cause: the policy of chain ip filter FORWARD drops connections to the port", `to do: set "acceptForward": true in the network's configuration`},
		},
		{
			name: "firewalld", breaks: `nft add table inet firewalld; nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; policy accept; }'
				nft add rule inet firewalld filter_FORWARD ct state established,related accept
				nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited`, args: "c1", status: 1,
			says: []string{"of chain inet firewalld filter_FORWARD", "firewall-cmd --permanent --zone=trusted --add-interface=boxwire0"},
		},
		{name: "not published", args: "-port 9090/tcp", status: 1, says: []string{"tcp port 9090\n  cause: the port is not published\n  to do: have the engine publish it"}},
		{name: "no such container", args: "c2", status: 1, says: []string{"there is no container c2, and nothing of one is left", "ask for one that is there: testnet/c1/eth0"}},
		{
			name: "the table is gone", breaks: "nft flush ruleset", args: "c1", status: 1,
			says: []string{"the table inet boxwire-cni of the firewall is not there", "to do: start a container: its ADD makes the table"},
		},
		{
			name: "the table is gone, of a port", breaks: "nft flush ruleset", args: "-port 8080", status: 1,
			says: []string{"the table inet boxwire-cni of the firewall is not there", "cause: the port is not published"},
		},
		{
			name: "the bridge is down", breaks: "ip link set boxwire0 down", args: "-port 8080 -from 192.0.2.1", status: 1,
			says:  []string{"cause: the link boxwire0 of the network is down\n  to do: ip link set boxwire0 up\n"},
			mends: "ip link set boxwire0 up",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			netnstest.NeedIPv6(t)
			r := newRig(t, test.conf)
			lan := netnstest.New(t)
			if _, err := link.Create(t.Context(), r.host, link.Spec{
				Name: "lan0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")},
				Kind: link.Veth{Peer: link.Spec{NS: lan, Name: "lan0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}},
			}); err != nil {
				t.Fatal(err)
			}
			if err := route.Add(t.Context(), r.host, route.Default(netip.MustParseAddr("192.0.2.1"))); err != nil {
				t.Fatal(err)
			}
			capabilities := publish8080
			if test.conf == noIPAM {
				capabilities = ""
			}
			c := r.container("c1", capabilities)
			r.add(c)
			serve(t, c)
			do := func(lines string) {
				for _, tool := range []string{"nft", "iptables-nft"} {
					if strings.Contains(lines, tool+" ") {
						testutil.Run(t, r.host, tool, "--version")
					}
				}
				testutil.Run(t, r.host, "sh", "-ec", lines)
			}
			if test.breaks != "" {
				do(test.breaks)
			}
			status, out := r.explain(test.args)
			if status != test.status {
				t.Errorf("it ends with %d, want %d", status, test.status)
			}
			for _, s := range test.says {
				if !strings.Contains(out, s) {
					t.Errorf("it says\n%s, which lacks\n%s", out, s)
				}
			}
			if test.mends != "" {
				do(test.mends)
				if status, out := r.explain(test.args); status != 0 {
					t.Errorf("once that is done, it says\n%s", out)
				}
			}
		})
	}
}

func TestExplainOfContainersThatAreBrokenOrGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	c := r.container("c1", publish8080)
	r.add(c)
	for _, test := range []struct{ args, says string }{
		{"-port 8080", "cause: no program in the box listens on"},
		{"-port 8080", "to do: start the program in the container"},
	} {
		if status, out := r.explain(test.args); status != 1 || !strings.Contains(out, test.says) {
			t.Errorf("explain %s ends with %d and %s, want %q", test.args, status, out, test.says)
		}
	}
	testutil.Run(t, c.ns, "ip", "link", "set", "eth0", "down")
	if status, out := r.explain("c1"); status != 1 || !strings.Contains(out, "cause: the link eth0 of the container is down\n  to do: bring it up in the container: ip link set eth0 up\n") {
		t.Errorf("with a link that is down, explain ends with %d and %s", status, out)
	}
	testutil.Run(t, c.ns, "ip", "link", "set", "eth0", "up")
	testutil.Run(t, c.ns, "ip", "addr", "flush", "dev", "eth0")
	if status, out := r.explain("c1"); status != 1 || !strings.Contains(out, "cause: the container has lost its address 10.89.0.2\n  to do: restart the container\n") {
		t.Errorf("without an address, explain ends with %d and %s", status, out)
	}
	testutil.Run(t, c.ns, "ip", "link", "del", "eth0") // as with the end of the namespace
	for _, args := range []string{"c1", "-port 8080", ""} {
		if status, out := r.explain(args); status != 1 || !strings.Contains(out, "cause: the container is gone, and its port is still published\n  to do: have the engine remove") {
			t.Errorf("of a container that is gone, explain %s ends with %d and %s", args, status, out)
		}
	}
	r.del(c)
	if status, out := r.explain(""); status != 0 || !strings.Contains(out, "there is no container, and no port is published") {
		t.Errorf("without containers, explain ends with %d and %s", status, out)
	}
	r.gc()
	r.clean()
}

func TestThePluginAsACommand(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	for args, says := range map[string]string{"-port x": "boxwire: ", "-nosuch": "nosuch", "-port 80 c1": "takes -port, or a container"} {
		if status, out := r.explain(args); status != 125 || !strings.Contains(out, says) {
			t.Errorf("explain %s ends with %d and %q", args, status, out)
		}
	}
	for _, test := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-h"}, 0, "usage: boxwire explain [flags] [CONTAINER...]\n"},
		{[]string{"explain", "-h"}, 0, "usage: boxwire explain"},
		{[]string{"remove"}, 125, `"remove" is no command`},
	} {
		cmd := r.host.Command(t.Context(), filepath.Join(r.dir, "boxwire"), test.args...)
		out, _ := cmd.CombinedOutput()
		if status := cmd.ProcessState.ExitCode(); status != test.status || !strings.Contains(string(out), test.says) {
			t.Errorf("boxwire %q ends with %d and %q, want %d and %q", test.args, status, out, test.status, test.says)
		}
	}
}

// A container names its links as it likes: what explain says of them is no command but the one meant, and nothing that a
// terminal obeys.
func TestExplainOfNamesThatAContainerHasChosen(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	c := r.container("c1", "")
	r.add(c)
	testutil.Run(t, c.ns, "ip", "link", "set", "eth0", "down")
	was := "eth0"
	for name, word := range map[string]string{
		"a;reboot": "'a;reboot'", "$(reboot)": "'$(reboot)'", "\x1b[2Ja": `$'\x1b\x5b2Ja'`, "`id`": "'`id`'",
	} {
		testutil.Run(t, c.ns, "ip", "link", "set", was, "name", name)
		was = name
		if status, out := r.explain("c1"); status != 1 || !strings.Contains(out, ": ip link set "+word+" up\n") || strings.ContainsRune(out, 0x1b) {
			t.Errorf("of a link %q, explain ends with %d and %q, which has no %q", name, status, out, word)
		}
	}
}
