package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/containernetworking/cni/libcni"
)

// BenchmarkAddDelBesideTheReference measures ADD and DEL of a container with one
// published port by this plugin and by the chain bridge + host-local + portmap,
// in turns, through libcni, on a host each. measure.sh runs it.
func BenchmarkAddDelBesideTheReference(b *testing.B) {
	chains := []*chain{{name: "boxwire", rig: newRig(b, "")}}
	if reference := referenceChain(b); reference != nil {
		chains = append(chains, reference)
	}
	for i := 0; b.Loop(); i++ {
		for _, c := range chains {
			c.turn(fmt.Sprint("c", i))
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, c := range chains {
		b.ReportMetric(median(c.adds), c.name+"-add-ms")
		b.ReportMetric(median(c.dels), c.name+"-del-ms")
	}
	if len(chains) == 2 {
		b.ReportMetric(median(chains[1].adds)/median(chains[0].adds), "x-add")
		b.ReportMetric(median(chains[1].dels)/median(chains[0].dels), "x-del")
	}
}

type chain struct {
	name       string
	rig        *rig
	adds, dels []time.Duration
}

// turn adds and deletes a container. One stays, so that the chain does not make
// its bridge each time.
func (c *chain) turn(id string) {
	if len(c.adds) == 0 {
		c.rig.add(c.rig.container("first", ""))
	}
	box := c.rig.container(id, publish8080)
	began := time.Now()
	c.rig.add(box)
	c.adds = append(c.adds, time.Since(began))
	began = time.Now()
	c.rig.del(box)
	c.dels = append(c.dels, time.Since(began))
}

func referenceChain(b *testing.B) *chain {
	dir := os.Getenv("BOXWIRE_CNI_PLUGINS")
	for _, name := range []string{"bridge", "host-local", "portmap"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil || dir == "" {
			b.Logf("BOXWIRE_CNI_PLUGINS names no directory with the reference plugins: %v", err)
			return nil
		}
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		b.Logf("the reference plugins need iptables: %v", err)
		return nil
	}
	r := newRigOn(b, netnstest.New(b), "")
	list, err := libcni.ConfListFromBytes(fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "reference", "plugins": [
		{"type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true, "ipMasq": true,
		 "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd88::/64"}]]}},
		{"type": "portmap", "capabilities": {"portMappings": true}}]}`, filepath.Join(r.dir, "state")))
	if err != nil {
		b.Fatal(err)
	}
	r.list = list
	return &chain{name: "reference", rig: r}
}

// median is in milliseconds.
func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2].Microseconds()) / 1000
}
