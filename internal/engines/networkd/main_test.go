// Package networkd has the scenes beside systemd-networkd.
package networkd

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/scene"
)

func TestMain(m *testing.M) { machine.Main(m) }

// Files of systemd-networkd.
const (
	// eth0 has the addresses of the host.
	eth0File = "/etc/systemd/network/10-eth0.network"
	eth0     = `
[Match]
Name=eth0
[Network]
Address=192.0.2.2/24
Address=2001:db8:1::2/64
Gateway=192.0.2.1
Gateway=2001:db8:1::1
IPv6AcceptRA=no
`
	// Without it, networkd 252 removes the address when it starts and adds it again at once. With the last
	// address of a link the kernel removes all routes by way of it.
	stayFile = "/etc/systemd/network/10-eth0.network.d/boxwire.conf"
	stay     = `
[Network]
KeepConfiguration=static
`
	// Some images have a file for all links.
	allFile = "/etc/systemd/network/90-all.network"
	all     = `
[Match]
Name=*
[Network]
DHCP=yes
`
	// What the page "beside other programs" advises.
	oursFile = "/etc/systemd/network/05-boxwire.network"
	ours     = `
[Match]
Name=boxwire* veth* bw-*
[Link]
Unmanaged=yes
`
	keepFile = "/etc/systemd/networkd.conf.d/boxwire.conf"
	keep     = `
[Network]
ManageForeignRoutes=no
ManageForeignRoutingPolicyRules=no
ManageForeignNextHops=no
`
)

// host is a machine whose eth0 systemd-networkd configures, as a boot does it.
type host struct {
	*machine.Machine
	d       *machine.Daemon
	version string
}

func start(t *testing.T, files ...string) *host {
	t.Helper()
	scene.NeedIPv6(t)
	m := machine.New(t, machine.Config{
		Engine: "systemd-networkd", Packages: []string{"systemd", "udev", "dbus", "iproute2", "nftables"},
		Version: []string{"/lib/systemd/systemd-networkd", "--version"},
	})
	content := map[string]string{eth0File: eth0, allFile: all, oursFile: ours, keepFile: keep, stayFile: stay}
	for _, f := range append(files, eth0File) {
		m.WriteFile(t, f, content[f], 0o644)
	}
	m.Run(t, "ip", "-4", "address", "flush", "dev", "eth0")
	m.Run(t, "ip", "-6", "address", "flush", "dev", "eth0", "scope", "global")
	// What systemd-tmpfiles and the unit make.
	m.Run(t, "install", "-d", "-o", "systemd-network", "-g", "systemd-network",
		"/run/systemd/netif", "/run/systemd/netif/links", "/run/systemd/netif/leases", "/run/systemd/netif/lldp")
	scene.DBus(t, m)
	scene.Udev(t, m)
	h := &host{m, m.Daemon(t, "/lib/systemd/systemd-networkd"), m.Run(t, "/lib/systemd/systemd-networkd", "--version")}
	h.ready(t)
	return h
}

// as252 are patterns for CheckState of what networkd 252 does, and other versions may do.
func (h *host) as252(patterns []string) (list []string) {
	for _, p := range patterns {
		if !strings.HasPrefix(h.version, "systemd 252 ") {
			p = "maybe " + p
		}
		list = append(list, p)
	}
	return list
}

// ready waits until networkd has decided what to do with each link, and has configured eth0.
func (h *host) ready(t *testing.T) {
	t.Helper()
	h.d.Ready(t, func() error {
		for name, state := range h.states() {
			if state == "pending" || state == "initialized" || name == "eth0" && state != "configured" {
				return fmt.Errorf("%s is %s", name, state)
			}
			if name == "error" {
				return fmt.Errorf("%s", state)
			}
		}
		return nil
	})
}

// states are what networkd says of the links; "error" if it cannot be asked.
func (h *host) states() map[string]string {
	out, err := h.Try("busctl", "--json=short", "call", "org.freedesktop.network1", "/org/freedesktop/network1",
		"org.freedesktop.network1.Manager", "Describe")
	if err != nil {
		return map[string]string{"error": err.Error() + out}
	}
	var reply struct{ Data []string }
	var all struct {
		Interfaces []struct{ Name, AdministrativeState string }
	}
	err = json.Unmarshal([]byte(out), &reply)
	if err == nil {
		err = json.Unmarshal([]byte(strings.Join(reply.Data, "")), &all)
	}
	if err != nil {
		return map[string]string{"error": err.Error() + out}
	}
	states := map[string]string{}
	for _, i := range all.Interfaces {
		states[i.Name] = i.AdministrativeState
	}
	return states
}

// What happens to networkd.
const (
	restarted    = "restarted"
	killed       = "killed and started again"
	reloaded     = "files read again"
	reconfigured = "eth0 configured again"
)

type step struct {
	what string
	do   func()
}

func (h *host) steps(t *testing.T) []step {
	return []step{
		{restarted, func() { h.d.Restart(t) }},
		{killed, func() {
			h.d.Kill(t)
			h.d.Start(t)
		}},
		{reloaded, func() { h.Run(t, "networkctl", "reload") }},
		{reconfigured, func() { h.Run(t, "networkctl", "reconfigure", "eth0") }},
	}
}
