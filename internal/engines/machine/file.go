package machine

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	if err := m.write(path, strings.NewReader(content), mode); err != nil {
		t.Fatalf("machine: %v", err)
	}
}

// write writes a file of the machine, which may be executed at once. A process that another test starts meanwhile
// would have the file open for a moment, too, and the kernel executes none that is open for writing (ETXTBSY). So
// it keeps processes from being started.
func (m *Machine) write(path string, content io.Reader, mode os.FileMode) error {
	return m.do(func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Chmod(mode), f.Close())
	})
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
