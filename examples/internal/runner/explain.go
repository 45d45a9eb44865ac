//go:build linux

package runner

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"

	"github.com/boxwire/boxwire/examples/internal/explain"
	"github.com/boxwire/boxwire/netns"
)

// explainBoxes says why a port or a box is not reached, and returns the status for that.
func (p Program) explainBoxes(ctx context.Context, host *netns.NS, args []string, out io.Writer) (int, error) {
	ask, err := explain.ParseAsk(args, p.Name, "box", out)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return statusOurs, err
	}
	all, err := boxes(ctx, host)
	if err != nil {
		return statusOurs, err
	}
	h := explain.Host{NS: host, Table: table, Words: explain.Words{
		Box:     "box",
		Restore: "run the box again: " + p.Name + " makes the table, the bridge and its addresses again, and keeps the table while a box runs",
		Publish: "run the box with -p: " + p.runs() + " -p HOSTPORT:BOXPORT -- CMD",
		Accept:  "run the box with -accept-forward, which adds an accept before it",
		Gone:    p.Name + " gc",
		Again:   "run the box again",
	}}
	for _, b := range all {
		known := explain.Box{Name: b.Name, Owner: b.Name, Routed: b.Bridge != "" && len(b.Addrs) > 0}
		for _, a := range b.Addrs {
			known.Addrs = append(known.Addrs, a.Addr())
		}
		ns, _, err := openSpace(ctx, host, b.Name)
		switch {
		case err == nil && b.Pid != 0:
			defer ns.Close()
			known.NS = ns
		case err == nil: // a killed run has left it
			ns.Close()
			known.Gone = true
		case errors.Is(err, os.ErrNotExist) || errors.Is(err, errNoBox):
			known.Gone = true
		default:
			return statusOurs, err
		}
		h.Boxes = append(h.Boxes, known)
	}
	return h.Explain(ctx, ask, out)
}
