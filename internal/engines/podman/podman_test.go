//go:build linux

package podman

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/boxes"
	"github.com/boxwire/boxwire/internal/engines/machine"
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

	// kill -9 of conmon as well: nobody runs DEL before the next start.
	h.Run(t, "kill", "-9", h.podman.Do(t, "inspect", "web", "--format", "{{.State.ConmonPid}}"), h.podman.Do(t, "inspect", "web", "--format", "{{.State.Pid}}"))
	machine.Until(t, "podman's sight of the killed container", func() error {
		if state := h.podman.Do(t, "inspect", "web", "--format", "{{.State.Status}}"); state == "running" {
			return errors.New(state)
		}
		return nil
	})
	h.podman.Do(t, "start", "web")
	know()
	h.world.CheckBoth(t, "after kill -9 of conmon and a start", table)

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
		for _, family := range []string{"-4", "-6"} {
			out := h.podman.Do(t, "exec", "both", "/bin/busybox", "ip", family, "route")
			if n := strings.Count(out, "default "); n != want {
				t.Errorf("%d default routes, want %d:\n%s", n, want, out)
			}
		}
	}
	const outside = `
		                    lan  host both
		both lan            .    lan  lan
		both :8070          lib  lib  lib
		both :8081          both both both
		tcp  self:8081      .    both .
	`
	first, second := publishes()
	ways(2)
	h.world.CheckBoth(t, "in two networks", outside)
	h.world.CheckBoth(t, "in two networks", `
		                    lan  peer back both
		both both.boxnet    -    both -    both
		both both.backnet   -    -    both both
		both peer.boxnet    -    peer -    peer
		both back.backnet   -    -    back back
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

// The containers of a pod share a namespace, and a pod of play kube has its host port.
func TestPods(t *testing.T) {
	t.Parallel()
	h := newHost(t, "catatonit")
	h.podman.Do(t, append([]string{"pod", "create", "--name", "pod", "--infra-command", "/bin/probe", "--infra-image", "box", "--network", "boxnet"}, ports(8082)...)...)
	t.Log(h.podman.Do(t, "pod", "ls"))
}
