//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// silence is how long a dial waits that must get no answer. An answer in these namespaces takes well under a millisecond.
const silence = 150 * time.Millisecond

// serve starts a web server on port 80 of a namespace. It answers its name and the address it was called from.
func (w *world) serve(ctx context.Context, ns *netns.NS, name string) error {
	ln, err := ns.Listen(ctx, "tcp", ":80")
	if err != nil {
		return err
	}
	s := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			client, err := netip.ParseAddrPort(r.RemoteAddr)
			if err != nil {
				http.Error(rw, err.Error(), http.StatusInternalServerError)
				return
			}
			fmt.Fprintf(rw, "%s %s", name, client.Addr().Unmap())
		}),
	}
	w.servers = append(w.servers, s)
	go s.Serve(ln) // ends when cleanUp closes the server
	return nil
}

// An answer is what a web server of this program says: who it is, and the address it was called from.
type answer struct{ server, client string }

func (a answer) String() string { return a.server + " saw " + a.client }

// get asks http://addr/ from inside ns. The dial is the whole difference to an ordinary program.
func get(ctx context.Context, ns *netns.NS, addr string) (answer, error) {
	return fetch(ctx, &http.Transport{DialContext: ns.Dial, DisableKeepAlives: true}, addr)
}

func fetch(ctx context.Context, transport http.RoundTripper, addr string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		return answer{}, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return answer{}, err
	}
	server, client, ok := strings.Cut(string(body), " ")
	if resp.StatusCode != http.StatusOK || !ok {
		return answer{}, fmt.Errorf("http://%s/ answered %s: %q", addr, resp.Status, body)
	}
	return answer{server, client}, nil
}

// expect asks from inside ns and returns an error unless that server answers and has seen that client.
func expect(ctx context.Context, ns *netns.NS, addr, server, client string) error {
	got, err := get(ctx, ns, addr)
	if err != nil {
		return err
	}
	if want := (answer{server, client}); got != want {
		return fmt.Errorf("http://%s/ from %s: got %q, want %q", addr, ns.Name(), got, want)
	}
	return nil
}

// expectSilence dials from inside ns and returns an error unless nothing at all comes back: no connection, no refusal.
func expectSilence(ctx context.Context, ns *netns.NS, addr string) error {
	quick, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	conn, err := ns.Dial(quick, "tcp", addr)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s answered %s", addr, ns.Name())
	}
	if ctx.Err() != nil || !isTimeout(err) {
		return fmt.Errorf("%s from %s: %w, want silence", addr, ns.Name(), err)
	}
	return nil
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// getAsProcess runs a second process inside ns, which asks addr with nothing but net/http.
// A process starts in the namespaces of the thread that starts it: that is one of the few things Do is for.
func getAsProcess(ctx context.Context, ns *netns.NS, addr string) (string, error) {
	return netns.Do(ctx, ns, func(ctx context.Context) (string, error) {
		cmd := exec.CommandContext(ctx, "/proc/self/exe")
		cmd.Env = append(os.Environ(), fetchEnv+"="+addr)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return string(out), err
	})
}

// fetchMain is the second process: it knows nothing of namespaces.
func fetchMain(addr string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	got, err := fetch(ctx, &http.Transport{DisableKeepAlives: true}, addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Print(got)
	return 0
}
