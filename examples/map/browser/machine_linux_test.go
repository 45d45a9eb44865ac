package browser

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// A machine is the network of a test: the namespace that the tests run in plays the host.
type machine struct {
	testing.TB
	host   *netns.NS
	bridge link.Link
	gw     *nat.NAT
	made   int // boxes, for their addresses
	boxes  []*box
}

// newMachine makes a host with a bridge, which ends with the test.
func newMachine(t testing.TB) *machine {
	t.Helper()
	need(t)
	m := &machine{TB: t}
	var err error
	if m.host, err = netns.Current(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.host.Close() })
	lo, err := link.Get(t.Context(), m.host, "lo")
	if err == nil {
		_, err = lo.Update(t.Context(), link.Spec{Up: true})
	}
	m.must(err)
	m.bridge, err = link.Create(t.Context(), m.host, link.Spec{
		Name: "boxwire0", Up: true, Kind: link.Bridge{}, Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")},
	})
	m.must(err)
	t.Cleanup(m.end)
	return m
}

// end takes away what is left of the machine.
func (m *machine) end() {
	links := []link.Link{m.bridge}
	for _, b := range m.boxes {
		links = append(links, b.port)
	}
	m.must(link.DeleteAll(context.Background(), links...))
	for _, b := range m.boxes {
		b.close(context.Background())
	}
}

func (m *machine) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// A box is a namespace on the bridge.
type box struct {
	*machine
	name string
	ns   *netns.NS
	port link.Link // the host's end
	addr netip.Addr
}

// box makes a box, which ends with the test. "" makes one without a name.
func (m *machine) box(name string) *box {
	m.Helper()
	b := m.space(name)
	b.plug()
	return b
}

// space makes a box that is not wired yet. Its plug has to be called.
func (m *machine) space(name string) *box {
	m.Helper()
	b := &box{machine: m, name: name}
	var err error
	if name == "" {
		b.ns, err = netns.New(m.Context())
	} else {
		b.ns, err = netns.Create(m.Context(), name)
	}
	m.must(err)
	m.made++
	b.addr = netip.AddrFrom4([4]byte{10, 88, byte((m.made + 1) >> 8), byte(m.made + 1)})
	return b
}

// plug wires the box to the bridge, and says when that began.
func (b *box) plug() (began time.Time) {
	b.Helper()
	spec := link.Spec{
		Name: fmt.Sprint("veth", b.made), Up: true, Master: b.bridge.Ref(),
		Kind: link.Veth{Peer: link.Spec{NS: b.ns, Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(b.addr, 16)}}},
	}
	began = time.Now()
	var err error
	b.port, err = link.Create(b.Context(), b.host, spec)
	b.must(err)
	b.boxes = append(b.boxes, b)
	b.must(route.Add(b.Context(), b.ns, route.Default(netip.MustParseAddr("10.88.0.1"))))
	return began
}

// remove takes the box away.
func (b *box) remove() {
	b.Helper()
	b.boxes = slices.DeleteFunc(b.boxes, func(o *box) bool { return o == b })
	b.must(b.port.Delete(b.Context()))
	b.close(b.Context())
}

// close takes the namespace away.
func (b *box) close(ctx context.Context) {
	b.Helper()
	if b.name != "" {
		b.must(netns.Delete(ctx, b.name))
	}
	b.must(b.ns.Close())
}

// key is the id of the box in the picture.
func (b *box) key() string { return fmt.Sprint("ns-", b.ns.ID().Ino) }

// listen listens on a port of the box.
func (b *box) listen(port int) net.Listener {
	b.Helper()
	l, err := b.ns.Listen(b.Context(), "tcp4", fmt.Sprint("0.0.0.0:", port))
	b.must(err)
	b.Cleanup(func() { l.Close() })
	return l
}

// run runs a process of a name in the box, until the test ends.
func (b *box) run(comm string) {
	b.Helper()
	cmd := b.ns.Command(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), commEnv+"="+comm)
	in, err := cmd.StdinPipe()
	b.must(err)
	out, err := cmd.StdoutPipe()
	b.must(err)
	b.must(cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		b.Fatalf("the process %q says %q, %v", comm, line, err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // it has nothing to tell
	})
}

// publish publishes a port of the host for port 80 of a box.
func (m *machine) publish(port uint16, b *box) {
	m.Helper()
	if m.gw == nil {
		var err error
		m.gw, err = nat.Open(m.Context(), m.host, nat.Options{Name: "boxwire"})
		m.must(err)
		m.Cleanup(func() {
			m.must(m.gw.Delete(context.Background()))
			m.must(m.gw.Close())
		})
		m.must(m.gw.AddNetwork(m.Context(), nat.Network{Interface: "boxwire0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")}, Masquerade: true}))
	}
	m.must(m.gw.Publish(m.Context(), nat.Port{
		Proto: nat.TCP, Owner: b.name, Host: netip.AddrPortFrom(netip.IPv4Unspecified(), port), Box: netip.AddrPortFrom(b.addr, 80),
	}))
}

// linkOf is a link of a box.
func linkOf(m *machine, b *box, name string) link.Link {
	m.Helper()
	l, err := link.Get(m.Context(), b.ns, name)
	m.must(err)
	return l
}
