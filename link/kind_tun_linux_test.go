package link

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestTunGivesAndTakesPackets(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	l, files, err := OpenTun(ctx, ns, Spec{
		Name: "tun0", Index: 700, MTU: 1400, Up: true, Alias: "a tunnel", Addrs: prefixes("10.9.0.1/24"), Kind: Tun{},
		IPv6: IPv6Conf{AddrGenMode: new(AddrGenNone)},
	}, 1)
	if needTun(t, err); err != nil {
		t.Fatal(err)
	}
	f := files[0]
	defer f.Close()
	if w := ipLinks(t, ns)["tun0"]; w.Index != 700 || l.Index != 700 || w.MTU != 1400 || !w.up() || len(w.addrs()) != 1 || w.Info.Kind != "tun" {
		t.Errorf("Create returned %+v, ip shows %+v", l, w)
	}
	// What is sent into the link comes out of the descriptor, bare.
	c, err := ns.Dial(ctx, "udp", "10.9.0.2:1234")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := f.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	n, err := f.Read(buf)
	if err != nil || n < 33 || buf[0] != 0x45 || string(buf[n-5:n]) != "hello" {
		t.Fatalf("read %x, %v", buf[:n], err)
	}
	// Sent back with both ends exchanged, it arrives at the socket.
	slices.Reverse(buf[12:20]) // addresses, in reverse byte order
	slices.Reverse(buf[12:16])
	slices.Reverse(buf[16:20])
	slices.Reverse(buf[20:24])
	slices.Reverse(buf[20:22])
	slices.Reverse(buf[22:24])
	if _, err := f.Write(buf[:n]); err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err = c.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	_, err = l.OpenQueues(ctx, 1)
	wantErr(t, err, os.ErrExist, "link.OpenQueues link tun0", "in use")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// A process that another test is starting may hold the descriptor still.
	for range 2000 {
		if _, err = Get(ctx, ns, "tun0"); err != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	wantErr(t, err, os.ErrNotExist)
}

// needTun skips the test where there are no TUN devices, or not for this user.
func needTun(t *testing.T, err error) {
	t.Helper()
	switch f, operr := os.OpenFile(tunDevice, os.O_RDWR, 0); {
	case operr != nil && err != nil:
		t.Skip(err)
	case operr == nil:
		f.Close()
	}
}

// someID is an id that exists, but not in a user namespace that holds only root.
func someID(t *testing.T, id uint32) *uint32 {
	t.Helper()
	if !firstUsers(t) {
		id = 0
	}
	return &id
}

// What OpenTun returns of a port is read when it is one.
func TestTapIsAPort(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	l, files, err := OpenTun(t.Context(), ns, Spec{Name: "tap0", Master: br.Ref(), Up: true, Kind: Tun{Tap: true}}, 1)
	if needTun(t, err); err != nil {
		t.Fatal(err)
	}
	defer files[0].Close()
	if l.Master != br.Index || !l.Up || !l.Running {
		t.Errorf("OpenTun returned %+v", l)
	}
}

func TestTapWithSeveralQueues(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	l, files, err := OpenTun(ctx, ns, Spec{
		Name: "tap0", MAC: hw("02:00:00:00:00:09"), Master: br.Ref(), Up: true, Port: PortOptions{Isolated: new(true)},
		Kind: Tun{Tap: true, MultiQueue: true, Persist: true, Owner: new(uint32(0)), Group: someID(t, 7)},
	}, 3)
	if needTun(t, err); err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 || l.MAC.String() != "02:00:00:00:00:09" || l.Master != br.Index {
		t.Errorf("%d queues of %+v", len(files), l)
	}
	more, err := l.OpenQueues(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	if i := ipInfo(t, ns, "tap0"); i["type"] != "tap" || i["multi_queue"] != true || i["persist"] != true || i["numqueues"] != 5.0 || i["user"] != "root" {
		t.Errorf("ip shows %v", i)
	}
	if port := ipFull(t, ns, "tap0").Info.Port; port["isolated"] != true {
		t.Errorf("ip shows %v", port)
	}
	for _, f := range append(files, more...) {
		f.Close()
	}
	if d, err := l.Details(ctx); err != nil || !d.Spec.Kind.(Tun).Persist {
		t.Errorf("%+v, %v", d, err)
	}
	if err := l.Delete(ctx); err != nil {
		t.Error(err)
	}
}

func TestTunThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	mustCreate(t, ns, Spec{Name: "br0", Index: 500, Kind: Bridge{}})
	persist := Tun{Persist: true, Tap: true}
	for _, c := range []struct {
		what   string
		spec   Spec
		queues int
		is     error
		words  []string
	}{
		{"name taken", Spec{Name: "br0", Kind: persist}, 1, os.ErrExist, []string{"the name br0 is taken"}},
		{"index taken", Spec{Name: "t", Index: 500, Kind: persist}, 1, os.ErrExist, []string{"index 500 is taken", "by link br0"}},
		{"address refused", Spec{Name: "t", Kind: persist, Addrs: prefixes("::1/128")}, 1, nil, []string{"::1/128"}},
		{"master gone", Spec{Name: "t", Kind: persist, Master: Ref{Index: 4711}}, 1, os.ErrNotExist, []string{"master 4711"}},
		{"no queues", Spec{Name: "t", Kind: persist}, 0, os.ErrInvalid, []string{"0 queues"}},
		{"two queues", Spec{Name: "t", Kind: persist}, 2, os.ErrInvalid, []string{"MultiQueue"}},
		{"not a tun", Spec{Name: "t", Kind: Bridge{}}, 1, os.ErrInvalid, []string{"not a link.Tun"}},
		{"MAC on a TUN", Spec{Name: "t", Kind: Tun{}, MAC: hw("02:00:00:00:00:01")}, 1, os.ErrInvalid, []string{"no hardware address"}},
	} {
		_, files, err := OpenTun(ctx, ns, c.spec, c.queues)
		needTun(t, err)
		if c.is == nil {
			c.is = err
		}
		if err == nil || files != nil {
			t.Errorf("%s: %v, %v", c.what, files, err)
			continue
		}
		wantErr(t, err, c.is, c.words...)
		onlyThese(t, ns, "lo", "br0")
	}
	_, err := Create(ctx, ns, Spec{Name: "t", Kind: Tun{}})
	wantErr(t, err, os.ErrInvalid, "OpenTun")
	onlyThese(t, ns, "lo", "br0")
}

// systemd-udevd is told of a TAP device before its address can be set, and replaces one that it finds
// drawn. So the address is set at once, and set again if it was replaced meanwhile.
func TestTapKeepsItsMAC(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	files, err := openQueues(ctx, ns, device{name: "tap0", kind: Tun{Tap: true}, create: true, mac: mac(7)}, 1)
	if needTun(t, err); err != nil {
		t.Fatal(err)
	}
	defer files[0].Close()
	if w := ipLinks(t, ns)["tap0"]; w.MAC != mac(7).String() {
		t.Errorf("the device is made with the address %s, want %s", w.MAC, mac(7))
	}
	if got := assignTypes(t, ns)["tap0"]; got != macSet {
		t.Errorf("its address is from %s, want %s", got, macSet)
	}

	br := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	for _, spec := range []Spec{
		{Name: "tap1", Kind: Tun{Tap: true, Persist: true}},
		{Name: "tap2", Kind: Tun{Tap: true, Persist: true}, MAC: mac(8), Master: br.Ref()},
		{Name: "tap3", Kind: Tun{Tap: true, Persist: true}, MAC: mac(9)},
	} {
		made := mustCreate(t, ns, spec)
		replaced, err := made.Update(ctx, Spec{MAC: mac(66)})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := route(ns)
		if err != nil {
			t.Fatal(err)
		}
		c := creation{op: "link.Create", ctx: ctx, link: replaced, end: end{nsConn: nsConn{ns, conn}, name: spec.Name, index: made.Index}}
		if err := c.keepMAC(made.MAC); err != nil {
			t.Error(err)
		}
		if w := ipLinks(t, ns)[spec.Name]; w.MAC != made.MAC.String() || c.link.MAC.String() != w.MAC {
			t.Errorf("%s has the address %s, Create returns %s, want %s", spec.Name, w.MAC, c.link.MAC, made.MAC)
		}
	}
}
