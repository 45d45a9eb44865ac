package runner

import (
	"fmt"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// What a run leaves that is killed after its first step, its second, ... in making
// and in removing its box, gc takes away, and so does the next run of the name.
func TestARunThatIsKilledAtAnyStepLeavesNothing(t *testing.T) {
	// It is alone: a test beside it may hold a copy of its mounts, and gc leaves a name that is in use
	// in another mount namespace.
	host := netnstest.New(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := func(name string) []string {
		return []string{"--name", name, "-p", "8080:80", "--rate-up", "8M", "--rate-down", "8M", "--mtu", "1400", "true"}
	}
	kill := func(name string, steps int) bool {
		t.Helper()
		_, killed := testutil.KillAfter(t, host, steps, testutil.Victim{
			Path: exe, Args: append([]string{exe}, args(name)...), Env: programEnv(),
			Steps: append([]uintptr{unix.SYS_MOUNT, unix.SYS_UMOUNT2}, testutil.Messages...),
		})
		return killed
	}
	stride := 1
	if testing.Short() {
		stride = 7
	}
	for steps := 1; ; steps += stride {
		name := fmt.Sprint("k", steps)
		killed := kill(name, steps)
		if got := cli(t, host, "gc"); got.status != 0 {
			t.Errorf("gc ended with %+v", got)
		}
		empty(t, host)
		if t.Failed() {
			t.Fatalf("so it was after %d steps and a gc", steps)
		}
		if !killed {
			if steps < 20 { // two links, their addresses, routes, limits, a network, a port, a name
				t.Errorf("a whole run has %d steps", steps)
			}
			return
		}
		kill(name, steps)
		if got := cli(t, host, args(name)...); got != (result{}) {
			t.Errorf("the next run ended with %+v", got)
		}
		empty(t, host)
		if t.Failed() {
			t.Fatalf("so it was after %d steps and another run", steps)
		}
	}
}
