package machine_test

import (
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

func TestMain(m *testing.M) { machine.Main(m) }

func TestAMachineHasItsOwn(t *testing.T) {
	t.Parallel()
	m := machine.New(t, machine.Config{Name: "alone"})
	for _, c := range []struct {
		want string
		args []string
	}{
		{"alone\n", []string{"hostname"}},
		{"0::/init\n", []string{"grep", "^0::", "/proc/self/cgroup"}},
		{"1 packets received", []string{"busybox", "ping", "-c", "1", "-W", "5", "192.0.2.1"}},
		{"1 packets received", []string{"busybox", "ping", "-c", "1", "-W", "5", "2001:db8:1::1"}},
		{"cgroup2fs\n", []string{"stat", "-f", "-c", "%T", "/sys/fs/cgroup"}},
	} {
		if out := m.Run(t, c.args[0], c.args[1:]...); !strings.Contains(out, c.want) {
			t.Errorf("%v says %q, want %q", c.args, out, c.want)
		}
	}
}
