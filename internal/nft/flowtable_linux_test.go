package nft

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// offloading is a table that adds flows to a flowtable.
func offloading(devices ...string) *Batch {
	b := table("ours")
	b.AddFlowtable(Flowtable{Name: "f", Priority: 5, Counter: true, Devices: devices})
	b.AddChain(Chain{Name: "fw", Type: "filter", Hook: unix.NF_INET_FORWARD, Priority: 7})
	b.AddRule("fw", &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{6}}, FlowAdd("f"))
	return b
}

func TestFlowtable(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	for _, pair := range [][2]string{{"d0", "d1"}, {"d2", "d3"}} {
		testutil.Run(t, ns, "ip", "link", "add", pair[0], "type", "veth", "peer", "name", pair[1])
	}
	c := conn(t, ns)
	commit := func(b *Batch) error {
		return c.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) { return b, nil }))
	}
	devices := func(want ...string) {
		t.Helper()
		f, err := c.Flowtable(t.Context(), "ours", "f")
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(f.Devices)
		if f.Name != "f" || f.Priority != 5 || !f.Counter || !slices.Equal(f.Devices, want) {
			t.Errorf("the flowtable is %+v, want the devices %v", f, want)
		}
		list := testutil.Run(t, ns, "nft", "list", "flowtables")
		for _, dev := range []string{"d0", "d1", "d2"} {
			if strings.Contains(list, dev) != slices.Contains(want, dev) {
				t.Errorf("nft lists %s, want the devices %v", list, want)
			}
		}
		if ok, err := c.Holds(t.Context(), offloading()); err != nil || !ok {
			t.Errorf("the table is not as it was made: %v", err)
		}
	}
	err := commit(offloading("d0", "d1"))
	testutil.NeedKernel(t, 4, 16, "flowtables (CONFIG_NF_FLOW_TABLE_INET and CONFIG_NFT_FLOW_OFFLOAD)", err)
	devices("d0", "d1")

	b := NewBatch("ours")
	b.AddDevices(Flowtable{Name: "f", Devices: []string{"d2"}})
	b.AddDevices(Flowtable{Name: "f"})
	if err := commit(b); err != nil || b.Len() != 1 {
		t.Fatalf("%d messages: %v", b.Len(), err)
	}
	devices("d0", "d1", "d2")

	// A flowtable may be without devices.
	b = NewBatch("ours")
	b.DeleteTable()
	fresh := offloading()
	b.reqs, b.what = append(b.reqs, fresh.reqs...), append(b.what, fresh.what...)
	if err := commit(b); err != nil {
		t.Fatal(err)
	}
	devices()
	b = NewBatch("ours")
	b.AddDevices(Flowtable{Name: "f", Devices: []string{"d0"}})
	if err := commit(b); err != nil {
		t.Fatal(err)
	}
	devices("d0")

	// Before Linux 6.16, a device has to be there, and the kernel points to one that is not.
	b = NewBatch("ours")
	b.AddDevices(Flowtable{Name: "f", Devices: []string{"d1", "gone"}})
	err = commit(b)
	var refused *Error
	if err != nil && (!errors.As(err, &refused) || refused.Err.Errno != unix.ENOENT || refused.What != "flowtable f" || refused.Err.Attr == "" && testutil.KernelAtLeast(6, 4)) {
		t.Errorf("a device that is gone: %v", err)
	}

	for _, change := range []string{
		"flush chain inet ours fw",
		"flush chain inet ours fw; delete flowtable inet ours f",
	} {
		testutil.Run(t, ns, "nft", change)
		if ok, err := c.Holds(t.Context(), offloading()); err != nil || ok {
			t.Errorf("after %s, the table holds: %t, %v", change, ok, err)
		}
	}
	if _, err := c.Flowtable(t.Context(), "ours", "f"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a flowtable that is not there: %v", err)
	}
}

func FuzzDecodeFlowtable(f *testing.F) {
	f.Add(offloading("d0", "d1").reqs[1].Body)
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = decodeFlowtable(b)
	})
}
