package link_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// hostLink is the link of that name in the present namespace.
func hostLink(ctx context.Context, name string) link.Link {
	host, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	l, err := link.Get(ctx, host, name)
	if err != nil {
		log.Fatal(err)
	}
	return l
}

// A box that downloads at 100 Mbit/s and uploads at 20: its veth's end in the
// host sees the downloads go out.
func ExampleLink_SetRate() {
	ctx := context.Background()
	web0 := hostLink(ctx, "web0")
	defer web0.NS().Close()
	download, upload := link.Limit{Rate: 100 * link.Mbit}, link.Limit{Rate: 20 * link.Mbit}
	if err := web0.SetRate(ctx, download, upload); err != nil {
		log.Fatal(err)
	}
	// Before the link is deleted, as the upload has a helper link of its own:
	if err := web0.SetRate(ctx, link.Limit{}, link.Limit{}); err != nil {
		log.Fatal(err)
	}
}

// A map of the links of a namespace that is always right.
func ExampleWatch() {
	ctx := context.Background()
	host, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	links := map[int]link.Link{}
	for e, err := range link.Watch(ctx, host, link.Links) {
		switch {
		case err != nil:
			log.Fatal(err)
		case e.Op == link.EventResync:
			clear(links)
		case e.Op == link.EventSynced:
			fmt.Println(len(links), "links")
		case e.Op == link.EventSet:
			links[e.Link.Index] = *e.Link
		case e.Op == link.EventGone:
			delete(links, e.Link.Index)
		}
	}
}

// An address that is checked for duplicates, waited for, and announced.
func ExampleLink_WaitAddr() {
	ctx := context.Background()
	eth := hostLink(ctx, "eth0")
	defer eth.NS().Close()
	a := link.Addr{Prefix: netip.MustParsePrefix("fd88::2/64")}
	if err := eth.AddAddrs(ctx, a); err != nil {
		log.Fatal(err)
	}
	if err := eth.WaitAddr(ctx, a.Prefix.Addr()); err != nil {
		log.Fatal(err) // os.ErrExist: another host has it
	}
	if err := eth.Announce(ctx, a.Prefix.Addr()); err != nil {
		log.Fatal(err)
	}
}

// A port that takes frames without a tag into VLAN 10, and lets VLANs 100 to 199
// through with theirs.
func ExampleLink_SyncVLANs() {
	ctx := context.Background()
	port := hostLink(ctx, "web0")
	defer port.NS().Close()
	err := port.SyncVLANs(ctx,
		link.PortVLAN{ID: 10, PVID: true, Untagged: true},
		link.PortVLAN{ID: 100, End: 199},
	)
	if err != nil {
		log.Fatal(err)
	}
}

// A VXLAN without multicast: where the other hosts are, and behind which of them
// a box is.
func ExampleLink_AppendFDB() {
	ctx := context.Background()
	vx := hostLink(ctx, "vx0")
	defer vx.NS().Close()
	hosts := []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")}
	for _, h := range hosts {
		// The all-zero address stands for those that are not known.
		err := vx.AppendFDB(ctx, link.FDBEntry{Self: true, MAC: make([]byte, 6), Dst: h})
		if err != nil {
			log.Fatal(err)
		}
	}
	box := link.FDBEntry{Self: true, MAC: []byte{2, 0, 0, 0, 0, 7}, Dst: hosts[1]}
	if err := vx.ReplaceFDB(ctx, box); err != nil {
		log.Fatal(err)
	}
}

func ExampleLink_AddNeighbour() {
	ctx := context.Background()
	vx := hostLink(ctx, "vx0")
	defer vx.NS().Close()
	err := vx.AddNeighbour(ctx, link.Neighbour{Addr: netip.MustParseAddr("10.88.0.7"), MAC: []byte{2, 0, 0, 0, 0, 7}})
	if err != nil {
		log.Fatal(err)
	}
}

// Checksums computed in software, for a program inside that reads raw packets.
func ExampleLink_SetFeatures() {
	ctx := context.Background()
	eth := hostLink(ctx, "eth0")
	defer eth.NS().Close()
	err := eth.SetFeatures(ctx, map[string]bool{"tx-checksum-ip-generic": false})
	if err != nil {
		log.Fatal(err)
	}
}
