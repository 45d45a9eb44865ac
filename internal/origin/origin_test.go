package origin

import (
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/allocs"
)

func TestNote(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fd := int(r.Fd())
	Note(fd)
	if s := Of(fd); s != "" {
		t.Errorf("noted without being asked: %s", s)
	}
	Remember()
	defer on.Store(false)
	Note(fd)
	if s := Of(fd); !strings.Contains(s, "TestNote") {
		t.Errorf("the stack is %q", s)
	}
	if s := Of(int(w.Fd())); s != "" {
		t.Errorf("another descriptor's is %q", s)
	}
	r.Close()
	if s := Of(fd); s != "" && What(fd) != "" {
		t.Errorf("the number is another's, and its stack is %q", s)
	}
	on.Store(false)
	if n := allocs.PerRun(t, 100, func() { Note(fd) }); n != 0 {
		t.Errorf("%v allocations when it is off", n)
	}
}
