package route_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// follower follows the routes of all namespaces that have a name in a directory.
type follower struct {
	dir  netns.Dir
	seen chan string
	all  sync.WaitGroup
}

// run begins a Watch for each name that comes, and ends it when the name goes.
func (f *follower) run(ctx context.Context) {
	ends := make(map[string]context.CancelFunc)
	for e, err := range f.dir.Watch(ctx) {
		if ctx.Err() != nil {
			break
		}
		check(err)
		switch e.Kind {
		case netns.EventPresent, netns.EventChanged:
			watched, end := context.WithCancel(ctx)
			ends[e.Name] = end
			f.all.Go(func() { f.follow(watched, e.Name) })
		case netns.EventDeleted:
			ends[e.Name]()
			delete(ends, e.Name)
			f.seen <- e.Name + " is gone"
		}
	}
}

// follow follows one namespace. It holds the namespace until it returns.
func (f *follower) follow(ctx context.Context, name string) {
	box, err := f.dir.Open(ctx, name)
	if err != nil {
		return // it has gone meanwhile
	}
	defer box.Close()
	for e, err := range route.Watch(ctx, box, route.Filter{Family: route.IPv4, Table: route.TableMain}) {
		if ctx.Err() != nil {
			return
		}
		check(err)
		switch e.Kind {
		case route.EventPresent, route.EventChanged:
			f.seen <- name + " has " + e.Item.String()
		case route.EventDeleted:
			f.seen <- name + " had " + e.Item.String()
		}
	}
}

// A Watch is of one namespace. A program that follows many begins one for each.
func ExampleWatch_manyNamespaces() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "netns")
	check(err)
	defer os.RemoveAll(dir)
	f := follower{dir: netns.Dir(dir), seen: make(chan string)}
	f.all.Go(func() { f.run(ctx) })

	web, err := f.dir.Create(ctx, "web")
	check(err)
	check(route.Add(ctx, web, route.Route{Dst: netip.MustParsePrefix("10.9.0.0/16"), Type: route.TypeBlackhole}))
	fmt.Println(<-f.seen)
	check(web.Delete(ctx))
	fmt.Println(<-f.seen)
	cancel()
	f.all.Wait()
	// Output:
	// web has blackhole 10.9.0.0/16 proto static
	// web is gone
}
