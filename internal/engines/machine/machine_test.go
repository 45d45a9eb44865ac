package machine_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/netns/netnstest"
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
		{"alone\n", []string{"cat", "/etc/hostname"}},
		{"0::/init\n", []string{"grep", "^0::", "/proc/self/cgroup"}},
		{"cgroup2fs\n", []string{"stat", "-f", "-c", "%T", "/sys/fs/cgroup"}},
		{"lo\n", []string{"ls", "/sys/class/net"}},
		{"eth0\n", []string{"ls", "/sys/class/net"}},
		{"/\n", []string{"pwd"}},
		{"nameserver 192.0.2.1\n", []string{"cat", "/etc/resolv.conf"}},
	} {
		if out := m.Run(t, c.args[0], c.args[1:]...); !strings.Contains(out, c.want) {
			t.Errorf("%v says %q, want %q", c.args, out, c.want)
		}
	}
	for _, empty := range []string{"/home", "/root", "/usr/local", "/var/lib/docker", "/tmp"} {
		if out := m.Run(t, "ls", "-A", empty); out != "" {
			t.Errorf("%s has %q", empty, out)
		}
	}
	addresses := []string{"192.0.2.2"}
	if netnstest.HasIPv6() {
		addresses = append(addresses, "[2001:db8:1::2]")
	}
	for _, a := range addresses {
		ln, err := m.NS.Listen(t.Context(), "tcp", a+":80")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := m.LAN.Dial(t.Context(), "tcp", a+":80")
		if err != nil {
			t.Fatalf("from the LAN: %v", err)
		}
		c.Close()
	}
}

func TestWritesStayInside(t *testing.T) {
	t.Parallel()
	const inside = "/etc/boxwire-engines-test/file"
	a, b := machine.New(t, machine.Config{}), machine.New(t, machine.Config{})
	a.WriteFile(t, inside, "one", 0o640)
	if got := a.ReadFile(t, inside); got != "one" {
		t.Errorf("%s has %q", inside, got)
	}
	if got := a.Run(t, "stat", "-c", "%a", inside); got != "640\n" {
		t.Errorf("its mode is %s", got)
	}
	if b, err := os.ReadFile(a.Path(inside)); err != nil || string(b) != "one" {
		t.Errorf("from outside it has %q, %v", b, err)
	}
	for _, other := range []string{inside, b.Path(inside)} {
		if _, err := os.Lstat(other); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", other, err)
		}
	}
	a.Run(t, "rm", "/etc/passwd")
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(b.Path("/etc/passwd")); err != nil {
		t.Error(err)
	}
}

func TestTryTellsHowAProgramEnds(t *testing.T) {
	t.Parallel()
	m := machine.New(t, machine.Config{})
	out, err := m.Try("sh", "-c", "echo out; echo err >&2; exit 3")
	var exit *exec.ExitError
	if out != "out\nerr\n" || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := m.Try("no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a program that is not there: %v", err)
	}
	cmd := m.Command("sh", "-c", "cat; echo $A")
	cmd.Env, cmd.Stdin = append(cmd.Env, "A=b"), strings.NewReader("in\n")
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout = file
	if err := m.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(file.Name()); string(b) != "in\nb\n" {
		t.Errorf("it wrote %q", b)
	}
}

func TestBuildIsInThePath(t *testing.T) {
	t.Parallel()
	m := machine.New(t, machine.Config{})
	if got := m.Build(t, "./internal/engines/probe"); got != "/usr/local/bin/probe" {
		t.Errorf("it is at %s", got)
	}
	if out, err := m.Try("probe"); err == nil || !strings.Contains(out, "-listen, -http or -ask") {
		t.Errorf("%s, %v", out, err)
	}
}

// The orphans of daemons have a parent that waits for them.
func TestInitReaps(t *testing.T) {
	t.Parallel()
	m := machine.New(t, machine.Config{})
	m.Run(t, "sh", "-c", "(sh -c 'exit 0' &) ; exit 0")
	machine.Until(t, "no zombie", func() error {
		if out := m.Run(t, "ps", "-e", "-o", "stat="); strings.Contains(out, "Z") {
			return errors.New(out)
		}
		return nil
	})
}

// A test can start a program as soon as it is installed, while other tests start programs.
func TestInstalledProgramsStart(t *testing.T) {
	t.Parallel()
	m := machine.New(t, machine.Config{})
	file := machine.BuildProgram(t, "./internal/engines/probe")
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				_ = exec.Command("/bin/true").Run()
			}
		}
	}()
	defer func() { close(stop); <-ended }()
	for range 200 {
		if out, err := m.Try(m.Install(t, file), "-h"); err != nil && strings.Contains(err.Error(), "busy") {
			t.Fatalf("%s, %v", out, err)
		}
	}
}
