package nat

import (
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/trace"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// flowHost is a namespace with the bridge br0 and the uplink up0.
func flowHost(t *testing.T) *netns.NS {
	t.Helper()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "ip", "link", "add", "br0", "type", "bridge")
	testutil.Run(t, ns, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0p")
	testutil.Run(t, ns, "ip", "addr", "add", "203.0.113.1/24", "dev", "up0")
	return ns
}

// putting is a transaction that makes a network of flowNetwork.
func putting(t *testing.T, gw *NAT, net Network) *putNetworkTx {
	t.Helper()
	tx := &putNetworkTx{replace: true}
	tx.iface = net.Interface
	var err error
	if tx.net, err = net.checked(); err != nil {
		t.Fatal(err)
	}
	tx.want = tx.net.items()
	return tx
}

// A change that is undone leaves the flowtable as it was, also if the network's link has gone meanwhile.
func TestUndoneChangeLeavesTheFlowtable(t *testing.T) {
	t.Parallel()
	needFlowtable(t)
	for _, was := range []bool{true, false} {
		ns := flowHost(t)
		gw := open(t, ns)
		ctx := t.Context()
		if err := gw.SetNetwork(ctx, flowNetwork(0, was)); err != nil {
			t.Fatal(err)
		}
		before := testutil.Run(t, ns, "nft", "list", "table", "inet", "boxwire")
		c, err := gw.lock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		tx := putting(t, gw, flowNetwork(0, !was))
		tx.over(gw, c)
		if err := gw.commit(ctx, c, tx); err != nil {
			t.Fatal(err)
		}
		networks := map[bool][]string{true: {"br0"}}
		hasFlowtable(t, ns, networks[!was]...)
		testutil.Run(t, ns, "ip", "link", "del", "br0")
		if err := tx.undo(ctx); err != nil {
			t.Errorf("undoing: %v", err)
		}
		gw.unlock()
		hasFlowtable(t, ns, networks[was]...)
		hasDevices(t, ns, map[bool][]string{true: {"up0"}}[was]...)
		if now := testutil.Run(t, ns, "nft", "list", "table", "inet", "boxwire"); now != before {
			t.Errorf("undone, the table is %s, was %s", now, before)
		}
	}
}

// A change whose answer was lost is taken for committed only if the flowtable has what it needs.
func TestCommittedSaysWhatTheFlowtableHas(t *testing.T) {
	t.Parallel()
	needFlowtable(t)
	ctx := t.Context()
	on, off := flowNetwork(0, true), flowNetwork(0, false)
	put := func(net Network) func(*NAT) transaction {
		return func(gw *NAT) transaction { return putting(t, gw, net) }
	}
	for _, c := range []struct {
		name   string
		before *Network
		tx     func(*NAT) transaction
		on     bool // the network has the option afterwards
	}{
		{"AddNetwork", nil, put(on), true},
		{"SetNetwork", &off, put(on), true},
		{"SetNetwork without it", &on, put(off), false},
		{"Sync", nil, func(*NAT) transaction { return syncing(t, on) }, true},
		{"Sync without it", &on, func(*NAT) transaction { return syncing(t, off) }, false},
		{"Maintain", &on, func(*NAT) transaction { return &forwardTx{nets: []Network{on}} }, true},
	} {
		ns := flowHost(t)
		gw := open(t, ns)
		if c.before != nil {
			if err := gw.SetNetwork(ctx, *c.before); err != nil {
				t.Fatal(err)
			}
		}
		testutil.Run(t, ns, "ip", "link", "add", "up1", "type", "veth", "peer", "name", "up1p")
		testutil.Run(t, ns, "ip", "addr", "add", "198.51.100.1/24", "dev", "up1")
		conn, err := gw.lock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		tx := c.tx(gw)
		tx.over(gw, conn)
		committed := func(when string, want bool) {
			t.Helper()
			if is, err := tx.Committed(ctx); is != want || err != nil {
				t.Errorf("%s %s: committed %t, %v", c.name, when, is, err)
			}
		}
		if _, err := tx.Build(ctx, nil); err != nil {
			t.Fatal(err)
		}
		committed("not sent", false)
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
		if err := gw.commit(ctx, conn, tx); err != nil {
			t.Fatal(err)
		}
		committed("sent", true)
		if c.on {
			testutil.Run(t, ns, "nft", "delete table inet boxwire/flowtable")
			committed("without the table", false)
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
		gw.unlock()
	}
}

// syncing is a Sync to one network.
func syncing(t *testing.T, net Network) *syncTx {
	t.Helper()
	state := State{Networks: []Network{net}}
	nets, _, err := state.check()
	if err != nil {
		t.Fatal(err)
	}
	return &syncTx{desired: state, nets: nets}
}

// The chain that adds flows is none that Explain has to look at.
func TestExplainReadsNoFlowtable(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	chain := func(table string) {
		testutil.Run(t, ns, "nft", "add table inet "+table+"; add chain inet "+table+" add_flows { type filter hook forward priority 2147483647; }")
	}
	c, err := gw.conn()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		table string
		empty bool
	}{{"boxwire/flowtable", true}, {"other/flowtable", false}} {
		chain(x.table)
		rules, err := trace.Read(t.Context(), c, (&diagnosis{n: gw}).isOwn)
		if err != nil || rules.Empty() != x.empty {
			t.Errorf("with %s, there are no rules of others: %t, %v", x.table, !x.empty, err)
		}
	}
}

// A port of a bridge is looked at once, and not for each message that the bridge sends about it.
func TestMaintainLooksAtAPortOnce(t *testing.T) {
	t.Parallel()
	k := newMaintainer(nil, nil)
	k.flowing.Store(true)
	const index, bridge = 7, 8
	message := func(typ uint16, family byte, port bool) nl.Message {
		m := append([]byte{family, 0, 0, 0, index, 0, 0, 0}, make([]byte, 8)...)
		m = nl.AppendString(m, unix.IFLA_IFNAME, "box0")
		m = nl.AppendU32(m, unix.IFLA_MASTER, bridge)
		if port {
			var at int
			m, at = nl.Begin(m, unix.IFLA_LINKINFO)
			m = nl.AppendString(m, unix.IFLA_INFO_SLAVE_KIND, "bridge")
			nl.End(m, at)
		}
		return nl.Message{Type: typ, Body: m}
	}
	handle := k.links(map[int]string{index: "box0"}, map[int]way{index: {mtu: 1500}})
	for i, c := range []struct {
		m     nl.Message
		noted bool
	}{
		{message(unix.RTM_NEWLINK, unix.AF_UNSPEC, true), true}, // it has become one
		{message(unix.RTM_NEWLINK, unix.AF_BRIDGE, false), false},
		{message(unix.RTM_NEWLINK, unix.AF_UNSPEC, true), false},
		{message(unix.RTM_DELLINK, unix.AF_BRIDGE, false), throughPorts()}, // it has left
		{message(unix.RTM_NEWLINK, unix.AF_UNSPEC, false), true},           // it is none any more
		{message(unix.RTM_NEWLINK, unix.AF_UNSPEC, true), true},
	} {
		k.todo = todo{}
		if handle(c.m); k.todo.links != c.noted {
			t.Errorf("message %d: noted %t, want %t", i, k.todo.links, c.noted)
		}
	}
}
