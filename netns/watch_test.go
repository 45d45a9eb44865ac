package netns

import (
	"fmt"
	"strings"
	"testing"
)

func TestChangesBetweenLists(t *testing.T) {
	t.Parallel()
	list := func(s string) (named []Entry) { // "a1 b2": names with inode numbers
		for f := range strings.FieldsSeq(s) {
			named = append(named, Entry{f[:1], ID{Ino: uint64(f[1])}})
		}
		return named
	}
	for _, tt := range []struct{ before, now, want string }{
		{"", "", ""},
		{"a1 b2", "a1 b2", ""},
		{"", "a1 b2", "+a1 +b2"},
		{"a1 b2", "", "-a1 -b2"},
		{"a1 c3", "b2 c3 d4", "-a1 +b2 +d4"},
		{"b2", "a1 b2 c3", "+a1 +c3"},
		{"a1 b2", "a1 b3", "-b2 +b3"},
		{"a1", "b1", "-a1 +b1"}, // renamed
	} {
		var got []string
		for _, e := range changes(list(tt.before), list(tt.now)) {
			sign := map[EventKind]string{EventChanged: "+", EventDeleted: "-"}[e.Kind]
			got = append(got, fmt.Sprintf("%s%s%c", sign, e.Name, rune(e.ID.Ino)))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%q, then %q: %q, want %q", tt.before, tt.now, s, tt.want)
		}
	}
}
