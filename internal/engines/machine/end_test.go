package machine_test

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

// childEnv tells a test that it is run by another one, as a process of its own.
const childEnv = "BOXWIRE_ENGINES_TEST_CHILD"

// child prepares another run of one test of this program, with its own directory for files.
func child(t *testing.T, name string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+name+"$", "-test.v", "-test.parallel=4")
	cmd.Env = append(append(os.Environ(), childEnv+"=1", "TMPDIR="+t.TempDir()), env...)
	return cmd
}

// onlyChild skips the test where it is not run by another one.
func onlyChild(t *testing.T) {
	t.Helper()
	if os.Getenv(childEnv) == "" {
		t.Skip("another test runs it")
	}
}

// needRoot skips the test where no machine can be made.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a machine")
	}
}

// traces are what a machine is on the real machine: its namespaces and its cgroup.
type traces struct {
	namespaces map[string]bool // "net:[4026532882]"
	cgroup     string          // its name
}

// tracesOf looks at the machine's init.
func tracesOf(t *testing.T, pid int) traces {
	t.Helper()
	tr := traces{namespaces: make(map[string]bool)}
	for _, kind := range []string{"mnt", "net", "pid", "uts", "ipc", "cgroup"} {
		of := func(pid string) string {
			s, err := os.Readlink("/proc/" + pid + "/ns/" + kind)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := of(strconv.Itoa(pid))
		if s == of("self") {
			t.Errorf("the machine has the real one's namespace %s", s)
		}
		tr.namespaces[s] = true
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			_, rest, _ := strings.Cut(path, "boxwire-engines-")
			tr.cgroup = "boxwire-engines-" + strings.Split(strings.TrimSpace(rest), "/")[0]
		}
	}
	return tr
}

// left is an error that says what of the machine is still there.
func (tr traces) left() error {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		links, _ := filepath.Glob(p + "/ns/*")
		for _, l := range links {
			if ns, err := os.Readlink(l); err == nil && tr.namespaces[ns] {
				cmdline, _ := os.ReadFile(p + "/cmdline")
				return fmt.Errorf("%s is %s, of %q", l, ns, cmdline)
			}
		}
	}
	var err error
	filepath.WalkDir("/sys/fs/cgroup", func(path string, _ fs.DirEntry, _ error) error {
		if filepath.Base(path) == tr.cgroup {
			err = fmt.Errorf("the cgroup %s is there", path)
		}
		return nil
	})
	return err
}

// mounts are the real machine's, without the numbers of mounts, which may change in their order.
func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A test that ends takes its machine along, with all that the programs in it have started and made.
func TestNothingIsLeft(t *testing.T) {
	needRoot(t)
	before := mounts(t)
	var tr traces
	t.Run("machine", func(t *testing.T) {
		m := machine.New(t, machine.Config{Controllers: true})
		tr = tracesOf(t, m.Pid())
		busy(t, m)
	})
	if err := tr.left(); err != nil {
		t.Error(err)
	}
	if after := mounts(t); after != before {
		t.Errorf("mounts were\n%s\nand are\n%s", before, after)
	}
}

// busy has programs do in the machine what engines do.
func busy(t *testing.T, m *machine.Machine) {
	t.Helper()
	m.Daemon(t, "sleep", "1000")
	m.Run(t, "sh", "-c", `
		set -e
		setsid sleep 1000 >/dev/null 2>&1 &
		mkdir -p /run/netns /mnt/m
		groups=
		for dir in /sys/fs/cgroup /sys/fs/cgroup/*; do
			if [ -e $dir/cgroup.procs ] && mkdir -p $dir/engine/inner; then groups="$groups $dir/engine/inner"; fi
		done
		for dir in $groups; do # one of the controller cpuset takes no process yet
			sh -c 'echo $$ >$0/cgroup.procs || true; exec sleep 1000' $dir >/dev/null 2>&1 &
		done
		mount -t tmpfs tmpfs /mnt/m
		touch /mnt/m/ns
		unshare --net=/mnt/m/ns true
	`)
}

// So does a test that is killed.
func TestNothingIsLeftOfAKilledTest(t *testing.T) {
	t.Parallel()
	needRoot(t)
	cmd := child(t, "TestHasAMachineUntilItIsKilled")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		if s, ok := strings.CutPrefix(lines.Text(), "init "); ok {
			pid, _ = strconv.Atoi(s)
		}
	}
	if pid == 0 {
		cmd.Process.Kill()
		t.Fatalf("the test has no machine: %v", cmd.Wait())
	}
	tr := tracesOf(t, pid)
	if tr.left() == nil {
		t.Error("the machine leaves no traces while it is there")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	machine.Until(t, "something is left", tr.left)
}

func TestHasAMachineUntilItIsKilled(t *testing.T) {
	onlyChild(t)
	m := machine.New(t, machine.Config{Controllers: true})
	busy(t, m)
	fmt.Printf("init %d\n", m.Pid())
	select {}
}
