//go:build linux

// Package containers runs containers with podman in a machine of a scene. Each runs the program probe,
// which answers at port 80 with its name.
package containers

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/netns"
)

// Packages are those that podman needs here. runc is among podman's, and runs without CAP_SYS_RESOURCE,
// which crun needs.
var Packages = []string{"podman", "runc", "conmon", "iptables", "nftables", "busybox-static"}

// runtime is a script around runc. podman 4.3 with cgroupfs has the control group of a pod deny every
// device, so that runc cannot even open /dev/null. With it, containers are not in that group.
const (
	runtime       = "/usr/local/libexec/runc"
	runtimeScript = `#!/bin/sh
for arg; do
	case $last in
	--bundle) sed -i 's,"cgroupsPath":"/libpod_parent/[^/"]*/,"cgroupsPath":"/libpod_parent/,' "$arg/config.json" ;;
	esac
	last=$arg
done
exec /usr/sbin/runc "$@"
`
)

// Podman is podman in a machine.
type Podman struct {
	m     *machine.Machine
	user  []string // what its commands begin with, for a user who is not root
	flags []string // of podman itself, before the command
}

// New configures podman with a network backend, "cni" or "netavark", and more lines for the section
// [network] of containers.conf(5). It imports the image box.
func New(t testing.TB, m *machine.Machine, backend string, network ...string) *Podman {
	t.Helper()
	m.WriteFile(t, "/etc/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`, 0o644)
	m.WriteFile(t, "/etc/containers/containers.conf", fmt.Sprintf(`[network]
network_backend = %q
%s
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
runc = [%q]
[containers]
log_driver = "k8s-file"
# The machine has neither a higher limit of descriptors nor everywhere the controller pids.
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
`, backend, strings.Join(network, "\n"), runtime), 0o644)
	m.WriteFile(t, runtime, runtimeScript, 0o755)
	p := &Podman{m: m}
	p.Do(t, "import", "--quiet", m.ImageTar(t), "box")
	return p
}

// With is podman with more flags before each command.
func (p *Podman) With(flags ...string) *Podman {
	with := *p
	with.flags = slices.Concat(p.flags, flags)
	return &with
}

// Do runs podman and returns its output without the last newline.
func (p *Podman) Do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.Try(args...)
	if err != nil {
		t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSuffix(out, "\n")
}

// Try is Do with an error.
func (p *Podman) Try(args ...string) (string, error) {
	line := slices.Concat(p.user, []string{"podman"}, p.flags, args)
	return p.m.Try(line[0], line[1:]...)
}

// Start starts a container that answers.
func (p *Podman) Start(t testing.TB, name string, flags ...string) {
	t.Helper()
	args := append([]string{"run", "-d", "--name", name}, flags...)
	p.Do(t, append(args, "box", "/bin/probe", "-name", name, "-listen", ":80")...)
}

// Stop stops a container. Probe ends at once.
func (p *Podman) Stop(t testing.TB, names ...string) {
	t.Helper()
	p.Do(t, append([]string{"stop", "-t", "10"}, names...)...)
}

// Remove removes containers, whatever they do.
func (p *Podman) Remove(t testing.TB, names ...string) {
	t.Helper()
	p.Do(t, append([]string{"rm", "-f", "-t", "1"}, names...)...)
}

// NS opens the namespace of a container. It is closed with the test.
func (p *Podman) NS(t testing.TB, name string) *netns.NS {
	t.Helper()
	ns, err := netns.OpenPath(t.Context(), p.m.Path("/proc/"+p.Do(t, "inspect", name, "--format", "{{.State.Pid}}")+"/ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// Addrs returns the addresses of a container in a network; one that it does not have is empty.
func (p *Podman) Addrs(t testing.TB, name, network string) (v4, v6 string) {
	t.Helper()
	var all []struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, GlobalIPv6Address string }
		}
	}
	if err := json.Unmarshal([]byte(p.Do(t, "inspect", name)), &all); err != nil {
		t.Fatal(err)
	}
	n, ok := all[0].NetworkSettings.Networks[network]
	if !ok {
		t.Fatalf("%s is not in %s", name, network)
	}
	for _, a := range []string{n.IPAddress, n.GlobalIPv6Address} {
		if _, err := netip.ParseAddr(a); a != "" && err != nil {
			t.Fatal(err)
		}
	}
	return n.IPAddress, n.GlobalIPv6Address
}
