package netns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

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
	defer ln.Close()
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))

	client := http.Client{Transport: &http.Transport{DialContext: web.Dial}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://127.0.0.1/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(os.Stdout, resp.Body)
	// Output: hello
}

// The handle that New returns is what keeps the namespace. Each further one does so,
// too, until it is closed.
func ExampleNew() {
	ctx := context.Background()
	box, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	var again *netns.NS
	err = box.WithFd(func(fd int) error {
		again, err = netns.OpenFd(fd)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(box.Close()) // the namespace lives on

	value, err := again.Sysctl(ctx, "net.ipv4.ip_forward")
	fmt.Println(value, err)
	fmt.Println(again.Close()) // now it ends

	_, err = box.Sysctl(ctx, "net.ipv4.ip_forward")
	fmt.Println(errors.Is(err, os.ErrClosed))
	// Output:
	// <nil>
	// 0 <nil>
	// <nil>
	// true
}

func ExampleCreate() {
	ctx := context.Background()
	web, err := netns.Create(ctx, "web") // ip netns exec web ... works now
	if err != nil {
		log.Fatal(err)
	}
	defer web.Delete(ctx)
	fmt.Println(web)
	// Output: web
}

// A program that may be started again, after a crash too, finds its namespace.
func ExampleEnsure() {
	ctx := context.Background()
	web, err := netns.Ensure(ctx, "web")
	if err != nil {
		log.Fatal(err)
	}
	defer web.Delete(ctx)
	again, err := netns.Ensure(ctx, "web")
	if err != nil {
		log.Fatal(err)
	}
	defer again.Close()
	fmt.Println(web.Equal(again))
	// Output: true
}

func ExampleOpenPid() {
	ctx := context.Background()
	ns, err := netns.OpenPid(ctx, os.Getpid())
	if err != nil {
		log.Fatal(err) // netns.OpenPid process 4711: stat /proc/4711/ns/net: no such file or directory
	}
	defer ns.Close()
	host, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	fmt.Println(ns.Equal(host))
	// Output: true
}

// Do is for what has to happen inside: here, a library that knows only the
// namespace of its caller.
func ExampleDo() {
	ctx := context.Background()
	ns, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	links, err := netns.Do(ctx, ns, func(context.Context) ([]net.Interface, error) { return net.Interfaces() })
	fmt.Println(len(links), err)
	// Output: 1 <nil>
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
	// Output:
}

// Names need not be where `ip netns` looks: a CNI runtime has its own directory.
func ExampleDir() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "netns")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	boxes := netns.Dir(dir)
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
	fmt.Println(slices.ContainsFunc(holders, func(h netns.Holder) bool {
		return h.Kind == netns.HolderSocket && h.Pid == os.Getpid() // "socket 9 of process 4711 (example)"
	}))
	// Output: true
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

// A program runs inside, and is used like any other command.
func ExampleNS_Command() {
	ctx := context.Background()
	box, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer box.Close()
	out, err := box.Command(ctx, "cat", "/proc/net/dev").Output()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Count(string(out), ":"), "link") // lo
	// Output: 1 link
}

// A Control function sets options of the socket before it connects.
func ExampleNS_DialWith() {
	ctx := context.Background()
	box, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer box.Close()
	d := net.Dialer{
		Timeout: time.Second,
		Control: func(network, address string, c syscall.RawConn) error {
			fmt.Println("a socket for", network, address) // c.Control has its descriptor
			return nil
		},
	}
	_, err = box.DialWith(ctx, d, "tcp", "127.0.0.1:80")
	fmt.Println(errors.Is(err, syscall.ECONNREFUSED))
	// Output:
	// a socket for tcp4 127.0.0.1:80
	// true
}

// A container is found by its id, whichever runtime has made it.
func ExampleOpenContainer() {
	ctx := context.Background()
	_, err := netns.OpenContainer(ctx, "docker://4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970")
	fmt.Println(errors.Is(err, os.ErrNotExist)) // it does not run here
	// Output: true
}

// A socket knows the namespace that it was opened in.
func ExampleOpenSocket() {
	ctx := context.Background()
	box, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer box.Close()
	ln, err := box.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	ns, err := netns.OpenSocket(ln.(*net.TCPListener))
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	fmt.Println(ns.Equal(box))
	// Output: true
}

// Link messages name the namespace of a veth's other end by an id.
func ExampleNS_EnsureNSID() {
	ctx := context.Background()
	host, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	box, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer box.Close()
	id, err := host.EnsureNSID(ctx, box)
	if err != nil {
		log.Fatal(err)
	}
	again, err := host.OpenNSID(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	defer again.Close()
	fmt.Println(id, again.Equal(box))
	// Output: 0 true
}

// A watch begins with the names that are there, and goes on with those that come and go.
func ExampleWatch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for e, err := range netns.Watch(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		switch e.Kind {
		case netns.EventPresent, netns.EventChanged:
			log.Print(e.Name, " is ", e.ID)
		case netns.EventDeleted:
			log.Print(e.Name, " is gone")
		case netns.EventSynced:
			cancel() // a program that is interested in changes goes on
			fmt.Println("that is all")
			return
		}
	}
	// Output: that is all
}

// ListAll finds every network namespace that something visible holds.
func ExampleListAll() {
	all, err := netns.ListAll(context.Background())
	if err != nil {
		log.Print(err) // not all processes could be looked into
	}
	for _, info := range all {
		log.Print(info.ID.Ino, info.Names, info.Pids)
	}
	fmt.Println(len(all) > 0)
	// Output: true
}

// A name is given, changed and found.
func ExampleRename() {
	ctx := context.Background()
	web, err := netns.Create(ctx, "web")
	if err != nil {
		log.Fatal(err)
	}
	defer web.Close()
	if err := netns.Rename(ctx, "web", "shop"); err != nil {
		log.Fatal(err)
	}
	defer netns.Delete(ctx, "shop")

	shop, err := netns.Open(ctx, "shop")
	if err != nil {
		log.Fatal(err)
	}
	defer shop.Close()
	fmt.Println("the same namespace:", shop.Equal(web))
	// Output: the same namespace: true
}

// A name that is not there is os.ErrNotExist.
func ExampleOpen() {
	ctx := context.Background()
	_, err := netns.Open(ctx, "nowhere")
	fmt.Println(errors.Is(err, os.ErrNotExist))
	// Output: true
}

// What `ip netns list` prints.
func ExampleList() {
	ctx := context.Background()
	for _, name := range []string{"web", "db"} {
		ns, err := netns.Create(ctx, name)
		if err != nil {
			log.Fatal(err)
		}
		defer ns.Delete(ctx) // closes the handle, too
	}
	named, err := netns.List(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, n := range named {
		fmt.Println(n.Name)
	}
	// Output:
	// db
	// web
}
