package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

// The peers of the rows of packets.
const (
	nameDockerRules = "docker's rules"
	nameNetavark    = "netavark"
	nameReference   = "CNI's bridge + portmap"
)

// nameFlowtable is the library's network whose flows the kernel's flowtable forwards.
const nameFlowtable = "boxwire, flowtable"

// wirings are the contenders of a way. A wiring that does no more than another does for the way is left out.
func wirings(way ppsWay) []wiring {
	all := []wiring{{nameBoxwire, false, wireBoxwire}}
	if way != toSibling { // which passes the bridge
		all = append(all, wiring{nameFlowtable, false, wireFlowtable})
	}
	if way != toPublished { // which needs a rule
		all = append(all, wiring{nameRouted, false, wireRouted})
	}
	if way != toSibling {
		all = append(all, wiring{nameOneRule, false, wireBare})
	}
	return append(all, wiring{nameDockerRules, true, wireDocker}, wiring{nameNetavark, true, wireNetavark}, wiring{nameReference, true, wireReference})
}

func wireBoxwire(ctx context.Context, c *course) error {
	if err := c.bridge(ctx); err != nil {
		return err
	}
	udp := extra
	udp.Proto = nat.UDP
	return c.publish(ctx, extra, udp)
}

func wireFlowtable(ctx context.Context, c *course) error {
	if err := wireBoxwire(ctx, c); err != nil {
		return err
	}
	gw, err := nat.Open(ctx, c.host, nat.Options{NoReserve: true})
	if err != nil {
		return err
	}
	c.ends = append(c.ends, gw.Close)
	net := boxNetwork()
	net.Flowtable = true
	if err := gw.SetNetwork(ctx, net); errors.Is(err, errors.ErrUnsupported) {
		return kernelLacks("flowtables that can be used (CONFIG_NF_FLOW_TABLE_INET and CONFIG_NFT_FLOW_OFFLOAD; Linux 6.4 to 6.18, or 7.2)")
	} else if err != nil {
		return err
	}
	return nil
}

// publish opens a table with the boxes' network, and publishes ports.
func (c *course) publish(ctx context.Context, ports ...nat.Port) error {
	gw, err := c.openTable(ctx)
	if err != nil {
		return err
	}
	return gw.Publish(ctx, ports...)
}

func wireRouted(ctx context.Context, c *course) error {
	if err := c.bridge(ctx); err != nil {
		return err
	}
	return c.forward(ctx)
}

// bareRules are the least that publishes a port and hides the boxes.
const bareRules = `table ip bare {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		meta l4proto { tcp, udp } th dport 8080 dnat to 10.88.0.2:80
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		oifname "uplink0" masquerade
	}
}
`

func wireBare(ctx context.Context, c *course) error {
	if err := wireRouted(ctx, c); err != nil {
		return err
	}
	return feed(ctx, c.host, bareRules, "nft", "-f", "-")
}

// dockerRules are what dockerd 26 writes for a bridge network with a box that has two published ports:
// see its moby/libnetwork/drivers/bridge/setup_ip_tables_linux.go and iptables/iptables.go.
const dockerRules = `*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.88.0.0/16 ! -o br0 -j MASQUERADE
-A POSTROUTING -s 10.88.0.2/32 -d 10.88.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A POSTROUTING -s 10.88.0.2/32 -d 10.88.0.2/32 -p udp -m udp --dport 80 -j MASQUERADE
-A DOCKER -i br0 -j RETURN
-A DOCKER ! -i br0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.0.2:80
-A DOCKER ! -i br0 -p udp -m udp --dport 8080 -j DNAT --to-destination 10.88.0.2:80
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o br0 -j DOCKER
-A FORWARD -i br0 ! -o br0 -j ACCEPT
-A FORWARD -i br0 -o br0 -j ACCEPT
-A DOCKER -d 10.88.0.2/32 ! -i br0 -o br0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER -d 10.88.0.2/32 ! -i br0 -o br0 -p udp -m udp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i br0 ! -o br0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o br0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
`

func wireDocker(ctx context.Context, c *course) error {
	if err := wireRouted(ctx, c); err != nil {
		return err
	}
	return feed(ctx, c.host, dockerRules, "iptables-restore", "-w")
}

// feed runs a program in a namespace, with an input.
func feed(ctx context.Context, ns *netns.NS, input, name string, args ...string) error {
	path, err := tool(name)
	if err != nil {
		return err
	}
	cmd := ns.Command(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// pathOf is a path to a namespace, for as long as it is open.
func pathOf(ns *netns.NS) (path string, err error) {
	err = ns.WithFd(func(fd int) error {
		path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
		return nil
	})
	return path, err
}

func wireReference(ctx context.Context, c *course) error {
	dir, err := pluginFolder()
	if err != nil {
		return err
	}
	conf := strings.NewReplacer("BACKEND", "iptables", "RANGES", ranges4).Replace(chainConf)
	return c.addNetwork(ctx, dir, conf, []*netns.NS{c.box, c.sibling}, "tcp", "udp")
}

// addNetwork has the plugins in dir attach boxes, and publish the extra port of the first one.
func (c *course) addNetwork(ctx context.Context, dir, conf string, boxes []*netns.NS, protocols ...string) error {
	state, err := os.MkdirTemp("/run", "plugins-") // ends with the program
	if err != nil {
		return err
	}
	list, err := libcni.ConfListFromBytes([]byte(strings.ReplaceAll(conf, "STATE", filepath.Join(state, "leases"))))
	if err != nil {
		return err
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{dir}, filepath.Join(state, "cache"), onHost{c.host, &version.PluginDecoder{}})
	for i, ns := range boxes {
		path, err := pathOf(ns)
		if err != nil {
			return err
		}
		run := &libcni.RuntimeConf{ContainerID: fmt.Sprintf("box%d", i), IfName: "eth0", NetNS: path}
		if i == 0 {
			var ports []map[string]any
			for _, proto := range protocols {
				ports = append(ports, map[string]any{"hostPort": extra.Host.Port(), "containerPort": extra.Box.Port(), "protocol": proto})
			}
			run.CapabilityArgs = map[string]any{"portMappings": ports}
		}
		if _, err := cni.AddNetworkList(ctx, list, run); err != nil {
			return err
		}
	}
	return nil
}

// podmanBinaries is where podman keeps the programs that it starts.
const podmanBinaries = "/usr/lib/podman"

// netavarkPath finds netavark, where Debian's package has it or in PATH.
func netavarkPath() (string, error) {
	if path, err := exec.LookPath(filepath.Join(podmanBinaries, "netavark")); err == nil {
		return path, nil
	}
	return tool("netavark")
}
