package main

import (
	"context"
	"fmt"
	"testing"

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
var changes = []uintptr{unix.SYS_WRITE, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_RENAMEAT}

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

// addKilled kills an ADD after a number of steps, and says whether it had as many.
func (r *rig) addKilled(c container, steps int) (killed bool) {
	r.Helper()
	exec := dying{inside{r.host, &version.PluginDecoder{}}, r, steps, &killed}
	cni := libcni.NewCNIConfigWithCacheDir(r.cni.Path, r.dir+"/cache", exec)
	_, err := cni.AddNetworkList(r.Context(), r.list, c.RuntimeConf)
	if !killed && err != nil {
		r.Errorf("an ADD that was to be killed after %d steps: %v", steps, err)
	}
	return killed
}

// What an ADD leaves that is killed after its first step, its second, ... GC takes
// away, and another ADD finishes it and is itself not disturbed.
func TestAnAddThatIsKilledAtAnyStepLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"mtu": 1400`)
	const limits = `, "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 8000000, "egressBurst": 800000}`
	for steps := 1; ; steps++ {
		c := r.container(fmt.Sprint("k", steps), publish8080+limits)
		killed := r.addKilled(c, steps)
		r.gc()
		r.clean()
		if t.Failed() {
			t.Fatalf("so it was after %d steps", steps)
		}
		if !killed {
			if steps < 20 { // two links, their addresses, routes, limits, a network, a port
				t.Errorf("a whole ADD has %d steps", steps)
			}
			return
		}
		r.addKilled(c, steps)
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

// A bridge that was there is used, and stays as it is.
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
