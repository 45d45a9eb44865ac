// Command hello is the program of the README: one box on a bridge, with a way out and a published port.
package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

func main() {
	ctx := context.Background()
	gateway, address := netip.MustParsePrefix("10.88.0.1/24"), netip.MustParsePrefix("10.88.0.2/24")
	host := must(netns.Current()) // the namespace of this program, as a value
	defer host.Close()
	box := must(netns.New(ctx)) // unnamed: it ends with its handle. netns.Create makes one that `ip netns` lists
	defer box.Close()
	br := must(link.Ensure(ctx, host, link.Spec{Name: "boxwire0", Up: true, Kind: link.Bridge{}, Addrs: []netip.Prefix{gateway}}))
	defer br.Delete(ctx)
	inside := link.Spec{NS: box, Name: "eth0", Up: true, Addrs: []netip.Prefix{address}}
	eth := must(link.Create(ctx, host, link.Spec{Name: "box0", Up: true, Master: br.Ref(), Kind: link.Veth{Peer: inside}}))
	defer eth.Delete(ctx) // Create has made both ends, in both namespaces, or nothing
	check(route.Add(ctx, box, route.Default(gateway.Addr())))
	check(eth.WaitReachable(ctx)) // from here on not even the first packet is lost

	gw := must(nat.Open(ctx, host, nat.Options{Name: "hello"})) // an nftables table of that name
	defer gw.Delete(ctx)
	network := nat.Network{Interface: br.Name, Subnets: []netip.Prefix{gateway.Masked()}, Masquerade: true}
	port := nat.Port{Owner: "box", Proto: nat.TCP, Host: netip.MustParseAddrPort("0.0.0.0:8080"), Box: netip.MustParseAddrPort("10.88.0.2:80")}
	check(gw.Sync(ctx, nat.State{Networks: []nat.Network{network}, Ports: []nat.Port{port}})) // exactly these

	ln := must(box.Listen(ctx, "tcp", ":80")) // a socket of the box, used from any goroutine
	defer ln.Close()
	c := must(net.Dial("tcp", "127.0.0.1:8080"))
	defer c.Close()
	visitor := must(ln.Accept())
	fmt.Fprintf(visitor, "hello %v, this is the box\n", visitor.RemoteAddr())
	visitor.Close()
	os.Stdout.ReadFrom(c)
}

func must[T any](v T, err error) T { check(err); return v }
func check(err error) {
	if err != nil {
		panic(err) // the deferred calls still undo what the program has made
	}
}
