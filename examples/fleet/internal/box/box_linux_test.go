package box

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/internal/testutil/boxtest"
	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// modeEnv makes the test binary the program, or a box's command.
const modeEnv = "BOXWIRE_FLEET_BOX_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(modeEnv) {
	case "box":
		os.Exit(Main(context.Background(), os.Args[1:]))
	case "serve":
		fmt.Fprintln(os.Stderr, serve(os.Args[len(os.Args)-1]))
		os.Exit(1)
	default:
		netnstest.Main(m)
	}
}

// serve answers every request with a name, and the address that it came from.
func serve(name string) error {
	return http.ListenAndServe(":80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		io.WriteString(w, name+" from "+from)
	}))
}

// host is a machine with an agent that a test plays.
type host struct {
	*netns.NS
	t      testing.TB
	socket string
	dir    string
	state  status.State
	asked  atomic.Int32 // how often the agent was
	stop   func()       // the agent
}

// newHost makes a host without an agent.
func newHost(t testing.TB, ns *netns.NS, s status.State) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "fleet") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &host{NS: ns, t: t, socket: filepath.Join(dir, "s"), dir: dir, state: s, stop: func() {}}
}

// agent starts an agent that answers with h.state, as that is now. One that runs is stopped.
func (h *host) agent() {
	h.t.Helper()
	h.stop()
	now := h.state
	h.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/state" {
			http.NotFound(w, r)
			return
		}
		h.asked.Add(1)
		json.NewEncoder(w).Encode(now)
	})
}

// answer starts an agent.
func (h *host) answer(answer http.HandlerFunc) {
	h.t.Helper()
	l, err := net.Listen("unix", h.socket)
	if err != nil {
		h.t.Fatal(err)
	}
	srv := &http.Server{Handler: answer}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	over := false
	h.stop = func() {
		if !over {
			over = true
			srv.Close()
			<-ended
		}
	}
	h.t.Cleanup(h.stop)
}

// result is how the program has ended.
type result struct {
	out, err string
	status   int
}

// command is the program on the host.
func (h *host) command(ctx context.Context, args ...string) *netns.Cmd {
	cmd := h.Command(ctx, "/proc/self/exe", append([]string{"-socket", h.socket, "-state", h.dir}, args...)...)
	cmd.Env = append(os.Environ(), modeEnv+"=box", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return cmd
}

// box runs the program on the host and waits for it.
func (h *host) box(args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.t.Context()), time.Minute)
	defer cancel()
	cmd := h.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("fleet box %q: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// start starts a box that serves its name, waits until it does, and returns its namespace and what ends it.
func (h *host) start(name string, args ...string) (ns *netns.NS, end func()) {
	h.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	args = append(append([]string{"run", "--name", name}, args...), "--", tool.Path(h.t, "env"), modeEnv+"=serve", exe, name)
	cmd := h.command(context.Background(), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	end = func() {
		select {
		case <-ended:
		default:
			cmd.Process.Signal(unix.SIGTERM)
			<-ended
		}
	}
	h.t.Cleanup(end)
	boxtest.Within(h.t, func() string {
		select {
		case <-ended:
			h.t.Fatalf("fleet box run --name %s has ended: %s", name, stderr.String())
		default:
		}
		if ns == nil {
			if got := h.box("exec", name, "true"); got.status != 0 {
				return got.err
			}
			if ns, err = netns.Open(h.t.Context(), name); err != nil {
				return err.Error()
			}
		}
		return answers(ns, "127.0.0.1", name+" from 127.0.0.1")
	})
	h.t.Cleanup(func() { ns.Close() })
	return ns, end
}

// answers asks port 80 of an address, or another one, and says what is wrong with the answer.
func answers(from *netns.NS, at, want string) string {
	if a, err := netip.ParseAddr(at); err == nil {
		at = netip.AddrPortFrom(a, 80).String()
	}
	return boxtest.Answers(from, at, want)
}

// stateOf is the State of node i of a fleet.
func stateOf(i byte) status.State {
	prefix := func(format string) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf(format, i)) }
	return status.State{
		Version: status.Version, Fleet: "lab", ID: state.ID{i}, Name: fmt.Sprint("n", i), Link: "fl0", MTU: 1464, Mode: state.Tunnel, Ready: true,
		Prefixes: []netip.Prefix{prefix("10.100.%d.0/24"), prefix("fd99:0:0:%d::/64")},
		Pools:    []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16"), netip.MustParsePrefix("fd99::/48")},
	}
}
