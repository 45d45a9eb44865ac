//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/nat"
)

// allowed is what -allow names.
type allowed struct {
	rules []nat.Rule // addresses, and services of the host
	names []nameRule
}

// nameRule allows one port of what a name resolves to.
type nameRule struct {
	name       string // in lower case, without a dot at the end
	subdomains bool   // of the name, and not the name itself
	port       service
}

// service is a port of a protocol.
type service struct {
	proto nat.Proto
	port  uint16
}

// add reads a value of -allow. It is a destination and a port, perhaps with a protocol before
// it, or a rule as package nat writes them.
func (a *allowed) add(text string) error {
	words := strings.Fields(text)
	proto := "tcp"
	switch {
	case len(words) == 0:
		return errors.New("it is empty")
	case len(words) == 2 && isPortProto(words[0]) && words[1] != "host":
		proto, words = words[0], words[1:]
	}
	if len(words) > 1 {
		return a.addRule(text)
	}
	dest, port, err := splitPort(words[0])
	if err != nil {
		return err
	}
	if looksLikeAddr(dest) {
		return a.addRule(proto + " " + dest + " port " + port)
	}
	return a.addName(proto, dest, port)
}

func isPortProto(word string) bool { return word == "tcp" || word == "udp" || word == "sctp" }

// addRule adds a rule from its text.
func (a *allowed) addRule(text string) error {
	var r nat.Rule
	if err := r.UnmarshalText([]byte(text)); err != nil {
		return err
	}
	switch r.Proto {
	case nat.TCP, nat.UDP, nat.SCTP:
		if r.Port == 0 {
			return fmt.Errorf("%q: %v needs a port; port 1-65535 is every port", text, r.Proto)
		}
	}
	a.rules = append(a.rules, r)
	return nil
}

// addName adds a name or "*." and a name.
func (a *allowed) addName(proto, dest, port string) error {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return fmt.Errorf("the port of a name is one number from 1 to 65535, not %q", port)
	}
	r := nameRule{port: service{port: uint16(number)}}
	switch proto {
	case "tcp":
		r.port.proto = nat.TCP
	case "udp":
		r.port.proto = nat.UDP
	case "sctp":
		r.port.proto = nat.SCTP
	}
	r.name, r.subdomains = strings.CutPrefix(dest, "*.")
	r.name = normalName(r.name)
	if err := checkName(r.name); err != nil {
		return err
	}
	a.names = append(a.names, r)
	return nil
}

// splitPort cuts the port off a destination. An address of IPv6 is in brackets, with its prefix
// length.
func splitPort(text string) (dest, port string, err error) {
	if rest, ok := strings.CutPrefix(text, "["); ok {
		dest, port, ok = strings.Cut(rest, "]:")
		if !ok || port == "" {
			return "", "", fmt.Errorf("%q lacks a port: [ADDR]:PORT", text)
		}
		if !strings.Contains(dest, ":") {
			return "", "", fmt.Errorf("%q: brackets are for addresses of IPv6", text)
		}
		return dest, port, nil
	}
	i := strings.LastIndexByte(text, ':')
	switch {
	case i < 0 || i == len(text)-1:
		return "", "", fmt.Errorf("%q lacks a port: DEST:PORT", text)
	case strings.Contains(text[:i], ":"):
		return "", "", fmt.Errorf("%q: write an address of IPv6 in brackets: [2001:db8::1]:443, [2001:db8::/32]:443", text)
	}
	return text[:i], text[i+1:], nil
}

// looksLikeAddr reports whether a destination is to be read as an address or a prefix. What ends
// in a number is no name (RFC 3696, 2).
func looksLikeAddr(dest string) bool {
	if strings.Contains(dest, ":") || strings.Contains(dest, "/") {
		return true
	}
	if _, err := netip.ParseAddr(dest); err == nil {
		return true
	}
	_, err := strconv.Atoi(dest[strings.LastIndexByte(dest, '.')+1:])
	return err == nil
}

// normalName is a name in the form that names are compared in.
func normalName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// checkName refuses what is no host name (RFC 1123, 2.1), except that '_' may be in it.
func checkName(name string) error {
	if name == "" || len(name) > 253 {
		return fmt.Errorf("the name %q has %d bytes; 1 to 253 are possible", name, len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "" || len(label) > 63:
			return fmt.Errorf("the name %q has the part %q; 1 to 63 bytes are possible", name, label)
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Errorf("the name %q has the part %q, which begins or ends with '-'", name, label)
		}
		for _, r := range label {
			switch {
			case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-', r == '_':
			case r == '*':
				return fmt.Errorf("the name %q: '*' stands for all subdomains, at the beginning and before a dot alone", name)
			case r > 127:
				return fmt.Errorf("the name %q has %q: write it in its ASCII form (xn--...)", name, r)
			default:
				return fmt.Errorf("the name %q has %q; letters, digits, '-' and '_' are possible", name, r)
			}
		}
	}
	return nil
}

// ports are what is allowed at the addresses of a name. Without any, the name is not allowed.
func (a *allowed) ports(name string) []service {
	var all []service
	for _, r := range a.names {
		if r.subdomains && strings.HasSuffix(name, "."+r.name) || !r.subdomains && name == r.name {
			all = append(all, r.port)
		}
	}
	return all
}
