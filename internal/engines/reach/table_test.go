package reach

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// recorder keeps what a table says.
type recorder struct {
	testing.TB
	failed bool
	out    string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failed = true
	r.out += fmt.Sprintf(format, args...)
}
func (r *recorder) Logf(format string, args ...any) { r.out += fmt.Sprintf(format, args...) }

func TestTable(t *testing.T) {
	t.Parallel()
	host, boxes := netnstest.Bridge(t, 2)
	Serve(t, boxes[0].NS, "web", ":80")
	Serve(t, boxes[1].NS, "db", ":80")
	addr := func(b netnstest.Box, port string) string { return b.Addr4.Addr().String() + port }
	w := World{
		Places:  map[string]*netns.NS{"host": host.NS, "db": boxes[1].NS},
		Targets: map[string]string{"web": addr(boxes[0], ":80"), "none": addr(boxes[0], ":81")},
	}
	w.Check(t, "all", strings.ReplaceAll(`
	            host  db
		tcp web web   web@DB
		udp web web   .
		tcp none -    -
		udp none -    -
	`, "DB", boxes[1].Addr4.Addr().String()))

	held := w.Hold(t, "db", "web")
	w.During(t, "during", `
	            host  db
		tcp web web   web
		udp web web   .
		tcp none -    -
	`, func() { held.Check(t, "first") })
	held.Check(t, "second")
	leaks := &recorder{TB: t}
	w.During(leaks, "leaks", "host\ntcp web -\ntcp none -", func() {})
	if !leaks.failed || !strings.Contains(leaks.out, "1 answers are wrong") {
		t.Errorf("a wrong table says %q", leaks.out)
	}

	wrong := &recorder{TB: t}
	w.Check(wrong, "wrong", `
	            host  db
		tcp web -     db
		udp none -    .
	`)
	for _, part := range []string{"2 answers are wrong", "web (want -)", "ip neigh in db:\n", boxes[1].Addr4.String() + " "} {
		if !wrong.failed || !strings.Contains(wrong.out, part) {
			t.Errorf("a wrong table says %q, want %q", wrong.out, part)
		}
	}
	for _, table := range []string{"host\ntcp nowhere -", "nobody\ntcp web -", "host\ntcp web"} {
		if _, err := w.parse(table); err == nil {
			t.Errorf("%q is taken", table)
		}
	}
}
