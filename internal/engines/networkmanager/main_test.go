// Package networkmanager has the scenes beside NetworkManager.
package networkmanager

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/scene"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { machine.Main(m) }

// Files of NetworkManager.
const (
	// eth0 has the addresses of the host.
	eth0File = "/etc/NetworkManager/system-connections/eth0.nmconnection"
	eth0     = `
[connection]
id=eth0
type=ethernet
interface-name=eth0
[ipv4]
method=manual
address1=192.0.2.2/24,192.0.2.1
[ipv6]
method=manual
address1=2001:db8:1::2/64,2001:db8:1::1
`
	// What the page "beside other programs" advises.
	oursFile = "/etc/NetworkManager/conf.d/boxwire.conf"
	ours     = `
[keyfile]
unmanaged-devices=interface-name:boxwire*;interface-name:veth*;interface-name:bw-*;interface-name:eth7
`
)

// host is a machine whose eth0 NetworkManager configures.
type host struct {
	*machine.Machine
	d *machine.Daemon
}

func start(t *testing.T, withOurs bool) *host {
	t.Helper()
	scene.NeedIPv6(t)
	m := machine.New(t, machine.Config{
		Engine: "network-manager", Packages: []string{"network-manager", "systemd", "udev", "dbus", "iproute2", "nftables"},
		Version: []string{"NetworkManager", "--version"},
	})
	m.WriteFile(t, eth0File, eth0, 0o600)
	if withOurs {
		m.WriteFile(t, oursFile, ours, 0o644)
	}
	m.Run(t, "ip", "-4", "address", "flush", "dev", "eth0")
	m.Run(t, "ip", "-6", "address", "flush", "dev", "eth0")
	scene.DBus(t, m)
	scene.Udev(t, m)
	h := &host{m, m.Daemon(t, "NetworkManager", "--no-daemon")}
	h.ready(t)
	return h
}

// ready waits until NetworkManager has started and configured eth0.
func (h *host) ready(t *testing.T) {
	t.Helper()
	h.d.Ready(t, func() error {
		out, err := h.Try("nmcli", "-t", "-f", "STARTUP", "general")
		if err != nil || !strings.Contains(out, "started") {
			return fmt.Errorf("%s %v", out, err)
		}
		if s := h.states()["eth0"]; s != "connected" {
			return fmt.Errorf("eth0 is %s", s)
		}
		// It is connected before the kernel has checked the address, and what is masqueraded until then gets a
		// link-local one.
		out, err = h.Try("ip", "-6", "address", "show", "dev", "eth0")
		if err != nil || !strings.Contains(out, "2001:db8:1::2") || strings.Contains(out, "tentative") {
			return fmt.Errorf("eth0 has the addresses %s %v", out, err)
		}
		return nil
	})
	scene.Settle(t, h.Machine)
}

// states are what NetworkManager says of the links.
func (h *host) states() map[string]string {
	out, err := h.Try("nmcli", "-t", "-f", "DEVICE,STATE", "device")
	if err != nil {
		return map[string]string{"error": err.Error() + out}
	}
	states := map[string]string{}
	for line := range strings.Lines(out) {
		name, state, _ := strings.Cut(strings.TrimSpace(line), ":")
		states[name] = state
	}
	return states
}

type step struct {
	what string
	do   func()
}

// steps are what happens to NetworkManager.
func (h *host) steps(t *testing.T) []step {
	sleep := func(on string) {
		h.Run(t, "busctl", "call", "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager", "Sleep", "b", on)
	}
	return []step{
		{"restarted", func() { h.d.Restart(t) }},
		{"killed and started again", func() {
			h.d.Kill(t)
			h.d.Start(t)
		}},
		{"files read again by a signal", func() { h.d.Signal(t, unix.SIGHUP) }},
		{"files read again", func() {
			h.Run(t, "nmcli", "general", "reload")
			h.Run(t, "nmcli", "connection", "reload")
		}},
		{"the machine slept", func() {
			sleep("true")
			sleep("false")
		}},
	}
}
