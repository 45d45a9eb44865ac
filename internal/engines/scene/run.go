package scene

import (
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

// Run is a process of ours: examples/run with a box on a bridge of its own, boxwire2, and the published port 8090.
type Run struct {
	h *Host
	d *machine.Daemon
}

// runTable is who reaches the box of Run.
const runTable = `
	           lan  host  box0  inner0
	tcp run4   web  web   web   -
	tcp run6   web  web   web   -
	tcp direct -    web   -     -
`

// Run starts examples/run.
func (h *Host) Run(t testing.TB) *Run {
	t.Helper()
	program, probe := h.M.Build(t, "./examples/run"), h.M.Build(t, "./internal/engines/probe")
	r := &Run{h: h, d: h.M.Daemon(t, program, "-bridge", "boxwire2", "-subnet", "172.30.2.0/24", "-subnet", "fd30:2::/64",
		"-ip", "172.30.2.9", "-ip", "fd30:2::9", "-name", "web", "-p", "8090:80", "--", probe, "-name", "web", "-listen", ":80")}
	return r
}

// Check checks who reaches the box.
func (r *Run) Check(t testing.TB, when string) {
	t.Helper()
	select {
	case <-r.d.Done():
		t.Fatalf("scene: %s: examples/run has ended:\n%s", when, r.d.Log())
	default:
	}
	r.h.CheckReach(t, when, runTable)
}

// Kill kills the process and starts it again. The first one leaves the box, and the second takes its place.
func (r *Run) Kill(t testing.TB) {
	t.Helper()
	r.d.Kill(t)
	r.h.M.Run(t, "run", "gc")
	r.d.Start(t)
}

// Stop ends the process, which takes away all that is its own.
func (r *Run) Stop(t testing.TB) {
	t.Helper()
	r.d.Stop(t)
}
