package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// ADD and DEL, each as often as it may come, leave the same each time.
func TestAddAndDelOfEachModeAreRepeated(t *testing.T) {
	t.Parallel()
	for _, mode := range everyMode {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			r, _ := onLAN(t, mode.conf)
			c := r.container("c1", "")
			before := r.all(c)
			var there string
			for i := range 3 {
				_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
				tried(t, mode.name, err)
				if err := r.check(c); err != nil {
					t.Errorf("CHECK %d: %v", i, err)
				}
				first := r.all(c)
				if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); err == nil {
					t.Errorf("the ADD %d is done twice", i)
				}
				if second := r.all(c); second != first {
					t.Errorf("the second ADD makes\n%s\nof\n%s", second, first)
				}
				if err := r.check(c); err != nil {
					t.Errorf("CHECK %d after the second ADD: %v", i, err)
				}
				if there == "" {
					there = kinds(first)
				} else if again := kinds(first); again != there {
					t.Errorf("the first ADD made\n%s\nand the %d. makes\n%s", there, i, again)
				}
				for range 3 {
					r.del(c)
				}
			}
			r.gc()
			if mode.name == "host-device" { // which comes back down
				testutil.Run(t, r.host, "ip", "link", "set", "lan0", "up")
			}
			if after := r.all(c); after != before {
				t.Errorf("there was\n%s\nand there is\n%s", before, after)
			}
		})
	}
}

// kinds are the lines that name no address that was drawn or assigned, nor an index.
func kinds(all string) string {
	var kept []string
	for line := range strings.Lines(all) {
		if name, rest, ok := strings.Cut(line, ": "); ok && !strings.Contains(line, "{") {
			line = strings.TrimLeft(name, "0123456789") + rest
		}
		if strings.Contains(line, "10.89.") || strings.Contains(line, "fd89:") || strings.Contains(line, ":") {
			continue
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

// After a restart of the machine nothing of the kernel is there, and all files are: those of /run only where it is kept. DEL has nothing
// to remove, however often it comes, and an ADD of the same container works.
func TestDelAndAddAfterARestart(t *testing.T) {
	t.Parallel()
	const conf = `"policy": {"ingress": ["tcp 10.89.0.0/24 port 80", "tcp fd89::/64 port 80"]}`
	before := newRig(t, conf)
	c := before.container("c1", publish8080+limited)
	before.add(c)
	before.add(before.container("other", ""))

	r := newRigOn(t, netnstest.New(t), conf)
	old := filepath.Join(before.dir, "state", "testnet.json")
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.dir, "state"), 0o755); err != nil {
		t.Fatal(err)
	}
	// The inode of the host's namespace is used again.
	state := strings.ReplaceAll(readFile(t, old), boot, "another boot")
	state = strings.ReplaceAll(state, fmt.Sprint(before.host.ID().Ino), fmt.Sprint(r.host.ID().Ino))
	if err := os.WriteFile(filepath.Join(r.dir, "state", "testnet.json"), []byte(state), 0o644); err != nil {
		t.Fatal(err)
	}
	gone := c
	gone.NetNS = filepath.Join(r.dir, "netns", "gone")
	for range 2 {
		r.del(gone)
	}
	if left := r.links(""); len(left) > 0 {
		t.Errorf("DEL makes %v", left)
	}
	if out := r.nft("list", "ruleset"); strings.TrimSpace(out) != "" {
		t.Errorf("DEL makes %s", out)
	}
	again := r.container("c1", publish8080+limited)
	r.add(again)
	serve(t, again)
	if err := r.check(again); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := reach(t, r.host, "127.0.0.1:8080", "c1"); err != nil {
		t.Error(err)
	}
	r.gc(again)
	if b := readFile(t, filepath.Join(r.dir, "state", "testnet.json")); strings.Contains(b, "another boot") {
		t.Errorf("after GC the state is %s", b)
	}
	r.del(again)
	r.gc()
	r.clean()
}

// Neighbours keep what they know of the bridge: its hardware address is not that of a port, which would change as
// containers come and go.
func TestTheBridgeKeepsItsHardwareAddress(t *testing.T) {
	t.Parallel()
	for _, conf := range []string{"", noIPAM} {
		r := newRig(t, conf)
		address := func() string {
			br, err := link.Get(t.Context(), r.host, "boxwire0")
			if err != nil {
				t.Fatal(err)
			}
			return br.MAC.String()
		}
		first := r.container("first", "")
		r.add(first)
		want := address()
		for i, mac := range []string{"02:00:00:00:00:01", "00:00:00:00:00:01"} { // lower than any other
			c := r.container(fmt.Sprint("c", i), `"mac": "`+mac+`"`)
			r.add(c)
			if got := address(); got != want {
				t.Errorf("with a container the bridge has %s, want %s", got, want)
			}
			r.del(c)
			if got := address(); got != want {
				t.Errorf("without the container the bridge has %s, want %s", got, want)
			}
		}
		r.del(first)
		if got := address(); got != want {
			t.Errorf("without ports the bridge has %s, want %s", got, want)
		}
		r.gc()
		r.clean()
	}
}
