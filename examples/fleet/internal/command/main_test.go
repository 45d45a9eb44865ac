//go:build linux

package command

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

func TestMain(m *testing.M) {
	// The tests wait for leases more than they compute.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	labtest.Main(m, map[string]func([]string) int{"fleet": Run, "unprivileged": unprivileged, "serve": serve, "ask": ask})
}

// patient is how long a test waits for what has to happen.
const patient = 20 * time.Second

// fleet runs the program on a host to its end and gives its status and what it printed.
func fleet(t *testing.T, h *lab.Host, args ...string) (int, string) {
	t.Helper()
	return end(t, h.Program("fleet", args...))
}

// end starts a process and waits for its end.
func end(t *testing.T, p *lab.Process) (int, string) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil {
		t.Fatalf("%v; its output:\n%s", err, p.Output())
	}
	return code, p.Output()
}

// wantError wants one line that begins with the program's name and has the texts.
func wantError(t *testing.T, what string, code, wantCode int, output string, texts ...string) {
	t.Helper()
	line := strings.TrimSuffix(output, "\n")
	if code != wantCode || !strings.HasPrefix(line, "fleet") || strings.ContainsAny(line, "\n\x1b\a") {
		t.Errorf("%s: status %d, want %d and one line:\n%q", what, code, wantCode, output)
	}
	for _, text := range texts {
		if !strings.Contains(line, text) {
			t.Errorf("%s: it says %q, want %q in it", what, line, text)
		}
	}
}

// node is an agent on a host.
type node struct {
	*lab.Process
	t      *testing.T
	host   *lab.Host
	state  string
	socket string
}

// prepare is an agent that is not started: of the fleet lab, with the state and the socket in the host's directory.
func prepare(t *testing.T, h *lab.Host, args ...string) *node {
	n := &node{t: t, host: h, state: filepath.Join(h.Dir, "state"), socket: filepath.Join(h.Dir, "s")}
	first := []string{"agent", "-name", "lab", "-node", h.Name, "-state", n.state, "-socket", n.socket, "-v", "-ttl", "2s", "-hold", "2s"}
	n.Process = h.Program("fleet", append(first, args...)...)
	return n
}

// start starts an agent.
func start(t *testing.T, h *lab.Host, args ...string) *node {
	t.Helper()
	n := prepare(t, h, args...)
	n.begin()
	return n
}

func (n *node) begin() {
	n.t.Helper()
	if err := n.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// on are the flags of an agent that uses a store.
func on(s *lab.Store) []string { return []string{"-insecure", "-store", s.Endpoints()} }

// get asks the agent's socket.
func (n *node) get(path string) (int, string) { return get(n.t, n.socket, path) }

// get asks a unix socket. Without an answer the code is 0.
func get(t *testing.T, socket, path string) (int, string) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Get("http://agent" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// poll waits until a condition holds. say is why it does not.
func poll(t *testing.T, what string, holds func() (ok bool, say string)) {
	t.Helper()
	var say string
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		ok, why := holds()
		if ok {
			return
		}
		say = why
	}
	t.Fatalf("%s: not after %v: %s", what, patient, say)
}

// says waits until /ready has a text with a code.
func (n *node) says(code int, texts ...string) {
	n.t.Helper()
	poll(n.t, fmt.Sprintf("%s says %d %q", n.Name, code, texts), func() (bool, string) {
		is, body := n.get("/ready")
		for _, text := range texts {
			if !strings.Contains(body, text) {
				return false, fmt.Sprint(is, " ", body, "\n", n.Output())
			}
		}
		return is == code && strings.Count(body, "\n") == 1, fmt.Sprint(is, " ", body, "\n", n.Output())
	})
}

// ready waits until the agent is ready and knows n peers that are up.
func (n *node) ready(peers int) status.State {
	n.t.Helper()
	var s status.State
	poll(n.t, fmt.Sprintf("%s is ready with %d peers", n.Name, peers), func() (bool, string) {
		var err error
		s, err = status.Get(n.t.Context(), n.socket)
		up := 0
		for _, p := range s.Peers {
			if p.Alive && !p.Down && p.Endpoint.IsValid() {
				up++
			}
		}
		return err == nil && s.Ready && up == peers, fmt.Sprintf("%+v, %v\n%s", s, err, n.Output())
	})
	return s
}

// prints waits until the agent has printed a text.
func (n *node) prints(text string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patient)
	defer cancel()
	must(n.t, n.WaitOutput(ctx, text))
}

// stop ends the agent by SIGTERM and wants that it ends well.
func (n *node) stop() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patient)
	defer cancel()
	if code, err := n.Stop(ctx); code != 0 || err != nil {
		n.t.Errorf("%s: status %d, %v\n%s", n.Name, code, err, n.Output())
	}
}

// kernel is what a namespace has of links, addresses, routes and rules, as ip shows it.
func kernel(t *testing.T, ns *netns.NS) string {
	t.Helper()
	var b strings.Builder
	for _, args := range [][]string{{"-o", "link"}, {"-o", "addr"}, {"route", "show", "table", "all"}, {"-6", "route", "show", "table", "all"}, {"rule"}} {
		out := testutil.Run(t, ns, "ip", args...)
		for line := range strings.Lines(out) {
			switch {
			case strings.Contains(line, "multicast ff00::/8"), strings.Contains(line, "cache"):
				continue
			case strings.HasPrefix(line, "Error: Peer netns reference is invalid"): // ip complains, when namespaces end beside it, and goes on
				continue
			}
			b.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
		}
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		value, err := ns.Sysctl(t.Context(), key)
		if netns.IgnoreNotExist(err) != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, key, value)
	}
	return b.String()
}

// value is for calls that must succeed: value(f())(t) is what f gives.
func value[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
