// Probe is what the containers of the scenes run: it answers who it is and who asks, and asks others.
//
//	probe -name web -listen :80        answers at TCP and UDP port 80: "web 192.0.2.1"
//	probe -name web -http :80          answers every HTTP request: "web"
//	probe -ask tcp 192.0.2.2:8080      prints such an answer; without one the exit status is 1
//
// Built without cgo it needs no other file, so that it is an image by itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/netns"
)

func main() {
	name := flag.String("name", "probe", "the `name` in the answers")
	listen := flag.String("listen", "", "the `address` to answer at, host:port; the host may be empty")
	page := flag.String("http", "", "the `address` to answer HTTP requests at")
	ask := flag.String("ask", "", "the `network` of the address to ask, tcp or udp")
	wait := flag.Duration("wait", 5*time.Second, "how long to ask")
	flag.Parse()
	// The first process of a container gets no signal that it does not ask for.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var err error
	if *page != "" {
		err = serve(ctx, *name, *page)
	} else {
		err = run(ctx, *name, *listen, *ask, *wait)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name, listen, ask string, wait time.Duration) error {
	here, err := netns.Current()
	if err != nil {
		return err
	}
	defer here.Close()
	if ask != "" {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		answer, err := reach.Ask(ctx, here, ask, flag.Arg(0))
		if err == nil {
			fmt.Println(answer)
		}
		return err
	}
	if listen == "" {
		return errors.New("-listen, -http or -ask is needed")
	}
	server, err := reach.Listen(ctx, here, name, listen)
	if err != nil {
		return err
	}
	defer server.Close()
	<-ctx.Done()
	return nil
}

// serve answers HTTP requests until ctx is done.
func serve(ctx context.Context, name, address string) error {
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
