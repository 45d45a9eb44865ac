package link

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil/allocs"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestGetByIndexAndListAgreeWithIP(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	mustCreate(t, host, Spec{Name: "web0", Up: true, Master: br.Ref(), Kind: Veth{Peer: Spec{NS: web, Name: "eth0", Up: true}}})
	mustCreate(t, host, Spec{Name: "idle0", Kind: Veth{Peer: Spec{Name: "idle1"}}})

	// The operational state follows the carrier a moment later.
	for range 200 {
		if w := ipLinks(t, host); w["web0"].OperState == "UP" && w["br0"].OperState == "UP" {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	list, err := List(ctx, host, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	witness := ipLinks(t, host)
	if len(list) != len(witness) || len(list) != 5 {
		t.Fatalf("List has %d links, ip %d, want 5", len(list), len(witness))
	}
	last := 0
	for _, l := range list {
		if l.Index <= last {
			t.Errorf("link %s is out of order", l)
		}
		last = l.Index
		if l.Kind == "veth" && l.PeerIndex == 0 {
			t.Errorf("link %s has no peer", l)
		}
		w := witness[l.Name]
		master := ""
		if l.Master == br.Index {
			master = br.Name
		}
		if l.Index != w.Index || l.Kind != w.Info.Kind || l.MTU != w.MTU || l.MAC.String() != w.MAC || l.Up != w.up() || master != w.Master {
			t.Errorf("List: %+v, ip: %+v", l, w)
		}
		if l.OperState.String() != w.OperState {
			t.Errorf("link %s is %s, ip says %s", l, l.OperState, w.OperState)
		}
		if l.NS() != host {
			t.Errorf("link %s is bound to %v", l, l.NS())
		}
		byName, err := Get(ctx, host, l.Name)
		if err != nil {
			t.Fatal(err)
		}
		byIndex, err := ByIndex(ctx, host, l.Index)
		if err != nil {
			t.Fatal(err)
		}
		// The state may settle between two reads.
		byName.OperState, byIndex.OperState, byName.Running, byIndex.Running = l.OperState, l.OperState, l.Running, l.Running
		if !reflect.DeepEqual(byName, l) || !reflect.DeepEqual(byIndex, l) {
			t.Errorf("List: %+v\nGet: %+v\nByIndex: %+v", l, byName, byIndex)
		}
	}
}

func TestGetWhatIsNotThere(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	_, err := Get(ctx, ns, "none")
	wantErr(t, err, os.ErrNotExist, "link.Get link none")
	_, err = ByIndex(ctx, ns, 4711)
	wantErr(t, err, os.ErrNotExist, "link.ByIndex link with index 4711")
	for _, name := range []string{"", "a b", strings.Repeat("a", 128)} {
		_, err = Get(ctx, ns, name)
		wantErr(t, err, os.ErrInvalid)
	}
	for _, index := range []int{0, -1} {
		_, err = ByIndex(ctx, ns, index)
		wantErr(t, err, os.ErrInvalid)
	}
	_, err = Get(ctx, nil, "lo")
	wantErr(t, err, os.ErrInvalid)
	_, err = List(ctx, nil, Filter{})
	wantErr(t, err, os.ErrInvalid)
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err = List(done, ns, Filter{})
	wantErr(t, err, context.Canceled)
}

func TestZeroLinkRefusesToAct(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for what, l := range map[string]Link{"zero": {}, "made by hand": {Index: 1, Name: "lo"}} {
		_, addrs := l.Addrs(ctx)
		for verb, err := range map[string]error{
			"SetUp": l.SetUp(ctx), "SetDown": l.SetDown(ctx), "Delete": l.Delete(ctx), "Addrs": addrs,
			"AddPrefixes": l.AddPrefixes(ctx, prefixes("10.0.0.1/24")...), "DeleteAddrs": l.DeleteAddrs(ctx, prefixes("10.0.0.1/24")...),
		} {
			wantErr(t, err, os.ErrInvalid, "link."+verb, "zero value")
		}
		if l.NS() != nil {
			t.Errorf("%s: has a namespace", what)
		}
	}
}

func TestLinkOfClosedNamespaceRefusesToAct(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "a", Kind: Bridge{}})
	ns.Close()
	_, addrs := l.Addrs(ctx)
	for _, err := range []error{l.SetUp(ctx), l.Delete(ctx), addrs, l.AddPrefixes(ctx, prefixes("10.0.0.1/24")...)} {
		wantErr(t, err, os.ErrClosed, "link a")
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	l := mustCreate(t, host, Spec{Name: "a", Kind: Veth{Peer: Spec{NS: web, Name: "b"}}})
	for _, up := range []bool{true, true, false, false} {
		verb := l.SetDown
		if up {
			verb = l.SetUp
		}
		if err := verb(ctx); err != nil {
			t.Fatal(err)
		}
		if got := ipLinks(t, host)["a"].up(); got != up {
			t.Errorf("ip says up=%v, want %v", got, up)
		}
	}
	if err := l.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	onlyLo(t, host, web)
	wantErr(t, l.Delete(ctx), os.ErrNotExist, "link.Delete link a")
	wantErr(t, l.SetUp(ctx), os.ErrNotExist)
}

func TestAllocsOfReads(t *testing.T) {
	ctx := context.Background()
	ns := netnstest.New(t)
	for i := range 50 {
		mustCreate(t, ns, Spec{Name: fmt.Sprintf("a%d", i), Kind: Veth{Peer: Spec{Name: fmt.Sprintf("b%d", i)}}})
	}
	get := allocs.PerRun(t, 50, func() {
		if _, err := Get(ctx, ns, "a7"); err != nil {
			t.Fatal(err)
		}
	})
	list := allocs.PerRun(t, 20, func() {
		if l, err := List(ctx, ns, Filter{}); err != nil || len(l) != 101 {
			t.Fatal(len(l), err)
		}
	})
	t.Logf("Get %v, List of 101 %v", get, list)
	if get > 7 {
		t.Errorf("Get allocates %v times, at most 7 are allowed", get)
	}
	if list > 28 { // for each of the kernel's replies, not for each link
		t.Errorf("List of 101 links allocates %v times, at most 28 are allowed", list)
	}
}

func TestStringsOfStates(t *testing.T) {
	t.Parallel()
	for s := OperUnknown; s <= OperUp; s++ {
		if strings.Contains(s.String(), "(") {
			t.Errorf("state %d has no name", s)
		}
	}
	if got := OperState(9).String(); got != "OperState(9)" {
		t.Errorf("unknown state: %s", got)
	}
	if got := (Link{Name: "a", Index: 3}).String(); got != "a (3)" {
		t.Errorf("link: %s", got)
	}
}
