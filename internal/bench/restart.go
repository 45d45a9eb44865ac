package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// restartEnv has the program be the one that has been restarted. Its value is the size of the state.
const restartEnv = "BOXWIRE_BENCH_RESTART"

var restartRow = row{
	name: "restart",
	work: "a program that has been restarted opens the table and syncs it: 10,000 boxes on 10 bridges, 100,000 published ports",
	unit: "restart",
	n:    10,
	run: func(ctx context.Context, b *bout) (err error) {
		size := restartSize{Bridges: b.size(10, 2), Boxes: b.size(10_000, 50), Ports: b.size(100_000, 500)}
		ns, err := size.host(ctx)
		if err != nil {
			return err
		}
		defer ns.Close()
		sock, err := openFloor(ns, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer sock.Close()
		var peak, cpu []float64
		err = b.interleave(ctx, b.n,
			&contender{name: nameBoxwire, round: func(ctx context.Context, _ int) (time.Duration, error) {
				r, err := size.restart(ctx, ns)
				peak, cpu = append(peak, float64(r.Peak)/1024), append(cpu, r.Busy.Seconds())
				return r.Took, err
			}},
			&contender{name: nameFloor, round: func(context.Context, int) (time.Duration, error) { return size.dumps(sock) }},
		)
		if err != nil {
			return err
		}
		b.claim(nameBoxwire+", in s", median(b.figures[nameBoxwire]).Seconds(), 1, false)
		b.claim(nameBoxwire+", MiB of the process", median(peak), 64, false)
		b.brief(fmt.Sprintf("open and sync %s published ports after a restart", thousands(size.Ports)), nameBoxwire, nameFloor)
		b.note("A processor was busy with it for %.2f s. The process has the state that it syncs, too: %s ports.", median(cpu), thousands(size.Ports))
		b.note("The floor reads the maps %s, and looks at nothing. For each reply of 32 KiB, the kernel walks a map from its beginning to where it was, so that the time grows with the square of the ports. %s asks for the elements of pub4 by their keys instead, where the kernel says how many there are: 5.10 does not, 6.18 does. %s / %s is %.2f.",
			strings.Join(restartMaps, " and "), nameBoxwire, nameBoxwire, nameFloor, pairRatio(b.figures[nameBoxwire], b.figures[nameFloor]))
		return nil
	},
}

// restartMaps are where the ports and what is counted of them are.
var restartMaps = []string{"pub4", "uses4"}

// A restartSize is how much there is.
type restartSize struct{ Bridges, Boxes, Ports int }

func (s restartSize) subnet(bridge int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(100 + bridge), 0, 0}), 16)
}

func (s restartSize) box(i int) netip.Addr {
	a, n := s.subnet(i%s.Bridges).Addr().As4(), i/s.Bridges+2
	a[2], a[3] = byte(n>>8), byte(n)
	return netip.AddrFrom4(a)
}

// state is what the program syncs. A host port is published on several addresses.
func (s restartSize) state() (state nat.State) {
	for i := range s.Bridges {
		state.Networks = append(state.Networks, nat.Network{
			Interface: fmt.Sprintf("br%d", i), Subnets: []netip.Prefix{s.subnet(i)}, Masquerade: true,
		})
	}
	state.Ports = make([]nat.Port, s.Ports)
	owners := make([]string, s.Boxes)
	for i := range owners {
		owners[i] = fmt.Sprintf("box%d", i)
	}
	for i := range state.Ports {
		p := portOf(i)
		p.Owner, p.Box = owners[i%s.Boxes], netip.AddrPortFrom(s.box(i%s.Boxes), 80)
		state.Ports[i] = p
	}
	return state
}

// host returns a namespace that has the bridges and the table.
func (s restartSize) host(ctx context.Context) (ns *netns.NS, err error) {
	if ns, err = netns.New(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			ns.Close()
		}
	}()
	for i := range s.Bridges {
		if _, err := link.Create(ctx, ns, link.Spec{Name: fmt.Sprintf("br%d", i), Up: true, Kind: link.Bridge{}}); err != nil {
			return nil, err
		}
	}
	gw, err := nat.Open(ctx, ns, nat.Options{})
	if err != nil {
		return nil, err
	}
	return ns, errors.Join(gw.Sync(ctx, s.state()), gw.Close())
}

// A restarted is what the program that was restarted tells of itself.
type restarted struct {
	Took, Busy time.Duration
	Peak       int // KiB of memory
}

// restart starts the program in the namespace.
func (s restartSize) restart(ctx context.Context, ns *netns.NS) (r restarted, err error) {
	size, err := json.Marshal(s)
	if err != nil {
		return r, err
	}
	cmd := ns.Command(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), restartEnv+"="+string(size))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	return r, err
}

// restartAgain is that program.
func restartAgain(size string) error {
	var s restartSize
	if err := json.Unmarshal([]byte(size), &s); err != nil {
		return err
	}
	ctx := context.Background()
	ns, err := netns.Current()
	if err != nil {
		return err
	}
	state := s.state()
	runtime.GC()
	before, begin := used(), time.Now()
	gw, err := nat.Open(ctx, ns, nat.Options{})
	if err == nil {
		err = gw.Sync(ctx, state)
	}
	if err != nil {
		return err
	}
	r := restarted{Took: time.Since(begin), Busy: used().busy() - before.busy()}
	if r.Peak, err = peakMemory(); err != nil {
		return err
	}
	if ports, err := gw.ListPorts(ctx); err != nil || len(ports) != s.Ports {
		return fmt.Errorf("%d ports are published, want %d: %w", len(ports), s.Ports, err)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// peakMemory is the most memory that this process has had, in KiB.
func peakMemory() (kib int, err error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib, nil
		}
	}
	return 0, errors.New("/proc/self/status has no VmHWM")
}

// dumps reads the maps.
func (s restartSize) dumps(sock *floor.Socket) (time.Duration, error) {
	return took(func() error {
		for _, set := range restartMaps {
			if _, err := sock.Dump(floor.GetElements(nftTable, set), func([]byte) {}); err != nil {
				return err
			}
		}
		return nil
	})
}
