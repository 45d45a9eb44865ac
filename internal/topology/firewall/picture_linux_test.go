package firewall

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

var update = flag.Bool("update", false, "write README's picture of pods")

// waitEnv makes the test binary wait until its standard input ends.
const waitEnv = "BOXWIRE_FIREWALL_TEST_WAIT"

func TestMain(m *testing.M) {
	if os.Getenv(waitEnv) != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	netnstest.Main(m)
}

// pods are a host with two networks, three boxes with programs, and published ports.
type pods struct {
	t      *testing.T
	names  netns.Dir
	host   *netns.NS
	gw     *nat.NAT
	spaces []netns.ID
}

func (p *pods) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// box makes a box on a bridge, in which programs of some names run.
func (p *pods) box(bridge link.Link, name, addr string, programs ...string) *netns.NS {
	p.t.Helper()
	ctx := p.t.Context()
	box, err := p.names.Create(ctx, name)
	p.check(err)
	p.t.Cleanup(func() {
		box.Close()
		p.check(p.names.Delete(context.WithoutCancel(ctx), name))
	})
	p.spaces = append(p.spaces, box.ID())
	l, err := link.Create(ctx, p.host, link.Spec{
		Name: "veth-" + name, Up: true, Master: bridge.Ref(),
		Kind: link.Veth{Peer: link.Spec{NS: box, Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}},
	})
	p.check(err)
	_, err = l.WaitUp(ctx)
	p.check(err)
	via := netip.MustParsePrefix(addr).Masked().Addr().Next()
	p.check(route.Add(ctx, box, route.Default(via)))
	for _, program := range programs {
		p.start(box, program)
	}
	return box
}

// start runs a program that has a name and does nothing.
func (p *pods) start(box *netns.NS, name string) {
	p.t.Helper()
	exe, err := os.Executable()
	p.check(err)
	path := filepath.Join(p.t.TempDir(), name)
	p.check(os.Symlink(exe, path))
	cmd := box.Command(context.WithoutCancel(p.t.Context()), path) // it ends with its input
	cmd.Env = append(os.Environ(), waitEnv+"=1")
	in, err := cmd.StdinPipe()
	p.check(err)
	p.check(cmd.Start())
	p.t.Cleanup(func() {
		in.Close()
		p.check(cmd.Wait())
	})
}

func (p *pods) network(name, addr string, n nat.Network) link.Link {
	p.t.Helper()
	prefix := netip.MustParsePrefix(addr)
	l, err := link.Create(p.t.Context(), p.host, link.Spec{Name: name, Up: true, Kind: link.Bridge{}, Addrs: []netip.Prefix{prefix}})
	p.check(err)
	n.Interface, n.Subnets = name, []netip.Prefix{prefix.Masked()}
	p.check(p.gw.AddNetwork(p.t.Context(), n))
	return l
}

func (p *pods) publish(host, box, owner string) {
	p.t.Helper()
	p.check(p.gw.Publish(p.t.Context(), nat.Port{Proto: nat.TCP, Host: netip.MustParseAddrPort(host), Box: netip.MustParseAddrPort(box), Owner: owner}))
}

func (p *pods) listen(box *netns.NS, at string) {
	p.t.Helper()
	ln, err := box.Listen(p.t.Context(), "tcp4", at)
	p.check(err)
	p.t.Cleanup(func() { ln.Close() })
}

// README's picture of a machine with pods is what the map draws of one.
func TestPictureOfPods(t *testing.T) {
	t.Parallel()
	p := &pods{t: t, names: netns.Dir(t.TempDir()), host: netnstest.New(t)}
	gw, err := nat.Open(t.Context(), p.host, nat.Options{})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	p.check(err)
	t.Cleanup(func() { gw.Close() })
	p.gw = gw
	p.spaces = append(p.spaces, p.host.ID())

	front := p.network("front0", "10.88.0.1/24", nat.Network{Masquerade: true, AllowTo: []string{"data0"}})
	data := p.network("data0", "10.89.0.1/24", nat.Network{Internal: true, Isolated: true})
	shop := p.box(front, "shop", "10.88.0.2/24", "nginx", "shop")
	blog := p.box(front, "blog", "10.88.0.3/24", "blog")
	db := p.box(data, "db", "10.89.0.2/24", "postgres")
	p.listen(shop, "0.0.0.0:80")
	p.listen(shop, "0.0.0.0:443")
	p.listen(db, "0.0.0.0:5432")
	p.listen(blog, "127.0.0.1:3000") // and so not where its port leads to
	p.publish("0.0.0.0:80", "10.88.0.2:80", "shop")
	p.publish("0.0.0.0:443", "10.88.0.2:443", "shop")
	p.publish("0.0.0.0:3000", "10.88.0.3:3000", "blog")

	s, err := topology.Read(t.Context(), topology.Options{
		Host: p.host, Firewall: Read,
		Some: func(info netns.Info) bool { return slices.Contains(p.spaces, info.ID) },
	})
	p.check(err)
	if len(s.Namespaces) != len(p.spaces) {
		t.Fatalf("%d of %d namespaces can be read", len(s.Namespaces), len(p.spaces))
	}
	s.Notes = nil // of processes of others
	for _, n := range s.Namespaces {
		// Where modules of tunnels are loaded, each namespace may have links of them.
		n.Links = slices.DeleteFunc(n.Links, func(l *topology.Link) bool {
			return strings.HasSuffix(l.Name, "0") && l.Kind != "" && l.Kind != "veth" && l.Kind != "bridge"
		})
	}
	renumber(s)
	var b bytes.Buffer
	p.check(topology.WriteSVG(&b, s))
	const kept = "../../../examples/map/pictures/pods.svg"
	if *update {
		p.check(os.WriteFile(kept, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(kept)
	p.check(err)
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("the picture is not README's; go test -run TestPictureOfPods -update writes it:\n%s", &b)
	}
}

// renumber gives namespaces and processes numbers that are the same each time.
func renumber(s *topology.Snapshot) {
	numbers := make(map[uint64]uint64)
	for i, n := range s.Namespaces {
		numbers[n.Inode] = uint64(i + 1)
		slices.SortFunc(n.Processes, func(a, b topology.Process) int { return bytes.Compare([]byte(a.Comm), []byte(b.Comm)) })
		for j := range n.Processes {
			n.Processes[j].Pid = 100*(i+1) + j
		}
	}
	for _, n := range s.Namespaces {
		n.Inode = numbers[n.Inode]
		for _, l := range n.Links {
			if l.Peer != nil {
				l.Peer.Inode = numbers[l.Peer.Inode]
			}
		}
		for i := range n.Ports {
			if n.Ports[i].To != nil {
				n.Ports[i].To.Inode = numbers[n.Ports[i].To.Inode]
			}
		}
	}
}
