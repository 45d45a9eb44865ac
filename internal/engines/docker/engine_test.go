package docker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/netns"
)

// engine is dockerd in a machine.
type engine struct {
	m *machine.Machine
	d *machine.Daemon
}

// packages are what the scenes need; the image is a busybox and a probe.
var packages = []string{"docker.io", "iptables", "nftables", "iproute2", "busybox-static"}

// newMachine makes a machine whose iptables is the variant nft or legacy.
func newMachine(t testing.TB, variant string) *machine.Machine {
	t.Helper()
	m := machine.New(t, machine.Config{
		Name: "dockerhost", Engine: "docker", Packages: packages, Version: []string{"dockerd", "--version"},
	})
	for _, tool := range []string{"iptables", "ip6tables"} {
		m.Run(t, "update-alternatives", "--set", tool, "/usr/sbin/"+tool+"-"+variant)
	}
	return m
}

// start starts dockerd and what the scene runs in it.
func start(t *testing.T, m *machine.Machine) *engine {
	t.Helper()
	e := startDaemon(t, m)
	m.Run(t, "docker", "import", m.ImageTar(t), "probe")
	m.Run(t, "docker", "network", "create", "--internal", "--ipv6", "--subnet", "fd19::/64", "inner")
	e.runContainers(t)
	return e
}

// startDaemon starts dockerd with rules for IPv6, too.
func startDaemon(t testing.TB, m *machine.Machine) *engine {
	t.Helper()
	m.WriteFile(t, "/etc/docker/daemon.json", `{"experimental": true, "ip6tables": true, "ipv6": true, "fixed-cidr-v6": "fd17::/64"}`, 0o644)
	e := &engine{m: m, d: m.Daemon(t, "dockerd")}
	e.ready(t)
	return e
}

// ready waits until dockerd answers.
func (e *engine) ready(t testing.TB) {
	t.Helper()
	e.d.Ready(t, func() error {
		out, err := e.m.Try("docker", "version")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// back waits until dockerd answers after a restart and has its containers again. It may have started the pod's before that
// whose network it shares, or have given it up: then it is not there, or in the namespace of one
// that has ended. And the published port of a container may answer all but one of the others for a while.
func (e *engine) back(t *testing.T) {
	t.Helper()
	e.ready(t)
	e.m.Run(t, "docker", "restart", "pod")
	machine.Until(t, "the published port of a container of dockerd, after its restart", func() error {
		for _, name := range []string{"open", "shut"} {
			for _, address := range []string{"192.0.2.2:8081", "[2001:db8:1::2]:8081"} {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				_, err := reach.Ask(ctx, e.ns(t, name), "tcp", address)
				cancel()
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
		return nil
	})
}

// runContainers runs the containers of the scene: one with a published port, another in its network namespace, one with
// no port, and one in the internal network.
func (e *engine) runContainers(t *testing.T) {
	t.Helper()
	e.run(t, "open", "-p", "8081:80/tcp", "-p", "8081:80/udp")
	e.runAt(t, "pod", ":81", "--network", "container:open")
	e.run(t, "shut")
	e.run(t, "inner", "--network", "inner")
}

// run runs a container that answers at port 80 and comes back with dockerd.
func (e *engine) run(t *testing.T, name string, args ...string) {
	t.Helper()
	e.runAt(t, name, ":80", args...)
}

func (e *engine) runAt(t *testing.T, name, address string, args ...string) {
	t.Helper()
	args = append([]string{"run", "-d", "--restart", "always", "--name", name}, args...)
	e.m.Run(t, "docker", append(args, "probe", "/bin/probe", "-name", name, "-listen", address)...)
}

// inspect prints a field of a container.
func (e *engine) inspect(t *testing.T, name, format string) string {
	t.Helper()
	return strings.TrimSpace(e.m.Run(t, "docker", "inspect", "-f", format, name))
}

// ns is the network namespace of a running container.
func (e *engine) ns(t *testing.T, name string) *netns.NS {
	t.Helper()
	var ns *netns.NS
	machine.Until(t, "container "+name+" runs", func() (err error) {
		pid := e.inspect(t, name, "{{.State.Pid}}")
		ns, err = netns.OpenPath(t.Context(), e.m.Path("/proc/"+pid+"/ns/net"))
		return err
	})
	t.Cleanup(func() { ns.Close() })
	return ns
}

// addr4 and addr6 are a container's addresses.
func (e *engine) addr4(t *testing.T, name string) string {
	t.Helper()
	return e.inspect(t, name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

func (e *engine) addr6(t *testing.T, name string) string {
	t.Helper()
	return e.inspect(t, name, "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}")
}
