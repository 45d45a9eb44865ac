package link_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// check ends an example that has failed.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// wire makes a namespace for a host, with the bridge boxwire0, and one for the box web, whose eth0 is the other end of the
// host's web0.
func wire(ctx context.Context) (host, web *netns.NS) {
	host, err := netns.New(ctx)
	check(err)
	web, err = netns.New(ctx)
	check(err)
	br, err := link.Create(ctx, host, link.Spec{
		Name: "boxwire0", Up: true, Kind: link.Bridge{},
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")},
	})
	check(err)
	_, err = link.Create(ctx, host, link.Spec{
		Name: "web0", Up: true, Master: br.Ref(),
		Kind: link.Veth{Peer: link.Spec{
			NS: web, Name: "eth0", Up: true,
			Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.2/16")},
		}},
	})
	check(err)
	return host, web
}

// A bridge in one namespace and the eth0 of a box that is plugged into it: both ends of the pair, up and with an address, in
// one call.
func ExampleCreate() {
	ctx := context.Background()
	host, err := netns.New(ctx) // netns.Current: the one we are in
	check(err)
	defer host.Close()
	web, err := netns.New(ctx)
	check(err)
	defer web.Close()

	br, err := link.Create(ctx, host, link.Spec{
		Name: "boxwire0", Up: true, Kind: link.Bridge{},
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")},
	})
	check(err)
	web0, err := link.Create(ctx, host, link.Spec{
		Name: "web0", Up: true, Master: br.Ref(),
		Kind: link.Veth{Peer: link.Spec{
			NS: web, Name: "eth0", Up: true,
			Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.2/16")},
		}},
	})
	check(err)

	eth0, err := link.Get(ctx, web, "eth0")
	check(err)
	fmt.Println(web0.Name, "is a", web0.Kind, "and up:", web0.Up)
	fmt.Println(eth0.Name, "has the MTU", eth0.MTU)
	// Output:
	// web0 is a veth and up: true
	// eth0 has the MTU 1500
}

// A master by its name, as in `ip link add web1 master boxwire0 ...`. The Link of another namespace is refused, because its
// index means another link here.
func ExampleRef() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	web1, err := link.Create(ctx, host, link.Spec{
		Name: "web1", Master: link.Ref{Name: "boxwire0"}, Kind: link.Veth{Peer: link.Spec{Name: "far1"}},
	})
	check(err)
	br, err := link.Get(ctx, host, "boxwire0")
	check(err)
	fmt.Println("a port of boxwire0:", web1.Master == br.Index)

	_, err = link.Create(ctx, web, link.Spec{Name: "eth1", Master: br.Ref(), Kind: link.Veth{Peer: link.Spec{Name: "far2"}}})
	fmt.Println("refused:", errors.Is(err, os.ErrInvalid))
	// Output:
	// a port of boxwire0: true
	// refused: true
}

func ExampleGet() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	br, err := link.Get(ctx, host, "boxwire0")
	check(err)
	fmt.Println(br.Name, br.Kind, br.MTU, br.Up)

	_, err = link.Get(ctx, host, "web1")
	fmt.Println(netns.IgnoreNotExist(err) == nil) // as errors.Is(err, os.ErrNotExist)
	// Output:
	// boxwire0 bridge 1500 true
	// true
}

// The ports of a bridge. The kernel sends no other links.
func ExampleList() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	br, err := link.Get(ctx, host, "boxwire0")
	check(err)
	ports, err := link.List(ctx, host, link.Filter{Master: br.Ref()})
	check(err)
	for _, port := range ports {
		fmt.Println(port.Name, "is a port of", br.Name)
	}
	// Output: web0 is a port of boxwire0
}

// The IPv4 addresses of a namespace, and of one link alone.
func ExampleListAddrs() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	addrs, err := link.ListAddrs(ctx, host)
	check(err)
	eth0, err := link.Get(ctx, web, "eth0")
	check(err)
	of, err := eth0.Addrs(ctx)
	check(err)
	for _, a := range append(addrs, of...) {
		if ip := a.Prefix.Addr(); ip.Is4() && !ip.IsLoopback() {
			fmt.Println(a.Prefix)
		}
	}
	// Output:
	// 10.88.0.1/16
	// 10.88.0.2/16
}

// A link has no carrier until the other end is up.
func ExampleLink_WaitUp() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	eth0, err := link.Get(ctx, web, "eth0")
	check(err)
	check(eth0.SetDown(ctx))
	go func() {
		time.Sleep(10 * time.Millisecond)
		check(eth0.SetUp(ctx))
	}()

	eth0, err = eth0.WaitUp(ctx) // sleeps until the kernel says so
	check(err)
	_, err = eth0.WaitCarrier(ctx)
	check(err)
	fmt.Println(eth0.Name, "is up:", eth0.Up)
	// Output: eth0 is up: true
}

// A port moves to another bridge with its settings, and then leaves that.
func ExampleLink_SetMaster() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	other, err := link.Create(ctx, host, link.Spec{Name: "boxwire1", Up: true, Kind: link.Bridge{}})
	check(err)
	web0, err := link.Get(ctx, host, "web0")
	check(err)
	check(web0.SetMaster(ctx, other.Ref()))
	web0, err = link.Get(ctx, host, "web0")
	check(err)
	fmt.Println("a port of boxwire1:", web0.Master == other.Index)

	check(web0.SetMaster(ctx, link.Ref{}))
	web0, err = link.Get(ctx, host, "web0")
	check(err)
	fmt.Println("a port of nothing:", web0.Master == 0)
	// Output:
	// a port of boxwire1: true
	// a port of nothing: true
}

// A box that other boxes on the bridge cannot reach, and that gets no multicast floods.
func ExampleLink_SetPort() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	web0, err := link.Get(ctx, host, "web0")
	check(err)
	check(web0.SetPort(ctx, link.PortOptions{
		Isolated:       new(true),
		MulticastFlood: new(false),
	}))
	port, err := web0.Port(ctx)
	check(err)
	fmt.Println("isolated:", *port.Isolated, "flooded:", *port.MulticastFlood)
	// Output: isolated: true flooded: false
}

// An address that lasts an hour and brings no route to its subnet.
func ExampleLink_AddAddrs() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	eth0, err := link.Get(ctx, web, "eth0")
	check(err)
	a := link.StaticAddr(netip.MustParsePrefix("10.88.0.3/16"))
	a.Flags |= link.AddrNoPrefixRoute
	a.Valid = time.Hour
	check(eth0.AddAddrs(ctx, a))

	addrs, err := eth0.Addrs(ctx)
	check(err)
	for _, got := range addrs {
		if got.Prefix == a.Prefix {
			fmt.Println(got.Prefix, got.Valid.Round(time.Minute))
		}
	}
	// Output: 10.88.0.3/16 1h0m0s
}
