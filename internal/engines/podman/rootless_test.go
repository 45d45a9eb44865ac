//go:build linux

package podman

import (
	"errors"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/containers"
	"github.com/boxwire/boxwire/internal/engines/machine"
)

// A user's podman runs the plugin in a namespace of the user's, behind slirp4netns. The containers reach what
// those of root do, but for boxes of the host, and their ports are those of a program of the user. That is bound
// to no address, so over UDP it does not answer boxes from the address that they asked.
func TestRootless(t *testing.T) {
	t.Parallel()
	h := newHost(t, "uidmap", "slirp4netns", "fuse-overlayfs")
	const home = "/home/alice"
	h.configure(t, home+"/.config/cni/net.d")
	h.WriteFile(t, home+"/.config/containers/containers.conf", "[network]\nnetwork_config_dir = \""+home+"/.config/cni/net.d\"\n", 0o644)
	h.podman = containers.NewUser(t, h.Machine, "alice", 1500)
	h.Run(t, "chown", "-R", "alice:", home)
	h.podman.Do(t, "import", "--quiet", h.ImageTar(t), "box")

	rules := h.Run(t, "nft", "-s", "list", "ruleset")
	h.podman.Start(t, "web", append(ports(8080), "--network", "boxnet")...)
	h.podman.Start(t, "peer", "--network", "boxnet")
	h.podman.Start(t, "back", "--network", "backnet")
	h.podman.Start(t, "both", "--network", "boxnet,backnet")
	know := func() {
		t.Helper()
		h.add(t, "web", "boxnet")
		h.add(t, "peer", "boxnet")
		h.add(t, "back", "backnet")
		h.add(t, "both", "boxnet", "backnet")
	}
	know()
	const table = `
		                   lan  host lib  web  peer back both
		both lan           .    lan  lan  .    .    .    .
		both :8070         lib  lib  lib  .    .    .    .
		tcp  :8080         web  web  web  .    .    .    .
		udp  :8080         web  web  .    .    .    .    .
		tcp  self:8080     .    web  .    .    .    .    .
		both web.boxnet    -    -    -    web  web  -    web
		both peer.boxnet   -    -    -    peer peer -    peer
		both both.boxnet   -    -    -    both both -    both
		both both.backnet  -    -    -    -    -    both both
		both back.backnet  -    -    -    -    -    back back
	`
	h.world.CheckBoth(t, "rootless", table)
	// slirp4netns has no way to addresses of IPv6 outside.
	for _, name := range []string{"web", "back", "both"} {
		for _, network := range []string{"tcp", "udp"} {
			for to, want := range map[string]string{"192.0.2.1:80": "lan ", "192.0.2.2:8070": "lib "} {
				if out, err := h.podman.Try("exec", name, "/bin/probe", "-ask", network, to); err != nil || !strings.HasPrefix(out, want) {
					t.Errorf("%s asks %s %s: %s, %v", name, network, to, out, err)
				}
			}
		}
	}
	h.podman.Do(t, "restart", "-t", "10", "web", "both")
	know()
	h.world.CheckBoth(t, "rootless, after a restart", table)
	h.podman.Do(t, "network", "disconnect", "boxnet", "both")
	h.world.CheckBoth(t, "rootless, after network disconnect", `
		                   web  peer back both
		both both.backnet  -    -    both both
		both back.backnet  -    -    back back
		both web.boxnet    web  web  -    -
	`)
	if now := h.Run(t, "nft", "-s", "list", "ruleset"); now != rules {
		t.Errorf("the host's rules are\n%s\nwere\n%s", now, rules)
	}
	h.podman.Remove(t, "--all")
	machine.Until(t, "the end of slirp4netns", func() error {
		if out, err := h.Try("sh", "-c", "grep -l slirp4netns /proc/[0-9]*/comm"); err == nil {
			return errors.New(out)
		}
		return nil
	})
}
