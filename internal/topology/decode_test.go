package topology

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	want := scene(4)
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(bytes.NewReader(b))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read back as %s, %v", text(got), err)
	}
	for _, bad := range []string{"", "x", `{"namespaces":7}`, `{"namespaces":[{"inode":-1}]}`} {
		if s, err := Decode(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read as %s", bad, text(s))
		}
	}
}

// A snapshot from a file may have anything in it, and no writer fails or panics.
func FuzzDecode(f *testing.F) {
	for _, n := range []int{0, 3, 40} {
		b, _ := json.Marshal(scene(n))
		f.Add(b)
	}
	f.Add([]byte(`{"namespaces":[null,{"links":[null,{"name":"a","master":"a"},{"name":"b","master":"c"},{"name":"c","master":"b"}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, write := range []func(io.Writer, *Snapshot) error{WriteTree, WriteSVG, WriteDOT, WriteMermaid} {
			if err := write(io.Discard, s); err != nil {
				t.Error(err)
			}
		}
		if err := WriteDiff(io.Discard, s, scene(2)); err != nil {
			t.Error(err)
		}
		for _, n := range s.Namespaces {
			for i := range n.Ports {
				if err := s.WriteWay(io.Discard, n, &n.Ports[i]); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func text(s *Snapshot) string {
	b, _ := json.MarshalIndent(s, "", " ")
	return string(b)
}
