//go:build linux

package podman

import (
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/engines/containers"
	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/race"
)

// plugged are networks of one bridge with one subnet: of the plugin examples/cni, and of the plugins that podman has for
// its default network.
const (
	plugged = `{"cniVersion": "0.4.0", "name": "plugged", "plugins": [{
	"type": "boxwire", "bridge": "cniboxes0", "isDefaultGateway": true, "ipMasq": true,
	"capabilities": {"portMappings": true}, "ipam": {"type": "boxwire", "ranges": [[{"subnet": "10.89.7.0/24"}]]}
}]}`
	chained = `{"cniVersion": "0.4.0", "name": "chained", "plugins": [
	{"type": "bridge", "bridge": "cni-podman1", "isGateway": true, "ipMasq": true, "hairpinMode": true,
	 "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": "10.89.8.0/24"}]]}},
	{"type": "portmap", "capabilities": {"portMappings": true}}, {"type": "firewall"}, {"type": "tuning"}
]}`
)

// peer is podman with a network.
type peer struct {
	name   string // of the contender
	m      *machine.Machine
	podman *containers.Podman
}

// BenchmarkPodman compares podman with the library on one machine: podman with the plugin examples/cni, with its default
// chain of CNI plugins, and with netavark. Each has the image, and a bridge with another container, before the first round.
//
// Attach is a network and a published port for a container: `podman start`, less that of a container without a
// network. The library makes the namespace as well.
//
// FirstByte is the time from nothing to the first HTTP answer through the published port, with the start of a process
// or, by `podman run`, of a container.
func BenchmarkPodman(b *testing.B) {
	m := machine.New(b, machine.Config{
		Packages: append([]string{"containernetworking-plugins", "netavark"}, containers.Packages...), Engine: "podman",
		Version: []string{"dpkg-query", "-W", "-f", "${Package} ${Version}\n", "podman", "containernetworking-plugins", "netavark"},
	})
	// What a host with boxes and containers has all the time: who ends does not switch it off.
	if err := m.NS.SetSysctl(b.Context(), "net.ipv4.ip_forward", "1"); err != nil {
		b.Fatal(err)
	}
	m.Run(b, "mv", m.Build(b, "./examples/cni"), "/usr/local/bin/boxwire")
	m.WriteFile(b, "/etc/cni/net.d/90-plugged.conflist", plugged, 0o644)
	m.WriteFile(b, "/etc/cni/net.d/91-chained.conflist", chained, 0o644)
	podman := containers.New(b, m, "cni", `cni_plugin_dirs = ["/usr/local/bin", "/usr/lib/cni"]`).With("--runtime", "/usr/sbin/runc")
	cni := podman.With("--network-backend", "cni", "--network-config-dir", "/etc/cni/net.d")
	netavark := podman.With("--network-backend", "netavark", "--network-config-dir", "/etc/containers/networks")
	netavark.Do(b, "network", "create", "--disable-dns", "--subnet", "10.89.9.0/24", "netavark")
	peers := []peer{{"plugged", m, cni}, {"chained", m, cni}, {"netavark", m, netavark}}
	for _, p := range peers { // netavark removes a bridge with its last container
		p.podman.Start(b, p.name+"-sibling", "--network", p.name)
	}

	library, run := race.NewLibrary(b, m), race.Runner(b, m)
	b.Run("Attach", func(b *testing.B) {
		all := []race.Contender{library.Attach(b)}
		for _, p := range peers {
			all = append(all, race.Contender{Name: p.name, Round: p.attach, Base: p.none})
		}
		race.Run(b, m, all...)
	})
	b.Run("FirstByte", func(b *testing.B) {
		all := []race.Contender{library.FirstByte(), run}
		for _, p := range peers {
			all = append(all, race.Contender{Name: p.name, Round: p.firstByte})
		}
		race.Run(b, m, all...)
	})
}

// flags are those of a container that answers, in the peer's network.
func (p peer) flags(name string) []string {
	return []string{"--name", name, "--network", p.name, "-p", "8080:80", "box", "/bin/probe", "-name", name, "-http", ":80"}
}

func (p peer) attach(b *testing.B, name string) time.Duration {
	b.Helper()
	p.podman.Do(b, append([]string{"create"}, p.flags(name)...)...)
	d := race.Took(func() { p.podman.Do(b, "start", name) })
	race.Answered(b, p.m, name)
	p.remove(b, name)
	return d
}

// none starts a container without a network.
func (p peer) none(b *testing.B, name string) time.Duration {
	b.Helper()
	p.podman.Do(b, "create", "--name", name, "--network", "none", "box", "/bin/probe", "-name", name, "-http", ":80")
	d := race.Took(func() { p.podman.Do(b, "start", name) })
	p.remove(b, name)
	return d
}

func (p peer) firstByte(b *testing.B, name string) time.Duration {
	b.Helper()
	d := race.Took(func() {
		p.podman.Do(b, append([]string{"run", "-d"}, p.flags(name)...)...)
		race.Answered(b, p.m, name)
	})
	p.remove(b, name)
	return d
}

func (p peer) remove(b *testing.B, name string) {
	b.Helper()
	// The container ends at once. Where podman lost patience just then, it would fail to kill it.
	p.podman.Do(b, "rm", "-f", "-t", "60", name)
	race.Gone(b, p.m)
	race.Quiet(b, p.m, "podman") // conmon starts one when the container has ended
}
