package reach

import (
	"fmt"
	"strings"
	"testing"
)

// CheckBoth is Check with shorter tables. A target stands for its addresses of both families, the targets with
// its name and 4 or 6 behind, and the network "both" for tcp and udp:
//
//	          lan   host   web
//	both web  web   web    web
//	tcp  dns  -     -      dns
func (w World) CheckBoth(t testing.TB, when, table string) {
	t.Helper()
	var long strings.Builder
	first := true
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 2 || first {
			first = first && len(fields) == 0
			fmt.Fprint(&long, line)
			continue
		}
		networks := []string{fields[0]}
		if fields[0] == "both" {
			networks = []string{"tcp", "udp"}
		}
		for _, network := range networks {
			for _, family := range []string{"4", "6"} {
				if w.Targets[fields[1]+family] != "" {
					fmt.Fprintln(&long, network, fields[1]+family, strings.Join(fields[2:], " "))
				}
			}
		}
	}
	w.Check(t, when, long.String())
}

// Add adds a target with addresses of both families at one port, for CheckBoth. An empty address is
// left out.
func (w World) Add(name, v4, v6 string, port uint16) {
	if v4 != "" {
		w.Targets[name+"4"] = fmt.Sprintf("%s:%d", v4, port)
	}
	if v6 != "" {
		w.Targets[name+"6"] = fmt.Sprintf("[%s]:%d", v6, port)
	}
}
