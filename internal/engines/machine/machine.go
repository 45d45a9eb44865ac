package machine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Config says what a machine is. The zero Config is a machine with the real one's programs.
type Config struct {
	// Name is the host name, "host" by default.
	Name string

	// Packages are Debian's packages that are installed, in any order.
	Packages []string

	// Engine is the program that the test is about, e.g. "docker", as
	// BOXWIRE_ENGINES_ALLOW_MISSING names it. By default it is the first package.
	Engine string

	// Controllers says that programs need controllers of cgroups, such as cpu and memory. Where the real machine
	// has them in hierarchies of version 1, the machine has these too, and the unified one at
	// /sys/fs/cgroup/unified.
	Controllers bool

	// Version is a command that prints the engine's version. New logs it.
	Version []string
}

// Machine is a set of namespaces over a root of its own, with programs in it.
type Machine struct {
	// NS is the machine's network namespace. It has lo, and eth0 with 192.0.2.2/24 and
	// 2001:db8:1::2/64. Its default routes lead to LAN.
	NS *netns.NS

	// LAN is a neighbour of the machine. It has lo, and eth0 with 192.0.2.1/24 and
	// 2001:db8:1::1/64, and no route to what is behind the machine.
	LAN *netns.NS

	t          testing.TB
	config     Config
	pid        int // of the machine's init, in the test's pid namespace
	pidfd      int
	cgroup     *os.File // where the machine's processes begin
	version    string
	supervisor *supervisor
}

// New makes a machine that ends with the test. A package that cannot be installed fails the test,
// see Missing. Without root the test is skipped.
func New(t testing.TB, config Config) *Machine {
	t.Helper()
	if !inMain {
		t.Fatal("machine: TestMain must call machine.Main")
	}
	if os.Geteuid() != 0 {
		t.Skip("machine: only root can make a machine: it mounts overlays and changes its root")
	}
	if config.Name == "" {
		config.Name = "host"
	}
	if config.Engine == "" && len(config.Packages) > 0 {
		config.Engine = config.Packages[0]
	}
	m := &Machine{t: t, config: config, pidfd: -1}
	s, err := startSupervisor(request{Name: config.Name, Packages: config.Packages, Controllers: config.Controllers})
	if err != nil {
		if s != nil && s.missing {
			m.Missing(t, err)
		}
		t.Fatalf("machine: %v", err)
	}
	m.supervisor, m.pid = s, s.pid
	t.Cleanup(func() { m.close(t) })
	if err := m.open(t); err != nil {
		t.Fatalf("machine: %v\n%s", err, s.log())
	}
	m.wire(t)
	if len(config.Version) > 0 {
		m.LogVersion(t, config.Version[0], config.Version[1:]...)
	}
	return m
}

// open opens the handles through which the test acts in the machine.
func (m *Machine) open(t testing.TB) (err error) {
	if m.pidfd, err = unix.PidfdOpen(m.pid, 0); err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	if m.NS, err = netns.OpenPid(t.Context(), m.pid); err != nil {
		return err
	}
	if m.cgroup, err = os.Open(m.Path(cgroupDir + "/" + initCgroup)); errors.Is(err, os.ErrNotExist) {
		m.cgroup, err = os.Open(m.Path(cgroupDir + "/" + unifiedCgroup + "/" + initCgroup))
	}
	return err
}

// close ends everything in the machine.
func (m *Machine) close(t testing.TB) {
	if m.cgroup != nil {
		m.cgroup.Close()
	}
	if m.pidfd >= 0 {
		unix.Close(m.pidfd)
	}
	for _, ns := range []*netns.NS{m.NS, m.LAN} {
		if ns != nil {
			ns.Close()
		}
	}
	if err := m.supervisor.stop(); err != nil {
		t.Errorf("machine: ending: %v\n%s", err, m.supervisor.log())
	}
}

// Pid is the process id of the machine's init as the test sees it.
func (m *Machine) Pid() int { return m.pid }

// LogVersion runs a command that prints the engine's version, for an engine that the test installs itself. New
// does so with Config.Version.
func (m *Machine) LogVersion(t testing.TB, name string, args ...string) {
	t.Helper()
	out, err := m.Try(name, args...)
	if err != nil {
		m.Missing(t, fmt.Errorf("%w\n%s", err, out))
	}
	m.version = strings.TrimSpace(out)
	recordVersion(t, m.config.Engine, m.version)
}
