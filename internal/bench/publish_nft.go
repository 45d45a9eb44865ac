package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

const nameNft = "nft -f"

// nftPublish is what a shell script does.
func nftPublish(ctx context.Context, ports int) (*contender, error) {
	if _, err := tool("nft"); err != nil {
		return nil, err
	}
	ns, gw, err := gate(ctx, ports, nat.Options{NoReserve: true})
	if err != nil {
		return nil, err
	}
	feed, err := nftFeed(ns, "any4 { tcp . 8080 : 10.88.0.2 . 80 }")
	if err != nil {
		return nil, err
	}
	return &contender{
		name:  with(nameNft, ports),
		close: func() error { gw.Close(); return ns.Close() },
		round: func(ctx context.Context, _ int) (time.Duration, error) {
			d, err := took(func() error { return feed(ctx, "add") })
			if err == nil {
				err = published(ns)
			}
			if err == nil {
				err = feed(ctx, "delete")
			}
			return d, err
		},
	}, nil
}

// nftFeed returns a function that has nft add or delete elements of a map.
func nftFeed(ns *netns.NS, elements string) (feed func(ctx context.Context, verb string) error, err error) {
	path, err := tool("nft")
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, verb string) error {
		cmd := ns.Command(ctx, path, "-f", "-")
		cmd.Stdin = strings.NewReader(verb + " element inet " + nftTable + " " + elements + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	}, nil
}

// nftElements writes ports as elements of the map of those on one address.
func nftElements(ports []nat.Port) string {
	var b strings.Builder
	b.WriteString("pub4 { ")
	for i, p := range ports {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%v . tcp . %d : %v . %d", p.Host.Addr(), p.Host.Port(), p.Box.Addr(), p.Box.Port())
	}
	b.WriteString(" }")
	return b.String()
}
