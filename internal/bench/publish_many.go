package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/nat"
	"golang.org/x/sys/unix"
)

// publishMany publishes a number of ports at once.
func publishMany(ctx context.Context, b *bout, ports int) error {
	ns, gw, err := gate(ctx, 0, nat.Options{NoReserve: true})
	if err != nil {
		return err
	}
	defer ns.Close()
	defer gw.Close()
	sock, err := openFloor(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer sock.Close()
	all := make([]nat.Port, ports)
	pub, uses := floor.Elements{Set: "pub4", Comment: portOf(0).Owner}, floor.Elements{Set: "uses4"}
	for i := range all {
		all[i] = portOf(i)
		a := all[i].Host.Addr().As4()
		pub.Keys, pub.Data = append(pub.Keys, append(a[:], anyKey(all[i])...)), append(pub.Data, boxData(all[i]))
		uses.Keys, uses.Data = append(uses.Keys, anyKey(all[i])), append(uses.Data, binary.NativeEndian.AppendUint32(nil, 1))
	}
	whole := manyFloor(sock, floor.Batch(nftTable, true, pub, uses))
	alone, del := floor.Batch(nftTable, true, pub), floor.Batch(nftTable, false, pub)
	delAll := floor.Batch(nftTable, false, pub, uses)
	name := func(who string) string { return fmt.Sprintf("%s, %d at once", who, ports) }
	contend := func(who string, add func(context.Context) error, remove func(context.Context) error) *contender {
		return &contender{name: name(who), round: func(ctx context.Context, _ int) (time.Duration, error) {
			d, err := took(func() error { return add(ctx) })
			if err != nil {
				return d, err
			}
			listed, err := gw.ListPorts(ctx)
			if err == nil && len(listed) != ports {
				err = fmt.Errorf("%d ports are published, want %d", len(listed), ports)
			}
			if err == nil {
				err = remove(ctx)
			}
			return d, err
		}}
	}
	contenders := []*contender{
		contend(nameUnreserved,
			func(ctx context.Context) error { return gw.Publish(ctx, all...) },
			func(ctx context.Context) error { return gw.Unpublish(ctx, all...) }),
		contend(nameFloor,
			func(context.Context) error { return whole() },
			func(context.Context) error { return sock.Batch(delAll) }),
		contend(nameBatch,
			func(context.Context) error { return sock.Batch(alone) },
			func(context.Context) error { return sock.Batch(del) }),
	}
	feed, err := nftFeed(ns, nftElements(all))
	if err == nil {
		contenders = append(contenders, contend(nameNft,
			func(ctx context.Context) error { return feed(ctx, "add") },
			func(context.Context) error { return sock.Batch(del) }))
	} else if err := b.excuse(nameNft, err); err != nil {
		return err
	}
	if err := b.interleave(ctx, max(b.n/10, 3), contenders...); err != nil {
		return err
	}
	b.atMost(name(nameUnreserved), name(nameFloor), 1.3)
	b.brief("publish "+thousands(ports)+" ports at once", name(nameUnreserved), name(nameFloor), [2]string{"`nft -f`", name(nameNft)})
	b.note("What %s takes longer than %s is the library's own: it builds the messages that the floor has ready, and compares each port with what it has read.",
		name(nameUnreserved), name(nameFloor))
	b.note("Of many ports at once, the floor writes both elements that the library writes for each: the port with its owner, and the count that distinguishes a port on one address from one on all. %q writes the first.", nameBatch)
	return nil
}

// manyFloor returns what the library does for many ports that are on one address
// each, where few are published: it reads the maps whole.
func manyFloor(sock *floor.Socket, add []byte) func() error {
	ask, flows := floor.GetGeneration(nil), floor.CountFlows()
	var maps [][]byte
	for _, set := range []string{"any4", "pub4", "uses4", "rng4"} {
		maps = append(maps, floor.GetElements(nftTable, set))
	}
	return func() error {
		unlock, err := floor.Lock(floorLock)
		if err != nil {
			return err
		}
		defer unlock()
		gen, err := sock.Ask(ask)
		for _, m := range maps {
			if err == nil {
				_, err = sock.Dump(m, func([]byte) {})
			}
		}
		if err == nil {
			floor.SetGeneration(add, gen)
			err = sock.Batch(add)
		}
		if err == nil {
			_, err = sock.Ask(flows)
		}
		return err
	}
}
