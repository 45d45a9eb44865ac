package machine

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Cache returns a directory that outlives the tests, for what takes long to make, such as programs. Nobody else has it until the test
// ends: another test that asks for the same name waits.
func Cache(t testing.TB, name string) string {
	t.Helper()
	cache, err := cacheDir()
	if err != nil {
		t.Fatalf("machine: %v", err)
	}
	dir := filepath.Join(cache, "programs", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatalf("machine: %v", err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		t.Cleanup(func() { lock.Close() }) // and with it the lock
		for err = unix.EINTR; err == unix.EINTR; {
			err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		}
	}
	if err != nil {
		t.Fatalf("machine: %v", err)
	}
	return dir
}
