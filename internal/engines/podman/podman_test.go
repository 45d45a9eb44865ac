//go:build linux

package podman

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/boxes"
	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// ports are the flags that publish a port over TCP and UDP.
func ports(port int) []string {
	return []string{"-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("%d:80/udp", port)}
}

// TestContainers has containers in two networks beside a box of the library, while podman and the host
// change things.
func TestContainers(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.podman.Start(t, "web", ports(8080)...)
	h.podman.Start(t, "peer")
	h.podman.Start(t, "back", "--network", "backnet")
	know := func() {
		t.Helper()
		h.add(t, "web", "boxnet")
		h.add(t, "peer", "boxnet")
		h.add(t, "back", "backnet")
	}
	know()
	const table = `
		                   lan  host lib  web  peer back
		both lan           .    lan  lan  lan  lan  lan
		tcp  host          host host host host host host
		both :8070         lib  lib  lib  lib  lib  lib
		both :8080         web  web  web  web  web  web
		tcp  self:8080     .    web  .    .    .    .
		both lib           -    lib  lib  -    -    -
		both web.boxnet    -    web  -    web  web  -
		both peer.boxnet   -    peer -    peer peer -
		both back.backnet  -    back -    -    -    back
	`
	h.world.CheckBoth(t, "at first", table)

	ours := h.Run(t, "nft", "-s", "list", "table", "inet", "boxwire")
	h.podman.Do(t, "restart", "-t", "10", "web", "back")
	know()
	h.world.CheckBoth(t, "after a restart", table)

	// kill -9 of the container's process: conmon has podman run DEL.
	h.podman.Do(t, "kill", "-s", "KILL", "web")
	machine.Until(t, "the end of what a killed container had", func() error {
		if all := h.published(t, 8080); len(all) > 0 {
			return fmt.Errorf("published: %v", all)
		}
		return nil
	})
	h.podman.Do(t, "start", "web")
	know()
	h.world.CheckBoth(t, "after kill -9 of a container and a start", table)

	// kill -9 of conmon and the process: nobody runs DEL before podman looks at the container again.
	h.Run(t, "kill", "-9", h.podman.Do(t, "inspect", "web", "--format", "{{.State.ConmonPid}}"), h.podman.Do(t, "inspect", "web", "--format", "{{.State.Pid}}"))
	h.podman.Remove(t, "web")
	h.podman.Start(t, "web", ports(8080)...)
	know()
	h.world.CheckBoth(t, "after kill -9 of conmon and a new container", table)

	h.Run(t, "nft", "delete", "table", "inet", "boxwire-cni")
	h.podman.Do(t, "network", "reload", "--all")
	know()
	h.world.CheckBoth(t, "after nft flush and podman network reload", table)

	if out, err := h.podman.Try(append(append([]string{"run", "--rm", "--name", "thief"}, ports(8080)...), "box", "/bin/probe", "-ask", "tcp", "127.0.0.1:1")...); err == nil || !strings.Contains(out, "boxnet/") {
		t.Errorf("a port that is taken: %v: %s", err, out)
	}
	const mac, ip = "02:00:00:00:00:63", "10.89.7.99"
	if out := h.podman.Do(t, "run", "--rm", "--ip", ip, "--mac-address", mac, "box", "/bin/busybox", "ip", "addr", "show", "eth0"); !strings.Contains(out, mac) || !strings.Contains(out, ip) {
		t.Errorf("--ip and --mac-address: %s", out)
	}
	h.podman.Remove(t, "web", "peer", "back")
	h.empty(t, "after rm")
	if now := h.Run(t, "nft", "-s", "list", "table", "inet", "boxwire"); now != ours {
		t.Errorf("the library's table is\n%s\nwant\n%s", now, ours)
	}
}

// A container in two networks has a way out by each of them, and its ports are published once: by the one
// that ADD was called for first. When that one goes, the other takes over both.
func TestTwoNetworks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.podman.Start(t, "peer")
	h.podman.Start(t, "back", "--network", "backnet")
	h.podman.Start(t, "both", append(ports(8081), "--network", "boxnet,backnet")...)
	h.add(t, "peer", "boxnet")
	h.add(t, "back", "backnet")
	h.add(t, "both", "boxnet", "backnet")
	boxes.Echo(t, h.LAN, ":7")

	// podman calls ADD in an order of its own.
	publishes := func() (first, second string) {
		t.Helper()
		all := h.published(t, 8081)
		if len(all) != 4 {
			t.Fatalf("port 8081 is published %d times, want once for each family and protocol: %v", len(all), all)
		}
		for _, n := range networks {
			v4, v6 := h.podman.Addrs(t, "both", n.name)
			mine := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.Contains(s, `"`+v4+`"`) && !strings.Contains(s, `"`+v6+`"`) })
			if len(mine) == len(all) {
				first = n.name
			} else {
				second = n.name
			}
		}
		if first == "" || second == "" {
			t.Fatalf("port 8081 is published for %v", all)
		}
		return first, second
	}
	ways := func(want int) {
		t.Helper()
		for _, family := range []route.Family{netns.IPv4, netns.IPv6} {
			all, err := route.List(t.Context(), h.world.Places["both"], route.Filter{Family: family, Table: route.TableMain})
			if err != nil {
				t.Fatal(err)
			}
			if all = slices.DeleteFunc(all, func(r route.Route) bool { return r.Dst.Bits() != 0 }); len(all) != want {
				t.Errorf("%d default routes, want %d: %v", len(all), want, all)
			}
		}
	}
	// A program that is bound to no address answers over UDP from the address of its way to who asks.
	const outside = `
		                    lan  host both peer back lib
		both lan            .    lan  lan  lan  lan  lan
		both :8070          lib  lib  lib  lib  lib  lib
		tcp  :8081          both both both both both both
		udp  :8081          both both both .    .    both
		tcp  self:8081      .    both .    .    .    .
	`
	first, second := publishes()
	ways(2)
	h.world.CheckBoth(t, "in two networks", outside)
	h.world.CheckBoth(t, "in two networks", `
		                    lan  lib  peer back both
		both both.boxnet    -    -    both -    both
		both both.backnet   -    -    -    both both
		both peer.boxnet    -    -    peer -    peer
		both back.backnet   -    -    -    back back
		both lib            -    lib  -    -    -
	`)

	h.podman.Do(t, "network", "disconnect", first, "both")
	ways(1)
	h.world.CheckBoth(t, "without "+first, outside)
	h.podman.Do(t, "network", "connect", first, "both")
	if now, _ := publishes(); now != second {
		t.Errorf("after %s came back it publishes the port, and not %s", now, second)
	}
	ways(2)
	h.add(t, "both", "boxnet", "backnet")
	h.world.CheckBoth(t, "with "+first+" again", outside)
	h.podman.Do(t, "network", "disconnect", second, "both")
	ways(1)
	h.world.CheckBoth(t, "without "+second, outside)
	h.podman.Do(t, "network", "connect", second, "both")

	h.podman.Do(t, "kill", "-s", "KILL", "both")
	machine.Until(t, "the end of what a killed container had", func() error {
		if all := h.published(t, 8081); len(all) > 0 {
			return fmt.Errorf("published: %v", all)
		}
		return nil
	})
	h.podman.Do(t, "start", "both")
	h.add(t, "both", "boxnet", "backnet")
	publishes()
	h.world.CheckBoth(t, "after kill -9 and a start", outside)
	h.podman.Do(t, "network", "reload", "both")
	publishes()
	h.world.CheckBoth(t, "after podman network reload", outside)
	h.podman.Remove(t, "both", "peer", "back")
	h.empty(t, "after rm")
}

// The containers of a pod share the namespace of its network and its ports, and so do those that play kube
// makes. Both go as they came.
func TestPods(t *testing.T) {
	t.Parallel()
	h := newHost(t, "catatonit")
	h.podman.Start(t, "peer")
	h.podman.Do(t, append([]string{"pod", "create", "--name", "pod", "--infra-image", "box", "--infra-command", "/bin/probe -name infra -listen :81", "--network", "boxnet"}, ports(8082)...)...)
	h.podman.Start(t, "web", "--pod", "pod")
	h.podman.Do(t, "run", "-d", "--name", "beside", "--pod", "pod", "box", "/bin/probe", "-name", "beside", "-listen", ":82")
	h.add(t, "peer", "boxnet")
	infra := h.podman.Do(t, "pod", "inspect", "pod", "--format", "{{.InfraContainerID}}")
	h.world.Places["pod"] = h.podman.NS(t, infra)
	v4, v6 := h.podman.Addrs(t, infra, "boxnet")
	h.world.Add("pod", v4, v6, 80)
	h.world.Add("pod:82", v4, v6, 82)
	const table = `
		              lan    host   peer   pod    lib
		both lan      .      lan    lan    lan    lan
		both :8082    web    web    web    web    web
		both pod      -      web    web    web    -
		both pod:82   -      beside beside beside -
		both lib      -      lib    -      -      lib
	`
	h.world.CheckBoth(t, "a pod", table)
	h.podman.Do(t, "pod", "restart", "pod")
	h.world.Places["pod"] = h.podman.NS(t, infra)
	v4, v6 = h.podman.Addrs(t, infra, "boxnet")
	h.world.Add("pod", v4, v6, 80)
	h.world.Add("pod:82", v4, v6, 82)
	h.world.CheckBoth(t, "a pod after a restart", table)
	h.podman.Do(t, "pod", "rm", "-f", "-t", "1", "pod")
	h.podman.Remove(t, "peer")
	h.empty(t, "after pod rm")

	h.WriteFile(t, "/etc/kube.yaml", `apiVersion: v1
kind: Pod
metadata:
  name: kube
spec:
  containers:
  - name: web
    image: localhost/box:latest
    command: ["/bin/probe", "-name", "kube", "-listen", ":80"]
    ports:
    - containerPort: 80
      hostPort: 8080
    - containerPort: 80
      hostPort: 8080
      protocol: UDP
  - name: beside
    image: localhost/box:latest
    command: ["/bin/probe", "-name", "beside", "-listen", ":82"]
`, 0o644)
	// The image of the infra container, which podman would build.
	h.podman.Do(t, "import", "--quiet", "--change", `CMD ["/bin/probe", "-listen", ":81"]`, h.ImageTar(t),
		h.podman.Do(t, "version", "--format", "localhost/podman-pause:{{.Client.Version}}-{{.Client.Built}}"))
	h.podman.Do(t, "play", "kube", "--network", "boxnet", "/etc/kube.yaml")
	infra = h.podman.Do(t, "pod", "inspect", "kube", "--format", "{{.InfraContainerID}}")
	h.world.Places["kube"] = h.podman.NS(t, infra)
	v4, v6 = h.podman.Addrs(t, infra, "boxnet")
	h.world.Add("kube", v4, v6, 80)
	h.world.CheckBoth(t, "play kube", `
		              lan    host   kube   lib
		both lan      .      lan    lan    lan
		both :8080    kube   kube   kube   kube
		both kube     -      kube   kube   -
		both lib      -      lib    -      lib
	`)
	h.podman.Do(t, "play", "kube", "--down", "/etc/kube.yaml")
	h.empty(t, "after play kube --down")
}
