package link

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// Lists and texts that do not fit into one attribute are refused before anything is
// sent.
func TestTooLongForAMessage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br9", Kind: Bridge{}})
	var names []string
	for i := range 600 {
		names = append(names, fmt.Sprintf("%s%d", strings.Repeat("n", 120), i))
	}
	var macs []net.HardwareAddr
	for i := range 9000 {
		macs = append(macs, net.HardwareAddr{2, 0, 0, 1, byte(i >> 8), byte(i)})
	}
	create := func(s Spec) error {
		_, err := Create(ctx, ns, s)
		return err
	}
	long := make([]byte, 50000)
	_, change := br.Update(ctx, Spec{AltNames: names})
	_, ensure := Ensure(ctx, ns, Spec{Name: "br9", AltNames: names, Kind: Bridge{}})
	for what, err := range map[string]error{
		"AltNames":            create(Spec{Name: "br0", AltNames: names, Kind: Bridge{}}),
		"AltNames of a peer":  create(Spec{Name: "a", Kind: Veth{Peer: Spec{Name: "b", AltNames: names}}}),
		"AltNames, Update":    change,
		"AltNames, Ensure":    ensure,
		"sources of macvlan":  create(Spec{Name: "m", Parent: br.Ref(), Kind: Macvlan{Mode: MacvlanSource, Sources: macs}}),
		"sources of macvtap":  create(Spec{Name: "m", Parent: br.Ref(), Kind: Macvtap{Macvlan: Macvlan{Mode: MacvlanSource, Sources: macs}}}),
		"one attribute":       create(Spec{Name: "o", Kind: Other{Name: "gre", Data: []Attr{{Type: 1, Data: make([]byte, 80000)}}}}),
		"two attributes":      create(Spec{Name: "o", Kind: Other{Name: "gre", Data: []Attr{{Type: 1, Data: long}, {Type: 2, Data: long}}}}),
		"an alias of a MB":    create(Spec{Name: "o", Alias: strings.Repeat("x", 1<<20), Kind: Bridge{}}),
		"a kind with options": create(Spec{Name: "o", Kind: Other{Name: "sit", Data: slices.Repeat([]Attr{{Type: 1, Data: make([]byte, 1000)}}, 70)}}),
	} {
		t.Run(what, func(t *testing.T) { wantErr(t, err, os.ErrInvalid) })
	}
	links, err := List(ctx, ns, Filter{})
	if err != nil || len(links) != 2 {
		t.Errorf("%v are there (%v), want lo and br9", links, err)
	}
}

// All VLANs with tunnel ids that do not go up together are more than one attribute
// holds.
func TestVLANRequestsFit(t *testing.T) {
	t.Parallel()
	var list []PortVLAN
	for id := uint16(1); id <= maxVLAN; id++ {
		list = append(list, PortVLAN{ID: id, Tunnel: uint32(maxVLAN-id) + 1})
	}
	for some := range slices.Chunk(list, maxVLANs) {
		if r := vlanRequest(0, 1, true, some, true); len(r.Body) > 60000 {
			t.Errorf("a message of %d bytes", len(r.Body))
		}
	}
}
