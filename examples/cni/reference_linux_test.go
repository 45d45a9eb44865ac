package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
)

func TestKeysOfTheReferencePluginsAreObeyedOrRefusedByName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		conf string
		code uint   // 0: it works
		says string // key and value
	}{
		// They ask for nothing, or for what holds anyway.
		{`"promiscMode": false, "vlan": 0, "vlanTrunk": [], "preserveDefaultVlan": true, "macspoofchk": false, "enabledad": false,
			"forceAddress": false, "portIsolation": false, "disableContainerInterface": false, "ipMasqBackend": "nftables"`, 0, ""},
		{`"backend": "nftables", "snat": false, "masqAll": false, "conditionsV4": [], "conditionsV6": null`, 0, ""},
		{`"ingressPolicy": "same-bridge", "firewalldZone": "", "unshapedSubnets": []`, 0, ""},

		{`"promiscMode": true, "hairpinMode": true`, 7, "exclude each other"},
		{`"vlan": 1000, "bridge": "elevenbytes"`, 7, "15 bytes"},
		{`"vlan": 4095`, 7, "4095"},
		{`"vlan": -1`, 7, "-1"},
		{`"vlanTrunk": [{"id": 0}]`, 7, `"id":0`},
		{`"vlanTrunk": [{"id": 4095}]`, 7, `"id":4095`},
		{`"vlanTrunk": [{"minID": 5}]`, 7, "go together"},
		{`"vlanTrunk": [{"minID": 6, "maxID": 5}]`, 7, "ends before"},
		{`"ipMasqBackend": "iptables"`, 2, `ipMasqBackend: "iptables"`},
		{`"backend": "iptables"`, 2, `backend: "iptables"`},
		{`"backend": "firewalld"`, 2, `backend: "firewalld"`},
		{`"conditionsV4": ["!", "-d", "192.0.2.0/24"]`, 2, `conditionsV4: ["!","-d"`},
		{`"conditionsV6": ["!", "-d", "2001:db8::/32"]`, 2, "conditionsV6"},
		{`"masqAll": true`, 2, "masqAll: true"},
		{`"markMasqBit": 0`, 2, "markMasqBit: 0"},
		{`"externalSetMarkChain": "KUBE-MARK-MASQ"`, 2, "externalSetMarkChain"},
		{`"ingressPolicy": "open"`, 2, `ingressPolicy: "open"`},
		{`"ingressPolicy": "nonsense"`, 2, "nonsense"},
		{`"iptablesAdminChainName": "MINE"`, 2, "MINE"},
		{`"firewalldZone": "trusted"`, 2, "trusted"},
		{`"unshapedSubnets": ["10.0.0.0/8"]`, 2, `unshapedSubnets: ["10.0.0.0/8"]`},
		{`"shapedSubnets": ["10.0.0.0/8"]`, 2, "shapedSubnets"},
		{`"sysctl": {"net.ipv4.conf.eth0.log_martians": "1"}`, 2, "sysctl"},
		{`"promisc": true`, 2, "promisc: true"},
		{`"allmulti": true`, 2, "allmulti: true"},
		{`"txQLen": 100`, 2, "txQLen: 100"},
		{`"dataDir": "/run/tuning"`, 2, "dataDir"},
		{`"table": 100`, 2, "table: 100"},
		{`"gateways": ["192.0.2.1"]`, 2, "gateways"},
		{`"addSourceHints": true`, 2, "addSourceHints"},
		{`"vrfname": "blue"`, 2, "vrfname"},
		{`"ipam": {"type": "boxwire", "dataDir": "DIR/state", "subnet": "10.89.0.0/24", "addresses": [{"address": "10.89.0.7/24"}]}`, 2, "ipam.addresses"},
		{`"ipam": {"type": "boxwire", "dataDir": "DIR/state", "subnet": "10.89.0.0/24", "daemonSocketPath": "/run/dhcp.sock"}`, 2, "ipam.daemonSocketPath"},
		{`"ipam": {"type": "boxwire", "dataDir": "DIR/state", "subnet": "10.89.0.0/24", "request": [{"skipDefault": true}]}`, 2, "ipam.request"},
		{`"ipam": {"type": "boxwire", "dataDir": "DIR/state", "subnet": "10.89.0.0/24", "provide": [{"option": "host-name", "value": "x"}]}`, 2, "ipam.provide"},
		{`"ipam": {"type": "boxwire", "dataDir": "DIR/state", "subnet": "10.89.0.0/24", "priority": 7}`, 2, "ipam.priority"},
		{`"disableContainerInterface": true`, 7, "ipam exclude each other"},
		{`"ipam": {"type": "boxwire", "subnet": "10.89.0.0/24", "dataDir": "DIR/state", "resolvConf": "DIR/nowhere"}`, 7, "nowhere"},
	} {
		t.Run(test.conf, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, test.conf)
			c := r.container("c1", publish8080)
			_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
			serr := r.cni.GetStatusNetworkList(t.Context(), r.list)
			if test.code == 0 {
				if err != nil || serr != nil || r.check(c) != nil {
					t.Errorf("ADD: %v, STATUS: %v, CHECK: %v", err, serr, r.check(c))
				}
			} else if codeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
				t.Errorf("ADD: code %d: %v, want %d, %q", codeOf(err), err, test.code, test.says)
			}
			// DEL and GC are for what there is, whatever the configuration has become.
			r.del(c)
			r.gc()
			r.clean()
		})
	}
}

// A configuration that an older version took does not keep its containers for ever.
func TestAnAttachmentGoesThoughItsConfigurationIsRefusedNow(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	c := r.container("c1", publish8080)
	r.add(c)
	r.configure(`"masqAll": true, "mtu": 5`)
	if err := r.check(c); codeOf(err) != 2 {
		t.Errorf("CHECK: %v", err)
	}
	r.del(c)
	r.gc()
	r.clean()
}

func TestIsolatedPortsReachTheHostOnly(t *testing.T) {
	t.Parallel()
	for _, conf := range []string{`"portIsolation": true`, `"ingressPolicy": "isolated"`} {
		t.Run(conf, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, conf)
			a, b := r.container("a", ""), r.container("b", "")
			addr := addrOf(r.add(a), 0).String()
			r.add(b)
			serve(t, a)
			if err := reach(t, r.host, addr, "a"); err != nil {
				t.Errorf("from the host: %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if conn, err := b.ns.Dial(ctx, "tcp", addr+":80"); err == nil {
				conn.Close()
				t.Error("a sibling reaches it")
			}
			if err := r.check(a); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			if !strings.Contains(conf, "portIsolation") {
				return // the firewall does it where it sees what is bridged
			}
			var ports []struct {
				IfName   string
				Isolated bool
			}
			testutil.JSON(t, r.host, &ports, "bridge", "-j", "-d", "link", "show")
			for _, p := range ports {
				if strings.HasPrefix(p.IfName, linkPrefix) && !p.Isolated {
					t.Errorf("the ports are %+v", ports)
				}
			}
			testutil.Run(t, r.host, "ip", "link", "set", attachment{"testnet", "a", "eth0"}.link(), "type", "bridge_slave", "isolated", "off")
			if err := r.check(a); codeOf(err) != codeDrift {
				t.Errorf("CHECK of a port that is not isolated any more: %v", err)
			}
			for _, c := range []container{a, b} {
				r.del(c)
			}
			r.gc()
			r.clean()
		})
	}
}

func TestALinkMayStayDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"disableContainerInterface": true, "ipam": {}`)
	c := r.container("c1", "")
	r.add(c)
	if out := testutil.Run(t, c.ns, "ip", "-br", "link", "show", "eth0"); !strings.Contains(out, "DOWN") {
		t.Errorf("the container has %s", out)
	}
	if err := r.check(c); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	r.del(c)
	r.gc()
	r.clean()
}

// forceAddress replaces other addresses of the bridge; a failed ADD leaves them, and
// without the key they stay beside the gateways'.
func TestOtherAddressesOfTheBridgeGoByForce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, conf string
		fails      bool
		want       string
	}{
		{"without", "", false, "10.89.0.1/24 10.89.0.253/24 10.99.0.1/24 192.0.2.7/32 fd89::1/64 fd89::253/64 fd99::1/64"},
		{"with", `"forceAddress": true`, false, "10.89.0.1/24 fd89::1/64 fd99::1/64"},
		{"with, and the ADD fails", `"forceAddress": true`, true, "10.89.0.253/24 10.99.0.1/24 192.0.2.7/32 fd89::253/64 fd99::1/64"},
		{"without, and the ADD fails", "", true, "10.89.0.253/24 10.99.0.1/24 192.0.2.7/32 fd89::253/64 fd99::1/64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, test.conf)
			testutil.Run(t, r.host, "ip", "link", "add", "boxwire0", "up", "type", "bridge")
			for _, a := range []string{"10.89.0.253/24", "10.99.0.1/24", "192.0.2.7/32", "fd89::253/64", "fd99::1/64"} {
				testutil.Run(t, r.host, "ip", "addr", "add", a, "dev", "boxwire0", "nodad")
			}
			c := r.container("c1", publish8080)
			if test.fails { // at its last step but one
				testutil.Run(t, c.ns, "ip", "link", "add", "eth0", "type", "bridge")
			}
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); (err != nil) != test.fails {
				t.Errorf("ADD: %v", err)
			}
			if have := r.bridgeAddrs(); have != test.want {
				t.Errorf("the bridge has %s, want %s", have, test.want)
			}
		})
	}
}

// bridgeAddrs are the bridge's addresses, sorted.
func (r *rig) bridgeAddrs() string {
	r.Helper()
	var links []struct {
		AddrInfo []struct {
			Local, Scope string
			PrefixLen    int
		} `json:"addr_info"`
	}
	testutil.JSON(r, r.host, &links, "ip", "-j", "addr", "show", "boxwire0")
	var all []string
	for _, l := range links {
		for _, a := range l.AddrInfo {
			if a.Scope != "link" {
				all = append(all, a.Local+"/"+strconv.Itoa(a.PrefixLen))
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestDNSComesFromAFileAndIsOverridden(t *testing.T) {
	t.Parallel()
	const ipam = `"ipam": {"type": "boxwire", "subnet": "10.89.0.0/24", "dataDir": "DIR/state", "resolvConf": "DIR/resolv.conf"}`
	for _, test := range []struct{ name, conf, want string }{
		{"of IPAM", ipam, "192.0.2.53 2001:db8::53|example.org|a.example b.example|ndots:2"},
		{"of the network", ipam + `, "dns": {"nameservers": ["192.0.2.54"]}`, "192.0.2.54|||"},
		{"an empty list is set", ipam + `, "dns": {"nameservers": []}`, "|||"},
		{"another empty list", ipam + `, "dns": {"search": []}`, "|||"},
		{"nothing is not", ipam + `, "dns": {}`, "192.0.2.53 2001:db8::53|example.org|a.example b.example|ndots:2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			if err := os.WriteFile(r.dir+"/resolv.conf", []byte("# comment\nnameserver 192.0.2.53\n  nameserver 2001:db8::53\ndomain example.org\nsearch a.example b.example\noptions ndots:2\n;x y\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			for i, mode := range []string{"", `"mode": "ptp", "isGateway": false, "isDefaultGateway": false, `} {
				r.configure(mode + test.conf)
				c := r.container(fmt.Sprint("c", i), "")
				d := r.add(c).DNS
				if got := strings.Join([]string{strings.Join(d.Nameservers, " "), d.Domain, strings.Join(d.Search, " "), strings.Join(d.Options, " ")}, "|"); got != test.want {
					t.Errorf("%sDNS is %s, want %s", mode, got, test.want)
				}
				r.del(c)
				r.gc()
			}
		})
	}
}

func TestRangesMayComeFromTheRuntime(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"capabilities": {"ipRanges": true}, "ipam": {"type": "boxwire", "dataDir": "DIR/state"}`)
	if err := r.cni.GetStatusNetworkList(t.Context(), r.list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	none := r.container("none", "")
	if _, err := r.cni.AddNetworkList(t.Context(), r.list, none.RuntimeConf); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Errorf("an ADD without ranges: %v", err)
	}
	r.del(none)
	c := r.container("c1", `"ipRanges": [[{"subnet": "10.90.0.0/24", "rangeStart": "10.90.0.9"}]]`)
	if got := r.add(c).IPs[0].Address.String(); got != "10.90.0.9/24" {
		t.Errorf("the container has %s", got)
	}
	if err := r.check(c); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	r.del(c)
	r.gc()
	r.clean()
}
