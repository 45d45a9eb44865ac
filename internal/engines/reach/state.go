package reach

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// state is what the places look like, for the log of a test that failed: what the programs ip and nft of the real machine
// say there.
func (w World) state(ctx context.Context) string {
	var b strings.Builder
	for _, place := range slices.Sorted(maps.Keys(w.Places)) {
		for _, line := range []string{"ip addr", "ip route", "ip -6 route", "ip neigh", "nft list ruleset"} {
			args := strings.Fields(line)
			out, err := w.Places[place].Command(ctx, args[0], args[1:]...).CombinedOutput()
			if err != nil {
				out = fmt.Appendln(out, err)
			}
			fmt.Fprintf(&b, "%s in %s:\n%s", line, place, out)
		}
	}
	return b.String()
}
