package main

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// needFlowtable skips the test where the kernel has no flowtable that can be used. ADD says so there, and
// leaves nothing.
func needFlowtable(t *testing.T) {
	t.Helper()
	r := newRig(t, `"flowtable": true`)
	c := r.container("web", publish8080)
	_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
	if err == nil {
		return
	}
	if !strings.Contains(err.Error(), "Flowtable") {
		t.Errorf("ADD: %v", err)
	}
	r.clean()
	if !strings.Contains(err.Error(), "CONFIG_NF_FLOW_TABLE_INET") {
		testutil.NeedKernel(t, 6, 4, "flowtables that end", err)
	}
	t.Skip(err)
}

// With flowtable, an established connection to a published port is in the kernel's flowtable, that of a
// container that came later, too.
func TestFlowtable(t *testing.T) {
	t.Parallel()
	needFlowtable(t)
	for mode, keys := range map[string]string{"bridge": "", "ptp": ", " + ptp} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			host, outside := netnstest.Host(t)
			r := newRigOn(t, host.NS, `"flowtable": true`+keys)
			for _, port := range []string{"8080", "8081"} {
				c := r.container("c"+port, strings.Replace(publish8080, "8080", port, 1))
				r.add(c)
				echo(t, c)
				conn, err := outside.Dial(t.Context(), "tcp", "203.0.113.1:"+port)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				r.offloaded(conn)
				if err := r.check(c); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// echo returns what connections to the container's port 80 send.
func echo(t *testing.T, c container) {
	t.Helper()
	ln, err := c.ns.Listen(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); io.Copy(conn, conn) }()
		}
	}()
}

// offloaded waits until a connection is in the flowtable.
func (r *rig) offloaded(conn net.Conn) {
	r.Helper()
	gw, err := nat.Open(r.Context(), r.host, nat.Options{Name: table, ReadOnly: true})
	if err != nil {
		r.Fatal(err)
	}
	defer gw.Close()
	b := make([]byte, 1)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if _, err := conn.Write(b); err != nil {
			r.Fatal(err)
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			r.Fatal(err)
		}
		flows, err := gw.ListFlows(r.Context())
		if err != nil {
			r.Fatal(err)
		}
		for _, f := range flows {
			if f.Offloaded && f.Original.Src.String() == conn.LocalAddr().String() {
				return
			}
		}
	}
	r.Errorf("%v is not in the flowtable", conn.LocalAddr())
}
