package race

import (
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

// Runner is examples/run: it begins on a machine without its bridge and table, and ends with the first answer of the server.
func Runner(b *testing.B, m *machine.Machine) Contender {
	b.Helper()
	run, probe := m.Build(b, "./examples/run"), m.Build(b, "./internal/engines/probe")
	return Contender{Name: "run", Round: func(b *testing.B, name string) (d time.Duration) {
		b.Helper()
		var process *machine.Daemon
		d = Took(func() {
			process = m.Daemon(b, run, "-name", name, "-bridge", "boxwire2", "-subnet", "172.30.2.0/24", "-accept-forward",
				"-p", "0.0.0.0:8080:80", "--", probe, "-name", name, "-http", ":80")
			Answered(b, m, name)
		})
		process.Stop(b)
		Gone(b, m)
		return d
	}}
}
