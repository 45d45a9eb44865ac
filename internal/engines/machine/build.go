package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Build builds a Go program without cgo and puts it into the machine at /usr/local/bin, whose path it
// returns. A package that begins with "./" is one of the repository, in whichever module;
// another is an import path that the module internal/engines knows.
func (m *Machine) Build(t testing.TB, pkg string) string {
	t.Helper()
	return m.Install(t, BuildProgram(t, pkg))
}

// BuildProgram is Build without the machine: it returns the path of a file that the test removes.
func BuildProgram(t testing.TB, pkg string) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("machine: go env GOMOD: %v", err)
	}
	module := filepath.Dir(strings.TrimSpace(string(out)))
	dir, target := module, pkg
	if strings.HasPrefix(pkg, "./") {
		dir, target = filepath.Join(module, "../..", pkg), "."
	}
	file := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", file, target)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("machine: building %s: %v\n%s", pkg, err, out)
	}
	return file
}

// Install copies a program of the test into the machine at /usr/local/bin, whose path it returns.
func (m *Machine) Install(t testing.TB, file string) string {
	t.Helper()
	to := "/usr/local/bin/" + filepath.Base(file)
	from, err := os.Open(file)
	if err != nil {
		t.Fatalf("machine: %v", err)
	}
	defer from.Close()
	if err := m.write(to, from, 0o755); err != nil {
		t.Fatalf("machine: %v", err)
	}
	return to
}
