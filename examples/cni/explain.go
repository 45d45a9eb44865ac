//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/examples/internal/explain"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// words are what the plugin's users can do.
var words = explain.Words{
	Box:     "container",
	Restore: "start a container: its ADD makes the table, the bridge and their settings again; ports of others come back when they are restarted",
	Publish: `have the engine publish it (-p of podman, hostPort of a pod); the network's configuration needs "capabilities": {"portMappings": true}`,
	Accept:  `set "acceptForward": true in the network's configuration, and restart a container`,
	Gone:    "have the engine remove what is left of the container, by a DEL or a GC",
	Again:   "restart the container",
}

// command does what a person asks the plugin for, who is no runtime, and returns the exit status.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	status, err := explain.StatusFailed, error(nil)
	switch args[0] {
	case "explain":
		status, err = explainAttachments(ctx, args[1:], stdout)
	case "-h", "-help", "--help", "help":
		fmt.Fprintf(stdout, "%s: a runtime starts it, see https://www.cni.dev\n\n", about)
		status, err = explainAttachments(ctx, []string{"-h"}, stdout)
	default:
		err = fmt.Errorf("%q is no command: explain is one; a runtime sets CNI_COMMAND instead", args[0])
	}
	if err != nil {
		fmt.Fprintf(stderr, "boxwire: %s\n", oneLine(err))
	}
	return status
}

// explainAttachments says why a port or a container is not reached.
func explainAttachments(ctx context.Context, args []string, out io.Writer) (int, error) {
	ask, err := explain.ParseAsk(args, "boxwire", "container", out)
	if errors.Is(err, flag.ErrHelp) {
		return explain.StatusFine, nil
	}
	if err != nil {
		return explain.StatusFailed, err
	}
	host, err := netns.Current()
	if err != nil {
		return explain.StatusFailed, err
	}
	defer host.Close()
	h := explain.Host{NS: host, Table: table, Words: words}
	if h.Boxes, err = attachments(ctx, host); err != nil {
		return explain.StatusFailed, err
	}
	defer func() {
		for _, b := range h.Boxes {
			if b.NS != nil {
				b.NS.Close()
			}
		}
	}()
	return h.Explain(ctx, ask, out)
}

// attachments reads the containers that the host has an end of a pair to, from the kernel alone, but for the addresses that
// the built-in allocator has noted.
func attachments(ctx context.Context, host *netns.NS) ([]explain.Box, error) {
	given, routed, err := addressesOf(ctx, host)
	if err != nil {
		return nil, err
	}
	ends, err := link.List(ctx, host, link.Filter{Kind: "veth"})
	if err != nil {
		return nil, err
	}
	var all []explain.Box
	for _, l := range ends {
		if !strings.HasPrefix(l.Name, linkPrefix) {
			continue
		}
		d, err := l.Details(ctx)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		owner, _, ok := parseAlias(d.Spec.Alias)
		if !ok || owner == "bridge" {
			continue
		}
		b := explain.Box{Name: owner, Owner: owner, Addrs: given[owner]}
		if ns, err := host.OpenNSID(ctx, d.LinkNSID); err == nil {
			b.NS = ns
			if len(b.Addrs) == 0 {
				if b.Addrs, err = addressesIn(ctx, ns, d.PeerIndex); err != nil {
					return nil, err
				}
			}
		}
		b.Routed = len(b.Addrs) > 0 && (routed == nil && isGateway(ctx, l) || slices.ContainsFunc(routed, func(p netip.Prefix) bool { return p.Contains(b.Addrs[0]) }))
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b explain.Box) int { return strings.Compare(a.Owner, b.Owner) })
	return all, nil
}

// addressesOf are the addresses that attachments were given, by owner, as leases, ports and policies have them, and the
// subnets of the firewall's networks, which are nil without a table.
func addressesOf(ctx context.Context, host *netns.NS) (given map[string][]netip.Addr, routed []netip.Prefix, err error) {
	given = map[string][]netip.Addr{}
	note := func(owner string, addrs ...netip.Addr) {
		for _, a := range addrs {
			if !slices.Contains(given[owner], a) {
				given[owner] = append(given[owner], a)
			}
		}
	}
	files, _ := filepath.Glob(filepath.Join(runDir, "*.json")) // without, the rest says some of it
	for _, f := range files {
		var s state
		if b, err := os.ReadFile(f); err == nil && json.Unmarshal(b, &s) == nil {
			for _, e := range s.Leases {
				if e.Host == host.ID().Ino {
					note(e.Owner, e.Addrs...)
				}
			}
		}
	}
	gw, err := nat.Open(ctx, host, nat.Options{Name: table, ReadOnly: true})
	if errors.Is(err, os.ErrNotExist) {
		return given, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer gw.Close()
	ports, err := gw.ListPorts(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range ports {
		note(p.Owner, p.Box.Addr())
	}
	policies, err := gw.ListPolicies(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range policies {
		note(p.Owner, p.Box...)
	}
	networks, err := gw.ListNetworks(ctx)
	routed = []netip.Prefix{}
	for _, n := range networks {
		routed = append(routed, n.Subnets...)
	}
	return given, routed, err
}

// addressesIn are the addresses of a container's link but link-local ones.
func addressesIn(ctx context.Context, ns *netns.NS, index int) (addrs []netip.Addr, err error) {
	all, err := link.ListAddrs(ctx, ns)
	for _, a := range all {
		if a.Link == index && !a.Prefix.Addr().IsLinkLocalUnicast() {
			addrs = append(addrs, a.Prefix.Addr())
		}
	}
	return addrs, err
}

// isGateway says whether the host has an address where the container's pair ends, so that there should be a network.
func isGateway(ctx context.Context, end link.Link) bool {
	at := end
	if end.Master != 0 {
		var err error
		if at, err = link.ByIndex(ctx, end.NS(), end.Master); err != nil {
			return false
		}
	}
	addrs, err := at.Addrs(ctx)
	return err == nil && slices.ContainsFunc(addrs, func(a link.Addr) bool { return !a.Prefix.Addr().IsLinkLocalUnicast() })
}
