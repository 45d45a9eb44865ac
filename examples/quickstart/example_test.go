package main_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/netip"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// The program of the README: one box on a bridge, with a way out and a published port. It is compiled and not run, because
// it wires the namespace it is started in.
func Example() {
	ctx := context.Background()
	check := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}

	host, err := netns.Current() // the namespace we are in, as a value
	check(err)
	defer host.Close()
	web, err := netns.Create(ctx, "web") // where `ip netns` looks; netns.New for an unnamed one
	check(err)
	defer web.Close()

	br, err := link.Create(ctx, host, link.Spec{
		Name: "boxwire0", Up: true, Kind: link.Bridge{},
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")},
	})
	check(err)
	_, err = link.Create(ctx, host, link.Spec{
		Name: "web0", Up: true, Master: br.Index,
		Kind: link.Veth{Peer: link.Spec{
			NS: web, Name: "eth0", Up: true,
			Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.2/16")},
		}},
	})
	check(err)
	check(route.Add(ctx, web, route.Default(netip.MustParseAddr("10.88.0.1"))))

	gw, err := nat.Open(ctx, host, nat.Options{Name: "boxwire"})
	check(err)
	check(gw.AddNetwork(ctx, nat.Network{
		Interface:  "boxwire0",
		Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
		Masquerade: true,
	}))
	check(gw.Publish(ctx, nat.Port{
		Proto: nat.TCP, Owner: "web",
		Host: netip.MustParseAddrPort("0.0.0.0:8080"),
		Box:  netip.MustParseAddrPort("10.88.0.2:80"),
	}))

	ln, err := web.Listen(ctx, "tcp", ":80") // a listener inside web, used from any goroutine
	check(err)
	check(http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s, this is web\n", r.RemoteAddr)
	})))
}
