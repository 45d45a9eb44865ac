package nl

import (
	"slices"
	"testing"
)

// Steps of a dump: the part of an entry or a change, with what happens there.
type splitStep struct {
	what byte // 'b'oundary, 'r'esume, 'c'hange
	part uint32
	want bool // the dump is invalid
}

// other is a part that counts for nothing.
const other = 0

func TestSplitGuard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps     []splitStep
		continued []uint32
	}{
		"a boundary, then a change":         {[]splitStep{{'b', 1, false}, {'c', 1, true}}, nil},
		"a change, then a boundary":         {[]splitStep{{'c', 1, false}, {'b', 1, true}}, nil},
		"a change in another part":          {[]splitStep{{'b', 1, false}, {'c', 2, false}, {'b', 3, false}}, nil},
		"of two parts":                      {[]splitStep{{'b', 1, false}, {'b', 2, false}, {'c', 1, true}, {'c', 2, true}}, nil},
		"a change of no interest":           {[]splitStep{{'b', 1, false}, {'c', other, false}, {'b', other, false}, {'c', other, false}}, nil},
		"goes on in the part":               {[]splitStep{{'b', 1, false}, {'r', 1, false}, {'b', 1, false}, {'r', 1, false}}, []uint32{1, 1}},
		"goes on in another":                {[]splitStep{{'b', 1, false}, {'r', 2, false}}, nil},
		"goes on behind one of no interest": {[]splitStep{{'b', other, false}, {'r', other, false}, {'r', 1, false}}, nil},
	} {
		part := func(m Message) (uint32, bool) { return m.Seq, m.Seq != other }
		var continued []uint32
		g := &SplitGuard[uint32]{Boundary: part, Change: part, Continue: func(k uint32) { continued = append(continued, k) }}
		for range 2 { // the second try knows nothing of the first
			continued = nil
			g.begin()
			for i, s := range c.steps {
				m, got := Message{Seq: s.part}, false
				switch s.what {
				case 'b':
					got = g.boundary(m)
				case 'r':
					g.resume(m)
				case 'c':
					got = g.change(m)
				}
				if got != s.want {
					t.Errorf("%s, step %d: invalid is %t", name, i, got)
				}
			}
			if !slices.Equal(continued, c.continued) {
				t.Errorf("%s: continued in %v, want %v", name, continued, c.continued)
			}
		}
	}
}
