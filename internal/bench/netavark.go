package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/boxwire/boxwire/netns"
)

// A netavark runs netavark as podman does: it is given the path of a namespace and, by its standard
// input, a network and what one container has of it.
type netavark struct {
	path   string
	host   *netns.NS
	config string // directory of its state
}

func newNetavark(host *netns.NS) (n *netavark, err error) {
	n = &netavark{host: host}
	if n.path, err = netavarkPath(); err != nil {
		return nil, err
	}
	n.config, err = os.MkdirTemp("/run", "netavark-") // ends with the program
	return n, err
}

// netavarkPort is a published port in its protocol.
type netavarkPort struct {
	ContainerPort uint16 `json:"container_port"`
	HostIP        string `json:"host_ip"`
	HostPort      uint16 `json:"host_port"`
	Protocol      string `json:"protocol"`
	Range         int    `json:"range"`
}

// ports publishes the extra port, for each protocol.
func netavarkPorts(protocols ...string) (all []netavarkPort) {
	for _, proto := range protocols {
		all = append(all, netavarkPort{extra.Box.Port(), "", extra.Host.Port(), proto, 1})
	}
	return all
}

// run runs a command of netavark, "setup" or "teardown", for a container.
func (n *netavark) run(ctx context.Context, command, id string, ns *netns.NS, addr netip.Addr, ports []netavarkPort) error {
	path, err := pathOf(ns)
	if err != nil {
		return err
	}
	options, err := json.Marshal(map[string]any{
		"container_id": strings.Repeat("0", 64-len(id)) + id, "container_name": id, "port_mappings": ports,
		"networks": map[string]any{"podman": map[string]any{"interface_name": "eth0", "static_ips": []netip.Addr{addr}}},
		"network_info": map[string]any{"podman": map[string]any{
			"name": "podman", "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
			"driver": "bridge", "network_interface": bridgeName, "created": "2026-01-01T00:00:00Z",
			"subnets":      []map[string]any{{"subnet": "10.88.0.0/16", "gateway": gateway4}},
			"ipv6_enabled": false, "internal": false, "dns_enabled": false,
			"ipam_options": map[string]string{"driver": "host-local"},
		}},
	})
	if err != nil {
		return err
	}
	cmd := n.host.Command(ctx, n.path, "--config", n.config, command, path)
	cmd.Stdin = bytes.NewReader(options)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("netavark %s: %w: %s", command, err, bytes.TrimSpace(out))
	}
	return nil
}

func wireNetavark(ctx context.Context, c *course) error {
	n, err := newNetavark(c.host)
	if err != nil {
		return err
	}
	if err := n.run(ctx, "setup", "1", c.box, boxAddr(0).Addr(), netavarkPorts("tcp", "udp")); err != nil {
		return err
	}
	return n.run(ctx, "setup", "2", c.sibling, boxAddr(1).Addr(), nil)
}
