package selfcheck

import "testing"

// What is left behind is found.
func TestLeftovers(t *testing.T) {
	before := Leftovers{files: []string{"/run/a"}, processes: []string{"7"}}
	for want, now := range map[string]Leftovers{
		"":                                  before,
		"files left: /run/b, /run/c":        {files: []string{"/run/c", "/run/a", "/run/b"}},
		"namespaces in use left: n":         {inUse: []string{"n", "n"}},
		"mounts left: m\nprocesses left: 8": {mounts: []string{"m"}, processes: []string{"7", "8"}},
	} {
		got := ""
		if err := before.compare(now); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%+v: %q, want %q", now, got, want)
		}
	}
}
