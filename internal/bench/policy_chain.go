package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// A chainPeer writes policies as rules: a chain for each box, and in it a rule for each rule.
type chainPeer struct {
	name string
	feed []string // the program that reads changes, with its arguments
	list []string // the program that lists a chain, up to its name
	word string   // of which each rule that allows has one

	write func(c chains) string // what the program reads
}

// chains are boxes with policies.
type chains struct {
	verb     string // add or delete
	whole    bool   // with what is there beside the boxes
	policies []nat.Policy
}

// chainOf is the name of a box's chain.
func chainOf(p nat.Policy) string { return "box-" + strings.ReplaceAll(p.Box[0].String(), ".", "-") }

// nftChains finds the chain of a box with a map.
var nftChains = chainPeer{
	name: "nft, a rule a rule",
	feed: []string{"nft", "-f", "-"}, list: []string{"nft", "list", "chain", "inet", "peer"}, word: "accept",
	write: func(c chains) string {
		var b strings.Builder
		if c.whole && c.verb == "delete" {
			return "delete table inet peer\n"
		}
		if c.whole {
			b.WriteString("add table inet peer\nadd map inet peer boxes { type ipv4_addr : verdict; }\n")
			b.WriteString("add chain inet peer forward { type filter hook forward priority filter; policy accept; }\n")
			b.WriteString("add rule inet peer forward ct state established,related accept\n")
			b.WriteString("add rule inet peer forward ip saddr vmap @boxes\n")
		}
		for _, p := range c.policies {
			name := chainOf(p)
			if c.verb == "delete" {
				fmt.Fprintf(&b, "delete element inet peer boxes { %v }\ndelete chain inet peer %s\n", p.Box[0], name)
				continue
			}
			fmt.Fprintf(&b, "add chain inet peer %s\n", name)
			for _, r := range p.Egress.Allow {
				fmt.Fprintf(&b, "add rule inet peer %s ip daddr %v %v dport %d accept\n", name, r.Peer, r.Proto, r.Port)
			}
			fmt.Fprintf(&b, "add rule inet peer %s drop\nadd element inet peer boxes { %v : goto %s }\n", name, p.Box[0], name)
		}
		return b.String()
	},
}

// iptablesChains finds it with a rule for each box, for it has no maps.
var iptablesChains = chainPeer{
	name: "iptables, a rule a rule",
	feed: []string{"iptables-restore", "--noflush"}, list: []string{"iptables", "-S"}, word: "ACCEPT",
	write: func(c chains) string {
		var b strings.Builder
		b.WriteString("*filter\n")
		if c.whole {
			b.WriteString(":FORWARD ACCEPT [0:0]\n-F FORWARD\n")
		}
		if c.verb == "delete" {
			for _, p := range c.policies {
				name := chainOf(p)
				if !c.whole {
					fmt.Fprintf(&b, "-D FORWARD -s %v -g %s\n", p.Box[0], name)
				}
				fmt.Fprintf(&b, "-F %s\n-X %s\n", name, name)
			}
			return b.String() + "COMMIT\n"
		}
		for _, p := range c.policies {
			fmt.Fprintf(&b, ":%s - [0:0]\n", chainOf(p))
		}
		if c.whole {
			b.WriteString("-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n")
		}
		for _, p := range c.policies {
			name := chainOf(p)
			fmt.Fprintf(&b, "-A FORWARD -s %v -g %s\n", p.Box[0], name)
			for _, r := range p.Egress.Allow {
				fmt.Fprintf(&b, "-A %s -d %v -p %v --dport %d -j ACCEPT\n", name, r.Peer, r.Proto, r.Port)
			}
			fmt.Fprintf(&b, "-A %s -j DROP\n", name)
		}
		return b.String() + "COMMIT\n"
	},
}

// chainPeers are those that can be run here.
func (b *bout) chainPeers() (all []*chainPeer, err error) {
	for _, peer := range []*chainPeer{&nftChains, &iptablesChains} {
		_, missing := tool(peer.list[0])
		if _, err := tool(peer.feed[0]); err != nil {
			missing = err
		}
		if missing == nil {
			all = append(all, peer)
		} else if err := b.excuse(peer.name, missing); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// run feeds a change to the program.
func (p *chainPeer) run(ctx context.Context, ns *netns.NS, text string) error {
	path, err := tool(p.feed[0])
	if err != nil {
		return err
	}
	cmd := ns.Command(ctx, path, p.feed[1:]...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", p.feed[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// written looks at a box's chain.
func (p *chainPeer) written(ctx context.Context, ns *netns.NS, policy nat.Policy) error {
	path, err := tool(p.list[0])
	if err != nil {
		return err
	}
	name := chainOf(policy)
	out, err := ns.Command(ctx, path, append(p.list[1:len(p.list):len(p.list)], name)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", p.list[0], err, bytes.TrimSpace(out))
	}
	if n, want := bytes.Count(out, []byte(p.word+"\n")), len(policy.Egress.Allow); n != want {
		return fmt.Errorf("the chain %s has %d rules that allow, want %d", name, n, want)
	}
	return nil
}
