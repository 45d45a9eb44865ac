//go:build linux

package main

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// An attachment is one link of one container in one network: what ADD makes and
// DEL removes.
type attachment struct{ network, container, ifname string }

// owner is who the attachment's published ports belong to, and part of its host
// link's alias. Every part counts: a container may be in two networks, and twice
// in one. It has 123 bytes at most; nat.MaxOwner is 127.
func (a attachment) owner() string {
	return ownerPrefix(a.network) + key(a.container, 64) + "/" + key(a.ifname, 15)
}

// ownerPrefix begins the owners of a network, and of no other.
func ownerPrefix(network string) string { return key(network, 42) + "/" }

// linkPrefix begins the names of the host's ends.
const linkPrefix = "bwc"

// link is the name of the host's end. DEL finds it without any record, and a
// second ADD finds it taken.
func (a attachment) link() string { return linkOf(a.owner()) }

func linkOf(owner string) string {
	sum := sha256.Sum256([]byte(owner))
	return fmt.Sprintf("%s%x", linkPrefix, sum[:6])
}

// aliasPrefix begins the alias of the host's end; the owner follows.
const aliasPrefix = "boxwire cni "

func (a attachment) alias() string { return aliasPrefix + a.owner() }

// begun ends the alias of a host's end while its ADD is under way. When all of it is
// done, the container's hardware address is in the place.
const begun = "begun"

// parseAlias reads the owner from an alias, and what follows it.
func parseAlias(alias string) (owner, rest string, ok bool) {
	owner, ok = strings.CutPrefix(alias, aliasPrefix)
	owner, rest, _ = strings.Cut(owner, " ")
	return owner, rest, ok
}

// key returns s, or where s is too long or has signs that do not suit a comment,
// a short form of it that no other has.
func key(s string, most int) string {
	plain := strings.IndexFunc(s, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !letter && !strings.ContainsRune("-_.@", r)
	}) < 0
	if plain && len(s) <= most {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	short := fmt.Sprintf("~%x", sum[:7])
	if plain {
		return s[:most-len(short)] + short
	}
	return short
}
