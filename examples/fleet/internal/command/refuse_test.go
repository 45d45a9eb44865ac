//go:build linux

package command

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/internal/testutil"
)

// unprivileged is the program as a user runs it who may not change networks.
func unprivileged(args []string) int {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_ADMIN, 0, 0, 0); err != nil {
		fmt.Println(err)
		return 99
	}
	env := append(os.Environ(), "BOXWIRE_LAB_PROGRAM=fleet")
	fmt.Println(syscall.Exec("/proc/self/exe", append([]string{"fleet"}, args...), env))
	return 99
}

// keys are those of a fleet in the store.
func keys(t *testing.T, s *lab.Store, fleet string) []string {
	t.Helper()
	c, err := s.Client(s.Members[0].Host)
	must(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	resp, err := c.Get(ctx, "/boxwire/fleet/"+fleet+"/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	must(t, err)
	var all []string
	for _, kv := range resp.Kvs {
		all = append(all, string(kv.Key))
	}
	return all
}

// What keeps an agent from working on a machine is named in one line, with status 1. The kernel and the store are as they were.
func TestAgentsThatAreRefused(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{1}})
	etcd, err := l.StartStore(t.Context(), l.Hosts[0])
	must(t, err)
	write := func(t *testing.T, path, text string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	ip := func(args string) func(*testing.T, *node) {
		return func(t *testing.T, n *node) { testutil.Run(t, n.host.NS, "ip", strings.Fields(args)...) }
	}
	nothing := func(*testing.T, *node) {}
	const id = `"id":"0123456789abcdef0123456789abcdef"`
	for _, test := range []struct {
		name string
		prep func(*testing.T, *node)
		args string // DIR is the host's directory
		want []string
	}{
		{"a pool overlaps an address", ip("addr add 10.100.3.1/24 dev lo"), "", []string{"pool 10.100.0.0/16 in netns", "it overlaps the address 10.100.3.1/24 of link lo", "-pool"}},
		{"the pools have the addresses of the link to the nodes", nothing, "-pool 198.18.0.0/16,2001:db8::/32 -size6 64", []string{"pool 198.18.0.0/16", "it overlaps the address 198.18.", "of link eth0", "pool 2001:db8::/32"}},
		{"a pool overlaps a route", ip("route add 10.100.64.0/20 via 198.18.0.1"), "", []string{"pool 10.100.0.0/16 in netns", "it overlaps the route 10.100.64.0/20 via 198.18.0.1", "by link eth0", "-pool"}},
		{"a pool overlaps an IPv6 route", ip("route add fd99:0:0:8::/64 via 2001:db8:1::1"), "", []string{"pool fd99::/48 in netns", "it overlaps the route fd99:0:0:8::/64 via 2001:db8:1::1"}},
		{"two overlaps", ip("addr add 10.100.3.1/24 dev lo"), "-pool 10.100.0.0/16,198.18.0.0/24", []string{"10.100.3.1/24 of link lo: give", "; wire.Check pool 198.18.0.0/24", "of link eth0"}},
		{"the MTU is too small", ip("link set eth0 mtu 1300"), "", []string{"link eth0 in netns", "its MTU is 1300", "the pool fd99::/48 needs 1280", "-via"}},
		{"the tunnel's link is another's", ip("link add fl0 type bridge"), "", []string{"link fl0", "-link"}},
		{"the tunnel's port is another's", ip("link add vx0 type vxlan id 9 dstport 4790 dev eth0"), "", []string{"UDP port 4790", "vx0", "port"}},

		{"the state of another fleet", func(t *testing.T, n *node) {
			write(t, n.state+"/identity.json", `{"version":1,"fleet":"other",`+id+`}`)
		}, "", []string{"DIR/state/identity.json is of the fleet \"other\"", "give each fleet a state directory of its own"}},
		{"a damaged identity", func(t *testing.T, n *node) { write(t, n.state+"/identity.json", `{"version":1,`) }, "", []string{"DIR/state/identity.json is damaged", "remove it"}},
		{"an empty identity", func(t *testing.T, n *node) { write(t, n.state+"/identity.json", ``) }, "", []string{"DIR/state/identity.json is damaged"}},
		{"an identity of tomorrow", func(t *testing.T, n *node) {
			write(t, n.state+"/identity.json", `{"version":2,"fleet":"lab",`+id+`}`)
		}, "", []string{"DIR/state/identity.json has version 2: this program knows 1"}},
		{"an identity without an id", func(t *testing.T, n *node) { write(t, n.state+"/identity.json", `{"version":1,"fleet":"FLEET"}`) }, "", []string{"DIR/state/identity.json"}},
		{"the state is a file", func(t *testing.T, n *node) { write(t, n.state, "") }, "", []string{"-state", "DIR/state: not a directory"}},
		{"the state cannot be made", nothing, "-state /proc/fleet", []string{"-state", "/proc/fleet"}},

		{"the socket is a file", func(t *testing.T, n *node) { write(t, n.socket, "mine") }, "", []string{"-socket", "DIR/s is there and no socket"}},
		{"the socket is a directory", func(t *testing.T, n *node) { must(t, os.Mkdir(n.socket, 0o700)) }, "", []string{"-socket", "DIR/s is there and no socket"}},
		{"the socket's directory is a file", func(t *testing.T, n *node) { write(t, n.host.Dir+"/f", "mine") }, "-socket DIR/f/s", []string{"-socket", "DIR/f: not a directory"}},
		{"the socket cannot be made", nothing, "-socket /proc/s", []string{"-socket", "/proc/s"}},
		{"the socket's path is too long", nothing, "-socket /run/" + strings.Repeat("x", 103), []string{"-socket", "has 108 bytes; a unix socket's has 107 at most"}},
		{"the metrics' address is not here", nothing, "-metrics 203.0.113.9:9469", []string{"-metrics", "203.0.113.9:9469", "cannot assign"}},
		{"the metrics' port is taken", func(t *testing.T, n *node) {
			ln, err := n.host.NS.Listen(t.Context(), "tcp", "127.0.0.1:9469")
			must(t, err)
			t.Cleanup(func() { ln.Close() })
		}, "-metrics 127.0.0.1:9469", []string{"-metrics", "127.0.0.1:9469", "address already in use"}},
		{"no CA file", nothing, "-store https://198.18.0.2:1 -ca /nowhere/ca.pem", []string{"/nowhere/ca.pem: no such file"}},
		{"a CA of garbage", func(t *testing.T, n *node) { write(t, n.host.Dir+"/ca", "garbage") }, "-store https://198.18.0.2:1 -ca DIR/ca", []string{"DIR/ca: no certificate in PEM form"}},
		{"no certificate file", nothing, "-store https://198.18.0.2:1 -cert /nowhere/c.pem -key /nowhere/k.pem", []string{"/nowhere/c.pem: no such file"}},
		{"the embedded store's data are garbage", func(t *testing.T, n *node) {
			write(t, n.state+"/etcd/member/snap/db", strings.Repeat("garbage ", 4096))
		}, "-store embed", []string{"DIR/state/etcd"}},
		{"the embedded store's data are a file", func(t *testing.T, n *node) { write(t, n.state+"/etcd", "") }, "-store embed", []string{"DIR/state/etcd"}},
		{"the embedded store's address is not here", nothing, "-store embed -listen http://203.0.113.9:2379", []string{"203.0.113.9:2379", "cannot assign"}},
		{"the embedded store's path is too long", nothing, "-store embed -state DIR/" + strings.Repeat("x", 100), []string{"at most 107 bytes"}},
		{"no capability", nothing, "", []string{"CAP_NET_ADMIN is missing"}},
	} {
		h, err := l.AddHost(t.Context(), 0)
		must(t, err)
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fleet := "refused-" + h.Name
			dir := strings.NewReplacer("DIR", h.Dir, "FLEET", fleet)
			n := prepare(t, h, append(on(etcd), strings.Fields(dir.Replace(test.args))...)...)
			n.Args = append(n.Args, "-name", fleet)
			test.prep(t, n)
			if test.name == "no capability" {
				n.Process = h.Program("unprivileged", n.Args...)
			}
			before, files := kernel(t, h.NS), tree(t, h.Dir)
			code, out := end(t, n.Process)
			var want []string
			for _, text := range test.want {
				want = append(want, dir.Replace(text))
			}
			wantError(t, test.name, code, 1, out, want...)
			if after := kernel(t, h.NS); after != before {
				t.Errorf("the kernel has\n%s\nand had\n%s", after, before)
			}
			if left := keys(t, etcd, fleet); len(left) > 0 {
				t.Errorf("the store has %q", left)
			}
			after := tree(t, h.Dir)
			for path, text := range files {
				if got, ok := after[path]; !ok || got != text {
					t.Errorf("the file %s is %q, %v; it was %q", path, got, ok, text)
				}
			}
		})
	}
}

// tree are the files of a directory with what is in them.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			files[path] = fmt.Sprint(info.Mode())
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	}))
	return files
}
