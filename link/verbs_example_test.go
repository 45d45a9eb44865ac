package link_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// A box downloads at 100 Mbit/s and uploads at 20: the host's end of its pair sends what the box downloads.
func ExampleLink_SetRate() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	web0, err := link.Get(ctx, host, "web0")
	check(err)
	check(web0.SetRate(ctx, link.Limit{Rate: 100 * link.Mbit}, link.Limit{Rate: 20 * link.Mbit}))
	download, upload, err := web0.Rates(ctx)
	check(err)
	fmt.Println(download.Rate, upload.Rate)

	check(web0.SetRate(ctx, link.Limit{}, link.Limit{})) // no limits
	// Output: 100Mbit 20Mbit
}

// One limit for each box of a group: the links of the group, whatever their names.
func ExampleLink_SetRate_group() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	const guests = 7
	web0, err := link.Get(ctx, host, "web0")
	check(err)
	check(web0.SetGroup(ctx, guests)) // or Spec.Group

	boxes, err := link.List(ctx, host, link.Filter{Group: guests})
	check(err)
	for _, box := range boxes {
		limit := link.Limit{Rate: 10 * link.Mbit}
		check(box.SetRate(ctx, limit, limit))
		fmt.Println(box.Name, "has", limit.Rate)
	}
	// Output: web0 has 10Mbit
}

// A daemon's neighbours at every start: the second time, nothing is sent.
func ExampleLink_SyncNeighbours() {
	const owner = 201 // this program's own; see /etc/iproute2/rt_protos
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	br, err := link.Get(ctx, host, "boxwire0")
	check(err)
	boxes := []link.Neighbour{
		{Addr: netip.MustParseAddr("10.88.0.2"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}},
		{Addr: netip.MustParseAddr("10.88.0.3"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 3}},
	}
	for range 2 {
		did, err := br.SyncNeighbours(ctx, owner, boxes...)
		check(err)
		fmt.Printf("%+v\n", did)
	}
	// Output:
	// {Added:2 Replaced:0 Deleted:0}
	// {Added:0 Replaced:0 Deleted:0}
}

// From WaitReachable on no packet between a new box and its bridge is lost. The timeout bounds the wait.
func ExampleLink_WaitReachable() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	web0, err := link.Get(ctx, host, "web0")
	check(err)
	check(web0.WaitReachable(ctx))

	// A datagram reaches the bridge's address without a second try.
	sink, err := host.ListenPacket(ctx, "udp", "10.88.0.1:5000")
	check(err)
	defer sink.Close()
	c, err := web.Dial(ctx, "udp", "10.88.0.1:5000")
	check(err)
	defer c.Close()
	_, err = c.Write([]byte("hello"))
	check(err)
	packet := make([]byte, 16)
	n, _, err := sink.ReadFrom(packet)
	check(err)
	fmt.Printf("%s\n", packet[:n])
	// Output: hello
}

// A map of the links of a namespace, kept by every change.
func ExampleWatch() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	links := map[int]link.Link{}
	for e, err := range link.Watch(ctx, host, link.TopicLinks) {
		check(err)
		switch e.Kind {
		case link.EventPresent, link.EventChanged:
			links[e.Link.Index] = *e.Link
		case link.EventDeleted:
			delete(links, e.Link.Index)
		case link.EventResync: // events were lost: the state comes again
			clear(links)
		case link.EventSynced: // the state is complete
			fmt.Println(len(links), "links")
			return // a daemon goes on
		}
	}
	// Output: 3 links
}

// The links of this namespace and of all that have an id in it, such as the ends of veth pairs in boxes.
func ExampleWatchAll() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	web0, err := link.Get(ctx, host, "web0")
	check(err)
	id, err := host.EnsureNSID(ctx, web)
	check(err)

	synced := false
	for e, err := range link.WatchAll(ctx, host, link.TopicLinks) {
		check(err)
		switch {
		case e.Kind == link.EventSynced && !synced:
			synced = true
			check(web0.Delete(ctx)) // and with it the box's end
		case e.Kind == link.EventDeleted && e.NSID == id:
			fmt.Println("the box has lost", e.Link.Name)
			return
		}
	}
	// Output: the box has lost eth0
}

// A new address is waited for and announced: neighbours that had it cached elsewhere now send to this link.
func ExampleLink_WaitAddr() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	eth0, err := link.Get(ctx, web, "eth0")
	check(err)
	a := netip.MustParsePrefix("10.88.0.3/16")
	check(eth0.AddPrefixes(ctx, a))
	check(eth0.WaitAddr(ctx, a.Addr())) // os.ErrExist of an IPv6 address: another host has it
	check(eth0.Announce(ctx, a.Addr()))
	fmt.Println(a.Addr(), "is here")
	// Output: 10.88.0.3 is here
}

// A port that puts untagged frames into VLAN 10, and passes VLANs 100 to 199 with their tags.
func ExampleLink_SyncVLANs() {
	ctx := context.Background()
	host, err := netns.Current()
	check(err)
	defer host.Close()
	web0, err := link.Get(ctx, host, "web0")
	check(err)
	check(web0.SyncVLANs(ctx,
		link.PortVLAN{ID: 10, PVID: true, Untagged: true},
		link.PortVLAN{ID: 100, End: 199},
	))
}

// A VXLAN without multicast: the entries name the other hosts, and the host that has a box.
func ExampleLink_AppendFDBEntries() {
	ctx := context.Background()
	host, err := netns.Current()
	check(err)
	defer host.Close()
	vx, err := link.Get(ctx, host, "vx0")
	check(err)
	hosts := []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")}
	for _, h := range hosts {
		// The all-zero address stands for those that are not known.
		check(vx.AppendFDBEntries(ctx, link.FDBEntry{Self: true, MAC: make([]byte, 6), Dst: h}))
	}
	check(vx.ReplaceFDBEntries(ctx, link.FDBEntry{Self: true, MAC: []byte{2, 0, 0, 0, 0, 7}, Dst: hosts[1]}))
}

// A box that needs no ARP request for the address of another.
func ExampleLink_AddNeighbours() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	eth0, err := link.Get(ctx, web, "eth0")
	check(err)
	check(eth0.AddNeighbours(ctx, link.Neighbour{Addr: netip.MustParseAddr("10.88.0.7"), MAC: []byte{2, 0, 0, 0, 0, 7}}))

	known, err := link.ListNeighbours(ctx, web, link.NeighbourFilter{Family: netns.IPv4, Link: eth0.Ref()})
	check(err)
	for _, n := range known {
		fmt.Println(n.Addr, n.MAC)
	}
	// Output: 10.88.0.7 02:00:00:00:00:07
}

// Software computes the checksums, for a program inside that reads raw packets.
func ExampleLink_SetFeatures() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	eth0, err := link.Get(ctx, web, "eth0")
	check(err)
	check(eth0.SetFeatures(ctx, map[string]bool{"tx-checksum-ip-generic": false}))
	features, err := eth0.Features(ctx)
	check(err)
	for _, f := range features {
		if f.Name == "tx-checksum-ip-generic" {
			fmt.Println(f.Name, "is on:", f.Active)
		}
	}
	// Output: tx-checksum-ip-generic is on: false
}
