package netns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"syscall"

	"github.com/boxwire/boxwire/netns"
)

// A web server inside a namespace, asked by a client inside it: both are used
// from ordinary goroutines.
func Example() {
	ctx := context.Background()
	web, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer web.Close()

	ln, err := web.Listen(ctx, "tcp", "127.0.0.1:80")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(ln, http.FileServer(http.Dir(".")))

	client := http.Client{Transport: &http.Transport{DialContext: web.Dial}}
	resp, err := client.Get("http://127.0.0.1/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(os.Stdout, resp.Body)
}

func ExampleCreate() {
	ctx := context.Background()
	web, err := netns.Create(ctx, "web") // ip netns exec web ... works now
	if err != nil {
		log.Fatal(err)
	}
	defer web.Delete(ctx)
	fmt.Println(web)
}

func ExampleOpenPid() {
	ctx := context.Background()
	ns, err := netns.OpenPid(ctx, 4711)
	if err != nil {
		log.Fatal(err) // netns.OpenPid process 4711: stat /proc/4711/ns/net: no such file or directory
	}
	defer ns.Close()
	fmt.Println(ns.ID())
}

// Do is for what has to happen inside: here, reading a setting of the namespace.
func ExampleDo() {
	ctx := context.Background()
	ns, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	forward, err := netns.Do(ctx, ns, func(context.Context) (string, error) {
		b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		return string(b), err
	})
	fmt.Println(forward, err)
}

// A setting is read and set by its sysctl(8) name, from outside.
func ExampleNS_SetSysctl() {
	ctx := context.Background()
	ns, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	err = ns.SetSysctl(ctx, "net.ipv4.ip_forward", "1")
	switch {
	case errors.Is(err, syscall.EROFS):
		log.Fatal("/proc/sys is read-only here: ", err)
	case errors.Is(err, os.ErrNotExist):
		log.Fatal("the kernel has no such setting: ", err)
	case err != nil:
		log.Fatal(err)
	}
	fmt.Println(ns.Sysctl(ctx, "net.ipv4.ip_forward"))
	// Output: 1 <nil>
}

// Four namespaces are kept ready, so that a request does not wait for one.
func ExamplePool() {
	ctx := context.Background()
	pool, err := netns.NewPool(4)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	for range 10 {
		box, err := pool.Get(ctx)
		if err != nil {
			log.Fatal(err)
		}
		box.Close()
	}
}

// Names need not be where `ip netns` looks: a CNI runtime has its own folder.
func ExampleFolder() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "netns")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	boxes := netns.Folder(dir)
	box, err := boxes.Create(ctx, "3f2a")
	if err != nil {
		log.Fatal(err)
	}
	defer box.Delete(ctx)
	fmt.Println(box.Path() == dir+"/3f2a")
	// Output: true
}

// An unnamed namespace gets a name, and another one.
func ExamplePin() {
	ctx := context.Background()
	box, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer box.Close()
	named, err := netns.Pin(ctx, box, "web")
	if err != nil {
		log.Fatal(err)
	}
	named.Close()
	if err := netns.Rename(ctx, "web", "web-old"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(netns.Delete(ctx, "web-old"))
	// Output: <nil>
}

// Why does a namespace not go away that has no name any more?
func ExampleNS_Holders() {
	ctx := context.Background()
	box, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer box.Close()
	ln, err := box.Listen(ctx, "tcp", "127.0.0.1:80")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	holders, err := box.Holders(ctx)
	if err != nil {
		log.Print(err) // some processes belong to others
	}
	for _, h := range holders {
		log.Print(h) // socket 9 of process 4711 (example)
	}
}

// A namespace whose root is the calling user and has no rights outside.
func ExampleNewInUserNS() {
	ctx := context.Background()
	box, err := netns.NewInUserNS(ctx, netns.UserNS{})
	if err != nil {
		log.Fatal(err)
	}
	defer box.Close()
	fmt.Println(box.Name() == "")
	// Output: true
}
