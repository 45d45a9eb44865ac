package udev

import (
	"testing"

	"github.com/boxwire/boxwire/internal/engines/scene"
)

// Forty boxes keep their connections, whatever udevd does, whether it or the boxes were there first.
func TestFortyBoxesBesideUdevd(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	withGlobs(t, m)
	udevd := scene.Udev(t, m)
	h := scene.New(t, m, 40)
	scene.Settle(t, m)
	h.Check(t, "made beside udevd")
	run := h.Run(t)
	run.Check(t, "made beside udevd")
	scene.Settle(t, m)
	made := h.State(t)

	for _, step := range []struct {
		what string
		do   func()
	}{
		{"all links reported as changed", func() { scene.Trigger(t, m, "change") }},
		{"all links reported as new", func() { scene.Trigger(t, m, "add") }},
		{"rules read again", func() { m.Run(t, "udevadm", "control", "--reload") }},
		{"udevd restarted", func() {
			udevd.Restart(t)
			scene.UdevReady(t, m, udevd)
			scene.Trigger(t, m, "add")
		}},
		{"udevd killed", func() { udevd.Kill(t) }},
		{"udevd started again", func() {
			udevd.Start(t)
			scene.UdevReady(t, m, udevd)
			scene.Trigger(t, m, "add")
		}},
		{"our program begun anew", func() { h.Reopen(t) }},
	} {
		h.During(t, step.what, step.do)
		scene.CheckState(t, step.what, made, h.State(t))
	}
	run.Kill(t)
	h.Check(t, "our programs begun anew")
	run.Check(t, "our programs begun anew")
	run.Stop(t)
	h.Remove(t)
}

// A boot is the other order: udevd is told of links that are there already.
func TestUdevdComesAfterTheBoxes(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	before := (&scene.Host{M: m, NS: m.NS}).State(t)
	h := scene.New(t, m, 5)
	h.Check(t, "without udevd")
	made := h.State(t)
	scene.Udev(t, m)
	h.Check(t, "with udevd")
	scene.CheckState(t, "with udevd", made, h.State(t))
	h.Remove(t)
	scene.CheckState(t, "removed", before, h.State(t))
}
