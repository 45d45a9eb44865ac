package failures

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// A machine with a copy of another one's state directory refuses to be that node, and says where the node runs. It changes nothing
// in its own kernel, and nobody else notices.
func TestIdentityIsCloned(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 1}})
	a, b := w.nodes[0], w.nodes[1]
	before := w.settled(a, b)
	s := w.traffic(a, b)

	clone := w.add(0)
	w.must(os.CopyFS(clone.dir, os.DirFS(a.dir)))
	count := w.watch(a, b, clone)
	w.must(clone.Start())
	status, err := clone.Wait(w.soon())
	w.must(err)
	if want := fmt.Sprintf("process %d ", a.Pid()); status != 1 || !strings.Contains(clone.Output(), want) {
		t.Errorf("the copy ended with status %d, want 1 and that it names %q:\n%s", status, want, clone.Output())
	}
	s.passes(100)

	after := w.settled(a, b)
	id := a.id()
	if !after.Nodes[id].Equal(before.Nodes[id]) || after.Alive[id] != before.Alive[id] {
		t.Errorf("the store has %+v of the first, it had %+v", after.Nodes[id], before.Nodes[id])
	}
	if s, err := a.state(); err != nil || !s.Ready {
		t.Errorf("the first is %+v, %v", s, err)
	}
	count.none()
	s.whole()
}
