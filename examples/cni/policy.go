//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// parsePolicy reads the policy that is for the container: that of the capability, else of
// args.cni, else of the network. key names it in errors.
func (c *config) parsePolicy() (err error) {
	for _, p := range []struct {
		key string
		raw json.RawMessage
	}{{"runtimeConfig.policy", c.RuntimeConfig.Policy}, {"args.cni.policy", c.Args.CNI.Policy}, {"policy", c.Policy}} {
		if len(p.raw) == 0 {
			continue
		}
		if c.policy, err = readPolicy(p.key, p.raw); err != nil {
			return err
		}
		switch {
		case c.IPAM.Type == "":
			return invalid(p.key+" needs ipam", "a policy judges by the container's addresses")
		case !c.IsGateway && !c.IPMasq:
			return invalid(p.key+" needs isGateway or ipMasq", "what a plain switch forwards does not pass the firewall")
		}
		c.policyKey = p.key
		return nil
	}
	return nil
}

// readPolicy reads one policy. A direction that is not there is not limited, so that a
// name that is not known, or a null, might open what its author has closed.
func readPolicy(key string, raw json.RawMessage) (*nat.Policy, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(raw, &keys); err != nil || keys == nil {
		return nil, invalid(key+" is no policy", fmt.Sprintf("%s: an object with egress, ingress and refuse", raw))
	}
	p := &nat.Policy{}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		var err error
		v := keys[k]
		switch k {
		case "egress":
			p.Egress, err = readRules(key+"."+k, v, true)
		case "ingress":
			p.Ingress, err = readRules(key+"."+k, v, false)
		case "refuse":
			if json.Unmarshal(v, &p.Refuse) != nil || isNull(v) {
				err = invalid(key+".refuse is neither true nor false", string(v))
			}
		default:
			err = unsupported(key+"."+k, v, "a policy has egress, ingress and refuse")
		}
		if err != nil {
			return nil, err
		}
	}
	if p.Egress == nil && p.Ingress == nil {
		return nil, invalid(key+" has neither egress nor ingress", "an empty list allows nothing")
	}
	return p, nil
}

func isNull(v json.RawMessage) bool { return bytes.Equal(v, []byte("null")) }

// readRules reads the rules of one direction, in which host has a meaning or not.
func readRules(key string, raw json.RawMessage, host bool) (*nat.Rules, error) {
	var texts []string
	if json.Unmarshal(raw, &texts) != nil || isNull(raw) {
		return nil, invalid(key+" is no list of rules", fmt.Sprintf("%s: texts such as \"tcp 203.0.113.0/24 port 443\"; an empty list allows nothing", raw))
	}
	rules := &nat.Rules{Allow: make([]nat.Rule, len(texts))}
	for i, text := range texts {
		err := rules.Allow[i].UnmarshalText([]byte(text))
		if err == nil && rules.Allow[i].Host && !host {
			err = errors.New("the host reaches its containers always")
		}
		if err != nil {
			return nil, invalidRule(key, i, text, oneLine(err))
		}
	}
	return rules, nil
}

func invalidRule(key string, i int, rule, why string) error {
	return invalid(fmt.Sprintf("%s[%d]: the rule %q is refused", key, i, rule), why)
}

// policyFor is the policy of a container with these addresses; nil where it has none.
func (r *request) policyFor(addrs []netip.Prefix) (*nat.Policy, error) {
	if r.conf.policy == nil {
		return nil, nil
	}
	p := *r.conf.policy
	p.Owner = r.at.owner()
	for _, a := range addrs {
		p.Box = append(p.Box, a.Addr())
	}
	err := fitting(r.conf.policyKey+".egress", p.Egress, p.Box)
	if err == nil {
		err = fitting(r.conf.policyKey+".ingress", p.Ingress, p.Box)
	}
	return &p, err
}

// fitting refuses rules of a family that the container has no address of.
func fitting(key string, rules *nat.Rules, box []netip.Addr) error {
	if rules == nil {
		return nil
	}
	for i, rule := range rules.Allow {
		if rule.Peer.IsValid() && !slices.ContainsFunc(box, func(a netip.Addr) bool { return a.Is4() == rule.Peer.Addr().Is4() }) {
			return invalidRule(key, i, rule.String(), "the container has no address of that family")
		}
	}
	return nil
}

// police sets the container's policy. It is there before the container's link, so that
// the container has no moment without it. A container without one has none of another
// container either, which had the address and went without DEL.
func (r *request) police(ctx context.Context, gw *nat.NAT, l *lease) error {
	p, err := r.policyFor(l.addrs)
	if err != nil {
		return err
	}
	if p != nil {
		return failed("setting the container's policy", gw.SetPolicies(ctx, *p))
	}
	for _, a := range l.addrs {
		err := mended(ctx, gw, func() error { return gw.DeletePolicies(ctx, a.Addr()) })
		if err = netns.IgnoreNotExist(err); err != nil {
			return failed("deleting the policy of a container that is gone", err)
		}
	}
	err = mended(ctx, gw, func() error { return gw.DeleteGuards(ctx, r.at.link()) })
	return failed("deleting the guard of a link that is gone", netns.IgnoreNotExist(err))
}

// mended calls what deletes from the table. If another program has damaged the table, mended restores
// it, with all that it holds, and calls again.
func mended(ctx context.Context, gw *nat.NAT, call func() error) error {
	err := call()
	if errors.Is(err, nat.ErrDamaged) {
		all := nat.State{Owners: func(string) bool { return false }} // every owner keeps what it has
		if err = gw.Sync(ctx, all); err == nil {
			err = call()
		}
	}
	return err
}

// guardOf is the guard of a container with a policy: it binds the container to its addresses, so
// that the policy judges also what it sends to siblings on the bridge.
func (r *request) guardOf(mac net.HardwareAddr, addrs []netip.Prefix) nat.Guard {
	g := nat.Guard{Port: r.at.link(), MAC: mac, Owner: r.at.owner()}
	for _, a := range addrs {
		g.Box = append(g.Box, a.Addr())
	}
	return g
}

// deletePolicies deletes the policies and then the guards of owners whose links are gone.
func deletePolicies(ctx context.Context, gw *nat.NAT, gone func(owner string) bool) error {
	all, err := gw.ListPolicies(ctx)
	if err != nil {
		return failed("reading the policies", netns.IgnoreNotExist(err))
	}
	var boxes []netip.Addr
	for _, p := range all {
		if gone(p.Owner) {
			boxes = append(boxes, p.Box[0])
		}
	}
	guards, err := gw.ListGuards(ctx)
	if err != nil {
		return failed("reading the guards", netns.IgnoreNotExist(err))
	}
	var ports []string
	for _, g := range guards {
		if gone(g.Owner) {
			ports = append(ports, g.Port)
		}
	}
	if err = gw.DeletePolicies(ctx, boxes...); err == nil {
		err = gw.DeleteGuards(ctx, ports...)
	}
	if err != nil { // another program has changed the table
		err = gw.Sync(ctx, nat.State{Owners: gone})
	}
	return failed("deleting the policies of containers", err)
}
