// Package udev has the scenes beside systemd-udevd with Debian's link policies.
package udev

import (
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

func TestMain(m *testing.M) { machine.Main(m) }

// newMachine makes a machine in which systemd-udevd is installed.
func newMachine(t *testing.T) *machine.Machine {
	t.Helper()
	return machine.New(t, machine.Config{
		Engine: "udev", Packages: []string{"udev", "iproute2", "nftables"}, Version: []string{"udevadm", "--version"},
	})
}

// globs are what /usr/lib/sysctl.d/50-default.conf of systemd has for links, which Debian 12 leaves out. A rule of
// udev writes them into each new link.
const globs = `
net.ipv4.conf.*.rp_filter = 2
net.ipv4.conf.*.accept_source_route = 0
net.ipv4.conf.*.promote_secondaries = 1
`

func withGlobs(t *testing.T, m *machine.Machine) {
	t.Helper()
	m.WriteFile(t, "/usr/lib/sysctl.d/50-default.conf", globs, 0o644)
}
