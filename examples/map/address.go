package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// An address is where the page is served.
type address struct {
	ip   netip.Addr // unspecified: every address of the machine
	port uint16     // 0: a free one
}

// errAddress says that an address cannot be meant. The command line is wrong, not the machine.
var errAddress = errors.New("bad address")

// parseAddress reads the address of the command line. An address that other machines reach needs
// exposed.
func parseAddress(text string, exposed bool) (a address, err error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return a, fmt.Errorf("%w: -http %q wants ADDRESS:PORT, such as 127.0.0.1:8090", errAddress, text)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return a, fmt.Errorf("%w: -http %q: the port is a number up to 65535, or 0 for a free one", errAddress, text)
	}
	a.port = uint16(number)
	switch host {
	case "localhost":
		a.ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case "":
		a.ip = netip.IPv6Unspecified()
	default:
		// A name would have to be looked up, and may mean another machine tomorrow.
		if a.ip, err = netip.ParseAddr(host); err != nil {
			return a, fmt.Errorf("%w: -http %q: %q is no IP address", errAddress, text, host)
		}
	}
	a.ip = a.ip.Unmap()
	if !a.ip.IsLoopback() && !exposed {
		return a, fmt.Errorf("%w: -http %q: other machines reach this address, and would see the names, addresses and programs of this one without a password; "+
			"use 127.0.0.1:%d, or add -expose", errAddress, text, number)
	}
	return a, nil
}

// listen opens the address.
func (a address) listen(ctx context.Context) (net.Listener, error) {
	host := a.ip.String()
	if a.ip == netip.IPv6Unspecified() {
		host = "" // both families
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(a.port))))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w; another program listens there, and port 0 is a free one", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%w; no link of this machine has the address", err)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%w; a port below %d needs CAP_NET_BIND_SERVICE", err, firstFreePort)
	}
	return l, err
}

// firstFreePort is the first port that needs no privilege (ip_unprivileged_port_start in ip(7)).
const firstFreePort = 1024

// hosts are the Host headers that the page answers. A page of another site may have its own name
// lead to this machine (DNS rebinding); the browser then sends that name.
type hosts struct {
	port  string
	names map[string]bool
	every bool // the listener has every address of the machine
}

func hostsOf(bound net.Addr) hosts {
	at := netip.MustParseAddrPort(bound.String())
	ip := at.Addr().Unmap().WithZone("")
	h := hosts{port: strconv.Itoa(int(at.Port())), names: make(map[string]bool), every: ip.IsUnspecified()}
	if !h.every {
		h.add(ip.String())
	}
	if ip.IsLoopback() || h.every {
		h.add("localhost")
	}
	return h
}

func (h hosts) add(name string) {
	h.names[net.JoinHostPort(name, h.port)] = true
	if h.port == "80" { // browsers leave it out
		if strings.Contains(name, ":") {
			name = "[" + name + "]"
		}
		h.names[name] = true
	}
}

// allows reports whether a request names this server.
func (h hosts) allows(r *http.Request) bool {
	if h.names[strings.ToLower(r.Host)] {
		return true
	}
	if !h.every {
		return false
	}
	// The address that the connection has reached, and no name.
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	at, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return false
	}
	reached := hosts{port: h.port, names: make(map[string]bool)}
	reached.add(at.Addr().Unmap().WithZone("").String())
	return reached.names[r.Host]
}

// url is how a browser on this machine reaches the listener.
func url(bound net.Addr) string {
	at := netip.MustParseAddrPort(bound.String())
	if at.Addr().IsUnspecified() {
		return fmt.Sprintf("http://localhost:%d/", at.Port())
	}
	return fmt.Sprintf("http://%s/", netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
}
