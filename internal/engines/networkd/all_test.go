package networkd

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/scene"
	"github.com/boxwire/boxwire/link"
)

// A file for all links, as some images have it, takes the boxes' links for its own: addresses go, and
// ports leave their bridge. That is why the page "beside other programs" has the file of TestForeignRoutesAreKept.
func TestFileForAllLinksTakesTheBoxesLinks(t *testing.T) {
	t.Parallel()
	nd := start(t, allFile)
	ctx := t.Context()
	br, err := link.Create(ctx, nd.NS, link.Spec{Name: "boxwire0", Up: true, Kind: link.Bridge{}, Addrs: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24")}})
	if err != nil {
		t.Fatal(err)
	}
	port, err := link.Create(ctx, nd.NS, link.Spec{Name: "veth-a", Up: true, Master: br.Ref(), Kind: link.Veth{Peer: link.Spec{NS: nd.LAN, Name: "a", Up: true}}})
	if err != nil {
		t.Fatal(err)
	}
	nd.d.Restart(t)
	machine.Until(t, "networkd takes the bridge and its port", func() error {
		now, err := link.ByIndex(ctx, nd.NS, port.Index)
		if err != nil {
			return err
		}
		addrs, err := br.Addrs(ctx)
		for _, a := range addrs {
			if a.Prefix.Addr().Is4() {
				err = errors.Join(err, fmt.Errorf("the bridge has %v", a.Prefix))
			}
		}
		if now.Master != 0 {
			err = errors.Join(err, errors.New("the port has a master"))
		}
		return err
	})
	if s := nd.states(); s["boxwire0"] == "unmanaged" || s["veth-a"] == "unmanaged" {
		t.Errorf("networkd says %v", s)
	}
	// With the file, networkd leaves alone what is there and what comes.
	nd.WriteFile(t, oursFile, ours, 0o644)
	nd.d.Restart(t)
	nd.ready(t)
	if s := nd.states(); s["boxwire0"] != "unmanaged" || s["veth-a"] != "unmanaged" {
		t.Errorf("networkd says %v", s)
	}
	if err := link.DeleteAll(ctx, br, port); err != nil {
		t.Fatal(err)
	}
	h := scene.New(t, nd.Machine, 3)
	nd.ready(t)
	h.Check(t, "made beside networkd")
	h.Remove(t)
}
