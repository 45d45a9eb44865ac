package machine

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Path is where the test sees a file of the machine. Absolute links in the machine lead
// elsewhere on that way.
func (m *Machine) Path(path string) string {
	return "/proc/" + strconv.Itoa(m.pid) + "/root" + filepath.Clean("/"+path)
}

// WriteFile writes a file of the machine. Directories above it are made.
func (m *Machine) WriteFile(t testing.TB, path, content string, mode os.FileMode) {
	t.Helper()
	err := m.do(func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		syscall.ForkLock.RLock() // as Install does: it may be a script
		defer syscall.ForkLock.RUnlock()
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			return err
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		t.Fatalf("machine: %v", err)
	}
}

// ReadFile reads a file of the machine.
func (m *Machine) ReadFile(t testing.TB, path string) string {
	t.Helper()
	var b []byte
	err := m.do(func() (err error) {
		b, err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatalf("machine: %v", err)
	}
	return string(b)
}
