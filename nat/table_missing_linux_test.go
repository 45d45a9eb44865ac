package nat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
)

// A verb that finds an element missing which another program deleted says that the table is damaged.
func TestVerbsNameADamagedTable(t *testing.T) {
	t.Parallel()
	web := udp("0.0.0.0:80", "10.88.0.2:80", "web")
	hole := pinhole("10.88.0.2:90", 95, "web")
	br0 := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16"), Pinholes: []Pinhole{hole}}
	box := Policy{Box: addrs("10.88.0.2"), Owner: "web", Egress: allows(t, "tcp 203.0.113.0/24 port 443")}
	guard := Guard{Port: "port0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Box: addrs("10.88.0.2"), Owner: "web"}
	other := guard
	other.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	state := State{Networks: []Network{br0}, Ports: []Port{web}, Policies: []Policy{box}, Guards: []Guard{guard}}
	for _, c := range []struct {
		verb, damage string
		call         func(ctx context.Context, gw *NAT) error
	}{
		{"Unpublish", "flush set inet boxwire own4", func(ctx context.Context, gw *NAT) error { return gw.Unpublish(ctx, web) }},
		{"DeletePolicies", "flush map inet boxwire out4", func(ctx context.Context, gw *NAT) error { return gw.DeletePolicies(ctx, box.Box...) }},
		{"DeletePolicies without a counter", "flush set inet boxwire denied_out4", func(ctx context.Context, gw *NAT) error { return gw.DeletePolicies(ctx, box.Box...) }},
		{"SetPolicies", "flush set inet boxwire egress4", func(ctx context.Context, gw *NAT) error {
			return gw.SetPolicies(ctx, Policy{Box: box.Box, Owner: "web", Ingress: allows(t)})
		}},
		{"SetNetwork", "flush set inet boxwire egress4", func(ctx context.Context, gw *NAT) error {
			return gw.SetNetwork(ctx, Network{Interface: "br0", Subnets: prefixes("10.90.0.0/16")})
		}},
		{"DeleteGuards", "flush set bridge boxwire mac", func(ctx context.Context, gw *NAT) error { return gw.DeleteGuards(ctx, "port0") }},
		{"SetGuards", "flush set bridge boxwire mac", func(ctx context.Context, gw *NAT) error { return gw.SetGuards(ctx, other) }},
	} {
		t.Run(c.verb, func(t *testing.T) {
			t.Parallel()
			ns := host(t)
			ip(t, ns, "link add port0 type veth peer name eth0\nlink set port0 master br0")
			gw := open(t, ns)
			if err := gw.Sync(t.Context(), state); err != nil {
				t.Fatal(err)
			}
			testutil.Run(t, ns, "nft", c.damage)
			if err := c.call(t.Context(), gw); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s after %q: %v", c.verb, c.damage, err)
			}
			if err := gw.Sync(t.Context(), state); err != nil {
				t.Fatal(err)
			}
			if err := c.call(t.Context(), gw); err != nil {
				t.Errorf("%s after Sync: %v", c.verb, err)
			}
		})
	}
}

// Grants that run out while a call is about to delete them do not make it fail.
func TestGrantsMayRunOutWhileTheyAreDeleted(t *testing.T) {
	t.Parallel()
	box := Policy{Box: addrs("10.88.0.2"), Owner: "web", Egress: allows(t)}
	br0 := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}
	for name, without := range map[string]func(ctx context.Context, gw *NAT) error{
		"DeletePolicies": func(ctx context.Context, gw *NAT) error { return gw.DeletePolicies(ctx, box.Box...) },
		"Sync":           func(ctx context.Context, gw *NAT) error { return gw.Sync(ctx, State{Networks: []Network{br0}}) },
		"SetNetwork": func(ctx context.Context, gw *NAT) error {
			return gw.SetNetwork(ctx, Network{Interface: "br0", Subnets: prefixes("10.90.0.0/16")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gw := open(t, host(t))
			grants := stress(200, 1000, 1000)
			for range stress(1, 4, 40) {
				if err := gw.Sync(t.Context(), State{Networks: []Network{br0}, Policies: []Policy{box}}); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				for i := range grants {
					r := allows(t, fmt.Sprintf("udp 203.0.113.1 port %d", i+1)).Allow
					if err := gw.Grant(t.Context(), box.Box[0], minGrant, r...); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Until(began.Add(minGrant + time.Since(began)/2))) // half of them ran out; the kernel tells of none
				if err := without(t.Context(), gw); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
