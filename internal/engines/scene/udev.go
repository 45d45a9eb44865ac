package scene

import (
	"fmt"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

// Udevd is where Debian has systemd-udevd.
const Udevd = "/lib/systemd/systemd-udevd"

// Udev starts systemd-udevd and has it handle the links that are there, as a boot does.
func Udev(t testing.TB, m *machine.Machine) *machine.Daemon {
	t.Helper()
	d := m.Daemon(t, Udevd)
	UdevReady(t, m, d)
	Trigger(t, m, "add")
	return d
}

// UdevReady waits until a systemd-udevd that was started answers.
func UdevReady(t testing.TB, m *machine.Machine, d *machine.Daemon) {
	t.Helper()
	d.Ready(t, func() error {
		out, err := m.Try("udevadm", "control", "--ping")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// Trigger has the kernel report all links again, and waits until systemd-udevd has handled them.
func Trigger(t testing.TB, m *machine.Machine, action string) {
	t.Helper()
	m.Run(t, "udevadm", "trigger", "--action="+action, "--subsystem-match=net")
	Settle(t, m)
}

// Settle waits until systemd-udevd has handled all events so far.
func Settle(t testing.TB, m *machine.Machine) {
	t.Helper()
	m.Run(t, "udevadm", "settle", "--timeout=60")
}
