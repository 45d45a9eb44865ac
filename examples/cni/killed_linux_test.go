package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// dying executes plugins that are killed after a number of steps.
type dying struct {
	inside
	*rig
	steps  int
	killed *bool
}

// changes are the system calls by which a plugin changes anything.
var changes = append([]uintptr{unix.SYS_RENAMEAT}, testutil.Messages...)

func (d dying) ExecPlugin(_ context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	var out string
	out, *d.killed = testutil.KillAfter(d, d.ns, d.steps, testutil.Victim{
		Path: path, Args: []string{path}, Env: env, Stdin: string(stdin), Steps: changes,
	})
	if *d.killed {
		return nil, fmt.Errorf("killed after %d steps", d.steps)
	}
	return []byte(out), nil
}

// kill kills a verb after a number of steps, and says whether it had as many.
func (r *rig) kill(steps int, verb func(*rig) error) (killed bool) {
	r.Helper()
	mortal := *r
	mortal.cni = libcni.NewCNIConfigWithCacheDir(r.cni.Path, r.cache(), dying{inside{r.host, &version.PluginDecoder{}}, r, steps, &killed})
	if err := verb(&mortal); err != nil && !killed {
		r.Errorf("what was to be killed after %d steps: %v", steps, err)
	}
	return killed
}

const limited = `, "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 8000000, "egressBurst": 800000}`

// What an ADD leaves that is killed after its first step, its second, ... GC takes
// away, and another ADD finishes it and is itself not disturbed.
func TestAnAddThatIsKilledAtAnyStepLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"mtu": 1400`)
	stride := 1
	if testing.Short() {
		stride = 3
	}
	for steps := 1; ; steps += stride {
		c := r.container(fmt.Sprint("k", steps), publish8080+limited)
		add := func(r *rig) error {
			_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
			return err
		}
		killed := r.kill(steps, add)
		if r.cleared(steps, killed) {
			return
		}
		r.kill(steps, add)
		r.del(c)
		next := r.container(fmt.Sprint("n", steps), publish8080)
		r.add(next)
		if err := r.check(next); err != nil {
			t.Error(err)
		}
		r.wantBridge(bridgeAlias, 1400)
		r.del(next)
		r.gc()
		r.clean()
		if t.Failed() {
			t.Fatalf("so it was after %d steps, a DEL and an ADD", steps)
		}
	}
}

// cleared wants GC to leave nothing of a verb that was to be killed after so many
// steps. It reports whether the verb ended by itself: then it has no more of them,
// and fails the test if it had so few that it cannot have been killed within.
func (r *rig) cleared(steps int, killed bool) (last bool) {
	r.Helper()
	r.gc()
	r.clean()
	if r.Failed() {
		r.Fatalf("so it was after %d steps", steps)
	}
	if !killed && steps < 6 { // a link, its limits, a port, a lease, a network, a table, or more
		r.Errorf("all of it has %d steps", steps)
	}
	return !killed
}

// A DEL or a GC that is killed is done again.
func TestADelThatIsKilledAtAnyStepIsRepeated(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		verb func(*rig, container) error
	}{
		{"DEL", func(r *rig, c container) error {
			return r.cni.DelNetworkList(context.WithoutCancel(r.Context()), r.list, c.RuntimeConf)
		}},
		{"GC", func(r *rig, _ container) error {
			os.RemoveAll(r.cache()) // else libcni has a DEL for what it knows
			return r.cni.GCNetworkList(r.Context(), r.list, &libcni.GCArgs{})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			for steps := 1; ; steps++ {
				c := r.container(fmt.Sprint("k", steps), publish8080+limited)
				r.add(c)
				killed := r.kill(steps, func(r *rig) error { return test.verb(r, c) })
				if err := test.verb(r, c); err != nil {
					t.Errorf("once more: %v", err)
				}
				if links := append(r.links("veth"), r.links("ifb")...); len(links) > 0 {
					t.Errorf("the container still has %v", links)
				}
				if strings.Contains(r.nft("list", "ruleset"), "8080") {
					t.Error("its port is still published")
				}
				if r.cleared(steps, killed) {
					return
				}
			}
		})
	}
}

// An ADD may be killed at any moment, not only between two steps.
func TestAnAddThatIsKilledLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	turns := 60
	if testing.Short() {
		turns = 10
	}
	conf := r.container("warm", publish8080)
	began := time.Now()
	r.add(conf)
	took := time.Since(began) // an ADD of this machine, now
	r.del(conf)
	for i := range turns {
		c := r.container(fmt.Sprint("k", i), publish8080+`, "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 8000000, "egressBurst": 800000}`)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(took*3/2))))
		r.cni.AddNetworkList(ctx, r.list, c.RuntimeConf) // killed, or done
		cancel()
		if i%2 == 0 {
			r.del(c)
			if slices.Contains(r.links("veth"), attachment{"testnet", c.ContainerID, "eth0"}.link()) {
				t.Fatalf("after ADD number %d and DEL its link is there", i)
			}
		}
		if i%3 == 0 {
			r.gc()
			r.clean()
		}
	}
	r.gc()
	r.clean()
}

// wantBridge fails the test unless the bridge is up with an alias and an MTU.
func (r *rig) wantBridge(alias string, mtu int) {
	r.Helper()
	var links []struct {
		IfAlias string
		MTU     int
		Flags   []string
	}
	testutil.JSON(r, r.host, &links, "ip", "-j", "link", "show", "boxwire0", "up")
	if len(links) != 1 || links[0].IfAlias != alias || links[0].MTU != mtu {
		r.Errorf("the bridge is %+v, want it up, with the alias %q and the MTU %d", links, alias, mtu)
	}
}

// A bridge that was there is used and not changed.
func TestABridgeOfAnotherStays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		alias string
		args  []string
	}{
		{"as it comes", "", nil},
		{"with a hardware address", "", []string{"address", "02:00:00:00:00:01"}},
		{"with an alias", "mine", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, `"mtu": 1400`)
			testutil.Run(t, r.host, "ip", append(append([]string{"link", "add", "boxwire0"}, test.args...), "type", "bridge")...)
			testutil.Run(t, r.host, "ip", "link", "set", "boxwire0", "mtu", "1450", "alias", test.alias)
			c := r.container("c1", publish8080)
			r.add(c)
			r.wantBridge(test.alias, 1450)
			r.del(c)
			r.gc()
			r.wantBridge(test.alias, 1450)
			testutil.Run(t, r.host, "ip", "link", "del", "boxwire0")
			r.gc()
			r.clean()
		})
	}
}
