package docker

import (
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/netns"
)

// withRun is everyone with a box of examples/run in place of ours.
const withRun = `
	             lan   host  run   open  shut  inner
	tcp run4     run   run   run   run   run   -
	tcp run6     run   run   run   run   run   -
	tcp box4     -     run   run   -     -     -
	tcp box6     -     run   run   -     -     -
	tcp dpub4    open  open  open  open  open  -
	tcp dpub6    open  open  open  open  open  -
	tcp shut4    -     shut  -     shut  shut  -
	tcp shut6    -     shut  -     shut  shut  -
	tcp inner4   -     inner -     -     -     inner
	tcp inner6   -     inner -     -     -     inner
	tcp lan4     lan   lan   lan@192.0.2.2 lan@192.0.2.2 lan@192.0.2.2 -
	tcp lan6     lan   lan   lan@2001:db8:1::2 lan@2001:db8:1::2 lan@2001:db8:1::2 -
`

// runs starts a box by examples/run.
func runs(t *testing.T, m *machine.Machine, flags ...string) *machine.Daemon {
	t.Helper()
	args := append([]string{"-name", "run", "-subnet", "172.30.0.0/24", "-subnet", "fd30::/64", "-p", "8090:80"}, flags...)
	d := m.Daemon(t, "run", append(args, "--", "probe", "-name", "run", "-listen", ":80")...)
	d.Ready(t, func() error {
		_, err := m.Try("run", "exec", "run", "probe", "-ask", "tcp", "127.0.0.1:80")
		return err
	})
	return d
}

// withBox adds the names of that box.
func withBox(t *testing.T, m *machine.Machine, w reach.World) reach.World {
	t.Helper()
	ns, err := netns.OpenPath(t.Context(), m.Path("/run/netns/run"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	w.Places["run"] = ns
	w.Targets["run4"], w.Targets["run6"] = "192.0.2.2:8090", "[2001:db8:1::2]:8090"
	w.Targets["box4"], w.Targets["box6"] = "172.30.0.2:80", "[fd30::2]:80"
	return w
}

// A box of examples/run says that Docker's rules cut it off, gets along with -accept-forward, is killed and cleaned up.
func TestRun(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "nft")
	m.Build(t, "./examples/run")
	m.Build(t, "./internal/engines/probe")
	serveAround(t, m)
	e := start(t, m)
	before := rules(t, m)

	d := runs(t, m)
	machine.Until(t, "the warning", func() error { return contains(d.Log(), "run: box run is cut off: ", "FORWARD", "-accept-forward") })
	withBox(t, m, world(t, m, nil, e)).Check(t, "a box without -accept-forward", `
		             lan   host  run
		tcp run4     -     run   -
		tcp lan4     lan   lan   -
		tcp dpub4    open  open  open
	`)
	d.Stop(t)
	unchanged(t, m, before)

	d = runs(t, m, "-accept-forward")
	w := withBox(t, m, world(t, m, nil, e))
	w.Check(t, "a box with -accept-forward", withRun)
	if strings.Contains(d.Log(), "cut off") {
		t.Errorf("run says %s", d.Log())
	}
	w.During(t, "dockerd is killed", `
		             lan   host  run
		tcp run4     run   run   run
		tcp run6     run   run   run
		tcp box4     -     run   run
		tcp lan4     lan   lan   lan
		tcp lan6     lan   lan   lan
	`, func() {
		e.d.Kill(t)
		e.d.Start(t)
		e.back(t)
	})
	withBox(t, m, world(t, m, nil, e)).Check(t, "dockerd was killed and is back", withRun)

	w = world(t, m, nil, e)
	w.During(t, "run is killed", strings.ReplaceAll(theirs, "tcp pub4     -     -     -     -     -", ""), func() {
		d.Kill(t)
		m.Run(t, "run", "gc")
	})
	if out := m.Run(t, "run", "ls"); strings.Contains(out, "172.30") {
		t.Errorf("gc has left %s", out)
	}
	w.Check(t, "run was killed", theirs)
	if left := rules(t, m); strings.Contains(left, "boxwire") {
		t.Errorf("of the box is left:\n%s", left)
	}
}

// contains is an error unless the text has all parts.
func contains(text string, parts ...string) error {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return missing{p, text}
		}
	}
	return nil
}

type missing struct{ part, text string }

// Error says what is missing where.
func (m missing) Error() string { return "there is no " + m.part + " in " + m.text }
