package scene

import (
	"fmt"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

// DBus starts the system's message bus.
func DBus(t testing.TB, m *machine.Machine) {
	t.Helper()
	m.Run(t, "mkdir", "-p", "/run/dbus")
	m.Run(t, "dbus-uuidgen", "--ensure=/etc/machine-id")
	d := m.Daemon(t, "dbus-daemon", "--system", "--nofork", "--nopidfile")
	d.Ready(t, func() error {
		out, err := m.Try("dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.GetId")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}
