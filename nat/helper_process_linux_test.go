package nat

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// Workers are other processes that work on the table of the namespace that they
// are started in: this very test binary, with an order in its environment.

const workerEnv = "BOXWIRE_NAT_WORKER"

// order is what a worker is to do.
type order struct {
	Name string        // prefix of its owners
	Seed uint64        // of what it does
	For  time.Duration // how long; 0 until it is killed
	Base int           // its ports are Base to Base+39, and it tries those of Contested, too
}

// sharedPort is the first of the ports that all workers ask for.
const sharedPort = 5000

// start starts a worker in ns. What it prints is read from the pipe.
func (o order) start(t testing.TB, ns *netns.NS) (*exec.Cmd, io.Reader) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	_, err = netns.Do(context.WithoutCancel(t.Context()), ns, func(context.Context) (any, error) { return nil, cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, out
}

// work is the main function of a worker. It prints "ready", does what its order
// says, and prints the ports that are its own then, as JSON.
func work(text string) int {
	var o order
	err := json.Unmarshal([]byte(text), &o)
	var mine map[Port]bool
	if err == nil {
		mine, err = o.work(context.Background())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "worker %s: %v\n", o.Name, err)
		return 1
	}
	ports := make([]Port, 0, len(mine))
	for p := range mine {
		ports = append(ports, p)
	}
	if err := json.NewEncoder(os.Stdout).Encode(ports); err != nil {
		return 1
	}
	return 0
}

func (o order) work(ctx context.Context) (map[Port]bool, error) {
	ns, err := netns.Current()
	if err != nil {
		return nil, err
	}
	gw, err := Open(ctx, ns, Options{})
	if err != nil {
		return nil, err
	}
	w := worker{order: o, gw: gw, r: rand.New(rand.NewPCG(o.Seed, 0)), mine: make(map[Port]bool)}
	if err := gw.Sync(ctx, w.state()); err != nil { // of one that was killed, much may be left
		return nil, err
	}
	fmt.Println("ready")
	for end := time.Now().Add(o.For); o.For == 0 || time.Now().Before(end); {
		if err := w.step(ctx); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(os.Stderr, "worker %s: %d steps, %d refused\n", o.Name, w.steps, w.refused)
	return w.mine, nil
}

type worker struct {
	order
	gw             *NAT
	r              *rand.Rand
	mine           map[Port]bool // what it has published
	steps, refused int
}

// port makes up a port: single or a range, on one address or all, of either family.
func (w *worker) port() Port {
	base := w.Base
	if w.r.IntN(4) == 0 {
		base = sharedPort
	}
	host, box := "0.0.0.0", "10.88.0.2"
	switch w.r.IntN(4) {
	case 0:
		host = "10.1.1.1"
	case 1:
		host, box = "[::]", "[fd88::2]"
	}
	n := base + w.r.IntN(40)
	p := tcp(fmt.Sprintf("%s:%d", host, n), fmt.Sprintf("%s:%d", box, 1+w.r.IntN(3)), fmt.Sprintf("%s-%d", w.Name, w.r.IntN(5)))
	if w.r.IntN(3) == 0 {
		p.Proto = UDP
	}
	if w.r.IntN(6) == 0 {
		p = ranged(p, p.Host.Port()+uint16(1+w.r.IntN(3)))
		if w.r.IntN(2) == 0 {
			p.Box = ap(fmt.Sprintf("%s:%d", box, n))
		}
	}
	return p.normal()
}

// step changes something, and its account of it. A port that another one has is
// no fault, as long as nothing has changed then.
func (w *worker) step(ctx context.Context) error {
	w.steps++
	var err error
	switch some := w.some(); w.r.IntN(6) {
	case 0, 1:
		ports := []Port{w.port(), w.port()}[:1+w.r.IntN(2)]
		if err = w.gw.Publish(ctx, ports...); err == nil {
			for _, p := range ports {
				w.mine[p] = true
			}
		}
	case 2:
		if err = w.gw.Unpublish(ctx, some...); err == nil {
			for _, p := range some {
				delete(w.mine, p)
			}
		}
	case 3:
		owner := fmt.Sprintf("%s-%d", w.Name, w.r.IntN(5))
		if err = netns.IgnoreNotExist(w.gw.UnpublishOwner(ctx, owner)); err == nil {
			for p := range w.mine {
				if p.Owner == owner {
					delete(w.mine, p)
				}
			}
		}
	case 4: // a part of what there is, and something new
		s := w.state()
		s.Ports = append(some, w.port())
		if err = w.gw.Sync(ctx, s); err == nil {
			clear(w.mine)
			for _, p := range s.Ports {
				w.mine[p] = true
			}
		}
	case 5:
		err = w.check(ctx)
	}
	if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrInvalid) { // taken, by itself perhaps
		w.refused++
		return nil
	}
	return err
}

func (w *worker) state() State {
	return State{Owners: func(owner string) bool { return strings.HasPrefix(owner, w.Name+"-") }}
}

// some are some of its ports.
func (w *worker) some() (ports []Port) {
	for p := range w.mine {
		if w.r.IntN(2) == 0 {
			ports = append(ports, p)
		}
	}
	return ports
}

// check compares what is published with its account.
func (w *worker) check(ctx context.Context) error {
	all, err := w.gw.ListPorts(ctx)
	if err != nil {
		return err
	}
	want := make(map[Port]bool)
	for p := range w.mine {
		for _, one := range p.singles() {
			want[one] = true
		}
	}
	for _, p := range all {
		if w.state().owns(p.Owner) && !want[p.Port] {
			return fmt.Errorf("%v of %q is published but should not", p.Port, p.Owner)
		}
		delete(want, p.Port)
	}
	for p := range want {
		return fmt.Errorf("%v of %q is lost", p, p.Owner)
	}
	return nil
}

// ready waits for a worker to begin.
func ready(t testing.TB, out io.Reader) *bufio.Reader {
	t.Helper()
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the worker says %q, %v", line, err)
	}
	return r
}
