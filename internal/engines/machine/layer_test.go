package machine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"golang.org/x/sys/unix"
)

// hello is a small package of Debian that no machine has.
const hello = "hello"

// cacheIn has the child processes of a test use a cache of its own.
func cacheIn(dir string) string { return "BOXWIRE_ENGINES_CACHE=" + dir }

// layersIn lists a cache.
func layersIn(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestPackagesAreInstalledOnce(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	old, used := filepath.Join(dir, "000000000000-aa"), filepath.Join(dir, "000000000000-bb")
	for _, layer := range []string{old, used, old + ".part"} {
		if err := os.MkdirAll(layer+"/usr", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(old+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(used + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	var made os.FileInfo
	for i := range 2 {
		if out, err := child(t, "TestHasHello", cacheIn(dir)).CombinedOutput(); err != nil || !strings.Contains(string(out), "engine hello: hello (GNU Hello)") {
			t.Fatalf("run %d: %v\n%s", i, err, out)
		}
		layers, _ := filepath.Glob(dir + "/*/usr/bin/hello")
		if len(layers) != 1 {
			t.Fatalf("the cache has %s, and hello as %v", layersIn(t, dir), layers)
		}
		info, err := os.Stat(filepath.Dir(filepath.Dir(filepath.Dir(layers[0]))))
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && (!os.SameFile(made, info) || !made.ModTime().Equal(info.ModTime())) {
			t.Error("it was installed again")
		}
		made = info
	}
	for _, gone := range []string{old, old + ".part", old + ".lock"} {
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s of another state of the real machine: %v", gone, err)
		}
	}
	if _, err := os.Stat(used); err != nil {
		t.Errorf("a layer in use: %v", err)
	}
}

// Machines with the same packages are there at the same time, also if both had to wait for the layer.
func TestMachinesShareALayer(t *testing.T) {
	t.Parallel()
	needRoot(t)
	if out, err := child(t, "TestHasTwoWithHello", cacheIn(t.TempDir())).CombinedOutput(); err != nil || strings.Contains(string(out), "SKIP") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestHasTwoWithHello(t *testing.T) {
	onlyChild(t)
	t.Run("machines", func(t *testing.T) {
		var both sync.WaitGroup
		both.Add(2)
		for _, name := range []string{"one", "two"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				m := machine.New(t, machine.Config{Name: name, Packages: []string{hello}})
				both.Done()
				both.Wait()
				m.Run(t, "hello")
			})
		}
	})
}

func TestHasHello(t *testing.T) {
	onlyChild(t)
	m := machine.New(t, machine.Config{Packages: []string{hello}, Version: []string{"hello", "--version"}})
	if out := m.Run(t, "hello"); out != "Hello, world!\n" {
		t.Errorf("hello says %q", out)
	}
}

func TestNothingIsLeftOfAKilledInstallation(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	cmd := child(t, "TestHasHello", cacheIn(dir))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	machine.Until(t, "the installation begins", func() error {
		if parts, _ := filepath.Glob(dir + "/*.part/var/lib"); len(parts) == 0 {
			return errors.New(layersIn(t, dir))
		}
		return nil
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	machine.Until(t, "something is left", func() error {
		for _, word := range strings.Fields(layersIn(t, dir)) {
			if !strings.HasSuffix(word, ".lock") && word != "mnt" {
				return errors.New(word)
			}
		}
		return nil
	})
}

// A package that is not there fails the test, or skips it where that is allowed by name.
func TestMissing(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	out, err := child(t, "TestHasNoSuchPackage", cacheIn(dir)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "nonesuch is missing: installing boxwire-no-such-package") || !strings.Contains(string(out), "Unable to locate package") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = child(t, "TestHasNoSuchPackage", cacheIn(dir), "BOXWIRE_ENGINES_ALLOW_MISSING=other,nonesuch").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- SKIP: TestHasNoSuchPackage") {
		t.Errorf("allowed: %v\n%s", err, out)
	}
}

func TestHasNoSuchPackage(t *testing.T) {
	onlyChild(t)
	machine.New(t, machine.Config{Engine: "nonesuch", Packages: []string{"boxwire-no-such-package"}})
}

// An engine that does not start fails the test with its version and log.
func TestAnEngineThatDoesNotStart(t *testing.T) {
	t.Parallel()
	needRoot(t)
	out, err := child(t, "TestHasABrokenEngine").CombinedOutput()
	for _, part := range []string{"engine broken: 1.0", "broken (1.0) is missing: sh cannot start: sh ended: exit status 7", "it said why"} {
		if err == nil || !strings.Contains(string(out), part) {
			t.Errorf("%v, there is no %q in\n%s", err, part, out)
		}
	}
}

func TestHasABrokenEngine(t *testing.T) {
	onlyChild(t)
	m := machine.New(t, machine.Config{Engine: "broken", Version: []string{"echo", "1.0"}})
	d := m.Daemon(t, "sh", "-c", "echo it said why; exit 7")
	d.Ready(t, func() error { return errors.New("not yet") })
}
