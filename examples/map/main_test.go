package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/topology"
)

// machine stands for a machine that is read: tests do not look into the namespaces of others.
func machine(context.Context) (*topology.Snapshot, error) {
	return &topology.Snapshot{Namespaces: []*topology.Namespace{{Inode: 1, Own: true}}}, nil
}

func TestForms(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "map.svg")
	for args, begins := range map[string]string{
		"": "host\n", "-dot": "graph machine {", "-mermaid": "flowchart LR", "-json": "{", "-svg -": "<svg ", "-svg " + file: "",
	} {
		var out, errs bytes.Buffer
		if status := run(t.Context(), strings.Fields(args), machine, source{}, &out, &errs); status != 0 || !strings.HasPrefix(out.String(), begins) {
			t.Errorf("map %s ended with %d, printed %.200s, %s", args, status, &out, &errs)
		}
		if args == "-json" {
			var s topology.Snapshot
			if err := json.Unmarshal(out.Bytes(), &s); err != nil || len(s.Namespaces) == 0 || !s.Namespaces[0].Own {
				t.Errorf("the JSON is %.200s, %v", &out, err)
			}
		}
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(b, []byte("<svg ")) {
		t.Errorf("the file is %.100q, %v", b, err)
	}
}

func TestBadCommandLines(t *testing.T) {
	t.Parallel()
	for args, status := range map[string]int{
		"-dot -json": 2, "-x": 2, "web": 2, "-svg": 2, "-help": 0, "-svg /nowhere/map.svg": 1,
	} {
		var out, errs bytes.Buffer
		if got := run(t.Context(), strings.Fields(args), machine, source{}, &out, &errs); got != status || errs.Len() == 0 || out.Len() > 0 {
			t.Errorf("map %s ended with %d, want %d; it printed %q, %q", args, got, status, &out, &errs)
		}
	}
}
