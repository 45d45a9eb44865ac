//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// A state is the file that the allocator keeps for a network. It is only a
// reservation list: a lease counts while the host's end of its pair is there, so
// that what a restart of the machine, or a container that ended without DEL, has
// left in it is free again.
type state struct {
	Leases []leaseEntry `json:"leases"`
	Last   []netip.Addr `json:"last"` // chosen last, for each set of ranges
	path   string
	file   *os.File
}

type leaseEntry struct {
	Link   string       `json:"link"`            // the host's end
	Owner  string       `json:"owner"`           // for people
	Bridge string       `json:"bridge"`          // or the host's link in the VLAN
	Host   uint64       `json:"host"`            // inode of the namespace it is in
	Boot   string       `json:"boot"`            // of the machine, since inodes are used again
	Netns  string       `json:"netns,omitempty"` // the container\'s namespace, where the host has no end
	Inode  uint64       `json:"inode,omitempty"` // of that
	Addrs  []netip.Addr `json:"addrs"`
}

// errDamaged is that a state is there and cannot be read.
var errDamaged = errors.New("it is damaged; GC removes it where no attachment is valid")

// path is the file of a network's state.
func (p *pool) path(network string) string {
	return filepath.Join(p.DataDir, key(network, 200)+".json")
}

// openState opens the state of a network and locks it until close.
func (p *pool) openState(network string) (*state, error) {
	if err := os.MkdirAll(p.DataDir, 0o755); err != nil {
		return nil, failed("making the allocator's directory", err)
	}
	path := p.path(network)
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, failed("opening the allocator's state", err)
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	s := &state{path: path, file: f}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		f.Close()
		return nil, failed("reading the allocator's state", fmt.Errorf("%s: %w", path, err))
	}
	if err := json.Unmarshal(b, s); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w: %w", path, err, errDamaged)
	}
	return s, nil
}

func (s *state) close() { s.file.Close() }

// save replaces the file, so that a plugin that is killed leaves the old one or
// the new. It is on the disk before it has the name: a power cut leaves no half.
func (s *state) save() error {
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	tmp := s.path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return failed("writing the allocator's state", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, s.path)
	}
	return failed("writing the allocator's state", err)
}

func (s *state) last(set int) netip.Addr {
	if set < len(s.Last) {
		return s.Last[set]
	}
	return netip.Addr{}
}

func (s *state) remember(set int, a netip.Addr) {
	for len(s.Last) <= set {
		s.Last = append(s.Last, netip.Addr{})
	}
	s.Last[set] = a
}

// reap drops the leases whose links are gone. Of another host's namespace that is
// not known, except that it has not outlived the machine's restart.
func (s *state) reap(ctx context.Context, host *netns.NS, boot string) error {
	alive, err := hostEnds(ctx, host)
	if err != nil {
		return err
	}
	s.Leases = slices.DeleteFunc(s.Leases, func(e leaseEntry) bool {
		return e.Boot != boot || e.Host == host.ID().Ino && !alive[e.Link] && !e.isInside()
	})
	return nil
}

// isInside says whether the entry is that of a container whose namespace is there. It
// stands for the link, which may be in a namespace that nobody can list.
func (e leaseEntry) isInside() bool {
	info, err := os.Stat(e.Netns)
	if e.Netns == "" || err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && s.Ino == e.Inode
}

// allocate assigns addresses. The caller holds the lock until the link is there:
// a lease without a link is free.
func (p *pool) allocate(ctx context.Context, r *request) (*lease, error) {
	s, err := p.openState(r.conf.Name)
	if err != nil {
		return nil, failed("reading the allocator's state", err)
	}
	defer s.close()
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if err := s.reap(ctx, r.host, boot); err != nil {
		return nil, err
	}
	taken, err := p.taken(ctx, r, s, boot)
	if err != nil {
		return nil, err
	}
	result, addrs, err := p.choose(s, r.conf.wanted, taken)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, invalid("ipam assigns no address", "it has neither subnet nor ranges, and the runtime has sent no ipRanges")
	}
	if p.ResolvConf != "" {
		if result.DNS, err = readResolvConf(p.ResolvConf); err != nil {
			return nil, invalid("ipam: resolvConf cannot be read", err.Error())
		}
	}
	entry := leaseEntry{Link: r.at.link(), Owner: r.at.owner(), Bridge: r.conf.segment(), Host: r.host.ID().Ino, Boot: boot, Addrs: addrs}
	if r.conf.inside() {
		entry.Netns, entry.Inode = r.args.Netns, r.box.Ino
	}
	s.Leases = append(s.Leases, entry)
	if err := s.save(); err != nil {
		return nil, err
	}
	l, err := newLease(result, r.conf.IsGateway)
	if err == nil {
		l.onLink = p.onLink
	}
	return l, err
}

// taken returns the addresses in use: by a container of this network or of another
// one on the bridge, or by the host.
func (p *pool) taken(ctx context.Context, r *request, s *state, boot string) (map[netip.Addr]string, error) {
	all, err := hostAddrs(ctx, r.host)
	if err != nil {
		return nil, err
	}
	states := []*state{s}
	files, err := os.ReadDir(p.DataDir)
	if err != nil {
		return nil, failed("looking for other networks", err)
	}
	for _, f := range files {
		path := filepath.Join(p.DataDir, f.Name())
		if path == s.path || filepath.Ext(path) != ".json" {
			continue
		}
		other := &state{}
		// One that is damaged is for its own network to say.
		if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, other) == nil {
			if err := other.reap(ctx, r.host, boot); err != nil {
				return nil, err
			}
			states = append(states, other)
		}
	}
	for _, s := range states {
		for _, e := range s.Leases {
			if s != states[0] && (e.Bridge != r.conf.segment() || e.Host != r.host.ID().Ino) {
				continue
			}
			for _, a := range e.Addrs {
				all[a] = e.Owner
			}
		}
	}
	return all, nil
}

// readResolvConf reads what resolv.conf(5) has for a resolver.
func readResolvConf(path string) (dns types.DNS, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return dns, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, f[1])
		case "domain":
			dns.Domain = f[1]
		case "search":
			dns.Search = append(dns.Search, f[1:]...)
		case "options":
			dns.Options = append(dns.Options, f[1:]...)
		}
	}
	return dns, nil
}

// free drops leases by their link's name.
func (p *pool) free(network string, gone func(link string) bool) error {
	s, err := p.openState(network)
	if err != nil {
		return err
	}
	defer s.close()
	before := len(s.Leases)
	s.Leases = slices.DeleteFunc(s.Leases, func(e leaseEntry) bool { return gone(e.Link) })
	if len(s.Leases) == before {
		return nil
	}
	return s.save()
}

// holds says whether the link has a lease of the address.
func (p *pool) holds(network, link string, addr netip.Addr) (bool, error) {
	s, err := p.openState(network)
	if err != nil {
		return false, failed("reading the allocator's state", err)
	}
	defer s.close()
	for _, e := range s.Leases {
		if e.Link == link && slices.Contains(e.Addrs, addr) {
			return true, nil
		}
	}
	return false, nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(bytes.TrimSpace(b))), failed("reading the boot id", err)
}
