package nat_test

import (
	"context"
	"fmt"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// A program that looks at every table of a host, and changes nothing.
func ExampleListTables() {
	ctx := context.Background()
	host, err := netns.New(ctx)
	check(err)
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{Name: "shop"}) // what another program does
	check(err)
	defer gw.Close()
	check(gw.Publish(ctx, web8080))

	tables, err := nat.ListTables(ctx, host)
	check(err)
	for _, t := range tables {
		if t.Older || t.Newer {
			fmt.Println(t.Name, "is of another version of the library")
			continue
		}
		shown, err := nat.Open(ctx, host, nat.Options{Name: t.Name, ReadOnly: true})
		check(err)
		defer shown.Close()
		ports, err := shown.ListPorts(ctx)
		check(err)
		for _, p := range ports {
			fmt.Println(t.Name, p.Owner, p)
		}
		fmt.Println(shown.UnpublishOwner(ctx, "web") != nil)
	}
	// Output:
	// shop web tcp 0.0.0.0:8080 -> 10.88.0.2:80
	// true
}
