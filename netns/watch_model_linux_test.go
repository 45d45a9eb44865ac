package netns_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// What a reader of the events holds equals List, whatever `ip netns` and mounts have done
// in between, in any order and however close together.
func TestAWatchEqualsTheList(t *testing.T) {
	if !inChild(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}) {
		return
	}
	netnstest.Need(t)
	ip := testutil.Witness(t, "ip")
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			c := churn{t: t, ip: ip, r: rand.New(rand.NewPCG(seed, 0)), others: []*netns.NS{netnstest.New(t), netnstest.New(t)}}
			c.run()
		})
	}
}

// churn changes the names at random.
type churn struct {
	t      *testing.T
	ip     string
	r      *rand.Rand
	others []*netns.NS
}

func (c *churn) run() {
	before := c.r.IntN(4)
	for range before {
		c.step()
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	held, began, over := make(map[string]netns.ID), make(chan struct{}), make(chan error, 1)
	go func() { over <- c.follow(ctx, held, began) }()
	<-began // some of the changes may fall between the state and its end
	for range 25 {
		c.step()
	}
	c.netns("add", last)
	if err := <-over; err != nil {
		c.t.Error(err)
	}
	list, err := netns.List(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range list {
		if held[n.Name] != n.ID {
			c.t.Errorf("%s is %v in the list, %v by the events", n.Name, n.ID, held[n.Name])
		}
		delete(held, n.Name)
	}
	for name := range held {
		c.t.Errorf("%s is there by the events only", name)
	}
	c.clear()
}

// last is the name that the changes end with: it is the last in a list, too.
const last = "~last"

// follow applies the events until the last name has come.
func (c *churn) follow(ctx context.Context, held map[string]netns.ID, began chan struct{}) error {
	synced := false
	for e, err := range netns.Watch(ctx) {
		if began != nil {
			close(began)
			began = nil
		}
		if err != nil {
			return err
		}
		_, known := held[e.Name]
		switch e.Kind {
		case netns.EventPresent, netns.EventChanged:
			if known || synced == (e.Kind == netns.EventPresent) {
				return fmt.Errorf("%v %s: known %v, synced %v", e.Kind, e.Name, known, synced)
			}
			held[e.Name] = e.ID
			if e.Name == last {
				if !synced {
					continue // the state is not complete yet
				}
				return nil
			}
		case netns.EventSynced:
			synced = true
			if _, ok := held[last]; ok {
				return nil
			}
		case netns.EventDeleted:
			if !known || held[e.Name] != e.ID {
				return fmt.Errorf("deleted %s as %v, known as %v", e.Name, e.ID, held[e.Name])
			}
			delete(held, e.Name)
		}
	}
	return errors.New("the watch has ended")
}

// step makes one change; many of them are refused, and change nothing.
func (c *churn) step() {
	name := string("abcd"[c.r.IntN(4)])
	path := filepath.Join(netns.DefaultDir, name)
	other := c.others[c.r.IntN(len(c.others))]
	switch c.r.IntN(10) {
	case 0, 1, 2:
		c.netns("add", name)
	case 3, 4:
		c.netns("del", name)
	case 5: // another namespace over what is there
		_ = other.WithFd(func(fd int) error { return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), path, "", unix.MS_BIND, "") })
	case 6: // what was below comes back, or an empty file
		_ = unix.Unmount(path, unix.MNT_DETACH)
	case 7:
		_ = os.Symlink("/proc/self/ns/net", path)
	case 8:
		if ns, err := netns.Pin(c.t.Context(), other, name); err == nil {
			ns.Close()
		}
	case 9:
		_ = netns.Rename(c.t.Context(), name, string("abcd"[c.r.IntN(4)]))
	}
}

// netns runs `ip netns`, whose refusals do not matter.
func (c *churn) netns(args ...string) {
	out, err := exec.Command(c.ip, append([]string{"netns"}, args...)...).CombinedOutput()
	if args[1] == last && err != nil {
		c.t.Errorf("ip netns %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (c *churn) clear() {
	for _, name := range slices.Concat(strings.Split("abcd", ""), []string{last}) {
		if err := netns.IgnoreNotExist(netns.Delete(c.t.Context(), name)); err != nil {
			c.t.Error(err)
		}
	}
}
