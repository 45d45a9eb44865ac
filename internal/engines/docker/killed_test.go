package docker

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// changesEnv has TestChanges change the table of its network namespace without an end.
const changesEnv = "BOXWIRE_ENGINES_TEST_CHANGES"

// A program that is killed while it changes the table, again and again, leaves theirs whole, and ours to be taken over.
func TestLibraryIsKilled(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "nft")
	serveAround(t, m)
	e := start(t, m)
	before := rules(t, m)
	b := newBoxes(t, m)
	b.accept(t)
	w := world(t, m, b, e)
	// Ports of others come and go, and so do the accepts.
	w.During(t, "programs are killed", `
		             lan   host  open  shut  inner
		tcp pub4     .     web   .     .     -
		tcp dpub4    open  open  open  open  -
		udp dpub4    open  open  -     -     -
		tcp dpub6    open  open  open  open  -
		tcp shut4    -     shut  shut  shut  -
		tcp shut6    -     shut  shut  shut  -
		tcp inner4   -     inner -     -     inner
		tcp inner6   -     inner -     -     inner
		tcp web4     -     web   -     -     -
		tcp lan4     lan   lan   lan@192.0.2.2 lan@192.0.2.2 -
	`, func() {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		program := m.Install(t, self)
		for i := range 12 {
			killed(t, m, program, 1+3*i)
		}
	})
	b.accept(t)
	if err := b.gw.UnpublishOwner(t.Context(), "other"); netns.IgnoreNotExist(err) != nil {
		t.Fatal(err)
	}
	w.Check(t, "programs were killed", everyone)
	b.remove(t, m)
	unchanged(t, m, before)
}

// killed runs TestChanges as a process in the machine, and kills it after some changes.
func killed(t *testing.T, m *machine.Machine, program string, changes int) {
	t.Helper()
	cmd := m.Command(program, "-test.run=^TestChanges$")
	cmd.Env = append(cmd.Env, changesEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(cmd); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var said []string
	for done := 0; done < changes && lines.Scan(); {
		if said = append(said, lines.Text()); lines.Text() == "changed" {
			done++
		}
	}
	err = cmd.Process.Kill()
	cmd.Wait()
	if err != nil || len(said) == 0 || said[len(said)-1] != "changed" {
		t.Fatalf("the program that is to be killed: %v\n%s", err, strings.Join(said, "\n"))
	}
}

func TestChanges(t *testing.T) {
	if os.Getenv(changesEnv) == "" {
		t.Skip("another test runs it")
	}
	ctx := t.Context()
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	gw, err := nat.Open(ctx, ns, nat.Options{Alive: func(owner string) bool { return owner != "other" }})
	if err != nil {
		t.Fatal(err)
	}
	other := port(nat.TCP, "0.0.0.0:8099", "172.30.0.3:80")
	other.Owner = "other"
	for {
		for _, change := range []func() error{
			func() error { return gw.RevokeForward(ctx) },
			func() error { return gw.Publish(ctx, other) },
			func() error { return gw.AcceptForward(ctx) },
			func() error { return gw.UnpublishOwner(ctx, "other") },
			func() error { return gw.SetNetwork(ctx, network) },
		} {
			if err := change(); err != nil {
				t.Fatal(err)
			}
			fmt.Println("changed")
		}
	}
}
