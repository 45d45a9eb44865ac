package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// example is a State of a node with a peer.
func example() State {
	prefix := netip.MustParsePrefix
	return State{
		Version: Version, Fleet: "lab", ID: state.ID{7}, Name: "n7", Link: "fl0", MTU: 1464, Mode: state.Auto, Ready: true,
		Prefixes: []netip.Prefix{prefix("10.100.7.0/24"), prefix("fd99:0:0:7::/64")},
		Pools:    []netip.Prefix{prefix("10.100.0.0/16"), prefix("fd99::/48")},
		Peers: []Peer{{
			ID: state.ID{2}, Name: "n2", Prefixes: []netip.Prefix{prefix("10.100.2.0/24")},
			Endpoint: netip.MustParseAddr("192.0.2.2"), Mode: state.Tunnel, MTU: 1464, Alive: true,
		}, {ID: state.ID{3}, Name: "n3", Problem: "no endpoint"}},
	}
}

// listen serves a handler on a unix socket.
func listen(t *testing.T, h http.HandlerFunc) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "status") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-ended })
	return socket
}

func TestTheAgentIsAsked(t *testing.T) {
	t.Parallel()
	want := example()
	socket := listen(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" || r.URL.Path != "/state" {
			http.NotFound(w, r)
			return
		}
		json.NewEncoder(w).Encode(want)
	})
	got, err := Get(t.Context(), socket)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Get = %+v, %v, want %+v", got, err, want)
	}
}

func TestTheFormIsKept(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"version":1,"fleet":"lab","id":"07000000000000000000000000000000","name":"n7",` +
		`"prefixes":["10.100.7.0/24","fd99:0:0:7::/64"],"pools":["10.100.0.0/16","fd99::/48"],"link":"fl0","mtu":1464,"mode":"auto","ready":true,` +
		`"peers":[{"id":"02000000000000000000000000000000","name":"n2","prefixes":["10.100.2.0/24"],"endpoint":"192.0.2.2","mode":"tunnel","mtu":1464,"alive":true,"down":false},` +
		`{"id":"03000000000000000000000000000000","name":"n3","prefixes":null,"alive":false,"down":false,"problem":"no endpoint"}]}`
	if string(b) != want {
		t.Errorf("the State is\n%s\nwant\n%s", b, want)
	}
}

func TestNoAgentIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	left := filepath.Join(dir, "left") // by an agent that was killed
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for socket, says := range map[string]string{filepath.Join(dir, "never"): "no such file", left: "refused"} {
		_, err := Get(t.Context(), socket)
		if !errors.Is(err, ErrNoAgent) || !strings.Contains(err.Error(), "asking the agent on "+socket) || !strings.Contains(err.Error(), says) {
			t.Errorf("Get(%s): %v, want ErrNoAgent and %q", socket, err, says)
		}
	}
}

func TestWrongAnswersAreRefused(t *testing.T) {
	t.Parallel()
	for says, answer := range map[string]string{
		"unexpected end":                       `{"version":1`,
		"invalid character":                    "<html>",
		"version 2: this program knows 1 to 1": change(t, `"version":1`, `"version":2`),
		"name of a fleet":                      change(t, `"lab"`, `"a/b"`),
		"no id":                                change(t, `"07000`, `"00000`),
		"node id":                              change(t, `"07000`, `"7000`),
		`link "": want the name of a link`:     change(t, `"fl0"`, `""`),
		`link "f/0"`:                           change(t, `"fl0"`, `"f/0"`),
		"mtu 0: want 576 to 65535":             change(t, `"mtu":1464,"mode":"auto"`, `"mtu":0,"mode":"auto"`),
		"prefix 10.99.7.0/24: not one of the pools":       change(t, `"10.100.7.0/24"`, `"10.99.7.0/24"`),
		"prefix 10.100.7.1/24: not one of the pools":      change(t, `"10.100.7.0/24"`, `"10.100.7.1/24"`),
		"prefixes [10.100.7.0/24 10.100.9.0/24]: two of":  change(t, `"fd99:0:0:7::/64"`, `"10.100.9.0/24"`),
		"pool 10.100.0.1/16: want a prefix without host ": change(t, `"10.100.0.0/16"`, `"10.100.0.1/16"`),
	} {
		socket := listen(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(answer)) })
		s, err := Get(t.Context(), socket)
		if !strings.Contains(fmt.Sprint(err), says) || !errors.Is(err, os.ErrInvalid) {
			t.Errorf("Get of %s = %+v, %v, want os.ErrInvalid and %q", answer, s, err, says)
		}
	}
	socket := listen(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "starting", http.StatusServiceUnavailable) })
	if _, err := Get(t.Context(), socket); err == nil || errors.Is(err, ErrNoAgent) || !strings.Contains(err.Error(), `503 Service Unavailable: "starting"`) {
		t.Errorf("Get of an agent that starts: %v", err)
	}
}

// change is the example in JSON with something else in it.
func change(t *testing.T, old, with string) string {
	t.Helper()
	b, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s is not in %s", old, b)
	}
	return strings.Replace(string(b), old, with, 1)
}

func TestAnAgentThatDoesNotAnswerIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	socket := listen(t, func(http.ResponseWriter, *http.Request) { <-over })
	defer close(over)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Get(ctx, socket); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get: %v, want the deadline", err)
	}
}

func TestTheFileHasTheState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if s, err := Read(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Read of nothing = %+v, %v", s, err)
	}
	want := example()
	if err := Write(dir, want); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Read = %+v, %v, want %+v", got, err, want)
	}
	if info, err := os.Stat(filepath.Join(dir, "status.json")); err != nil || info.Mode() != 0o644 {
		t.Errorf("the file is %v, %v", info, err)
	}
	bad := want
	bad.MTU = 1
	if err := Write(dir, bad); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("Write of an MTU of 1: %v", err)
	}
	if got, err := Read(dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("after it Read = %+v, %v, want %+v", got, err, want)
	}
	if err := Write(filepath.Join(dir, "missing"), want); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Write to a directory that is missing: %v", err)
	}
	if err := os.WriteFile(Path(dir), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), Path(dir)) {
		t.Errorf("Read of half a file: %v", err)
	}
}

// A reader never sees half a State, and no other file stays.
func TestTheFileIsReplacedWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	long, short := example(), example()
	for i := range 200 {
		long.Peers = append(long.Peers, Peer{ID: state.ID{9, byte(i)}, Name: strings.Repeat("n", 200)})
	}
	if err := Write(dir, long); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		for i := range 50 {
			s := long
			if i%2 == 0 {
				s = short
			}
			if err := Write(dir, s); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	for reads := 0; ; reads++ {
		s, err := Read(dir)
		if n := len(s.Peers); err != nil || n != len(long.Peers) && n != len(short.Peers) {
			t.Fatalf("read %d has %d peers, %v", reads, n, err)
		}
		select {
		case err := <-wrote:
			if err != nil {
				t.Error(err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("the directory has %v, %v", entries, err)
			}
			return
		default:
		}
	}
}

func TestTrusted(t *testing.T) {
	t.Parallel()
	p := netip.MustParsePrefix
	for _, test := range []struct{ prefixes, pools, want []netip.Prefix }{
		{[]netip.Prefix{p("10.100.7.0/24"), p("fd99:0:0:7::/64")}, []netip.Prefix{p("10.100.0.0/16"), p("fd99::/48")}, []netip.Prefix{p("10.100.0.0/16"), p("fd99::/48")}},
		{[]netip.Prefix{p("10.100.7.0/24")}, []netip.Prefix{p("10.100.0.0/16"), p("10.200.0.0/16"), p("fd99::/48")}, []netip.Prefix{p("10.100.0.0/16"), p("10.200.0.0/16")}},
		{[]netip.Prefix{p("10.100.7.0/24")}, []netip.Prefix{p("10.100.7.0/24"), p("10.200.0.0/16")}, []netip.Prefix{p("10.200.0.0/16")}},
		{nil, []netip.Prefix{p("10.100.0.0/16")}, nil},
	} {
		if got := (State{Prefixes: test.prefixes, Pools: test.pools}).Trusted(); !reflect.DeepEqual(got, test.want) {
			t.Errorf("of a node with %v in %v %v are trusted, want %v", test.prefixes, test.pools, got, test.want)
		}
	}
}
