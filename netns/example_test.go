package netns_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

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
