package netns

import "github.com/boxwire/boxwire/internal/refuse"

// UserNS says which users a new user namespace has (user_namespaces(7)). The zero value has
// one, root, which is the calling user outside.
type UserNS struct {
	UIDs []IDMap // nil: {Inside: 0, Outside: the caller's effective uid, Count: 1}
	GIDs []IDMap // nil: {Inside: 0, Outside: the caller's effective gid, Count: 1}

	// SetGroups lets processes inside change their supplementary groups (setgroups(2)). It
	// takes CAP_SETGID in the caller's user namespace, and so do GIDs other than the
	// caller's own.
	SetGroups bool
}

// IDMap maps a range of user or group ids inside a user namespace to one outside.
type IDMap struct {
	Inside  uint32 // the first id inside
	Outside uint32 // the first id in the caller's user namespace
	Count   uint32 // how many, at least 1
}

// maxMaps is the kernel's limit of ranges (340 since Linux 4.15).
const maxMaps = 340

func (u UserNS) check() error {
	for what, maps := range map[string][]IDMap{"UIDs": u.UIDs, "GIDs": u.GIDs} {
		if len(maps) > maxMaps {
			return refuse.Input("%s has %d ranges, %d is the most", what, len(maps), maxMaps)
		}
		for i, m := range maps {
			const last = 1<<32 - 1 // stands for no id
			if m.Count == 0 {
				return refuse.Input("%s[%d] maps no ids: Count is 0", what, i)
			}
			if uint64(m.Inside)+uint64(m.Count) > last || uint64(m.Outside)+uint64(m.Count) > last {
				return refuse.Input("%s[%d] goes beyond the largest id", what, i)
			}
			for _, n := range maps[:i] {
				if overlap(m.Inside, m.Count, n.Inside, n.Count) || overlap(m.Outside, m.Count, n.Outside, n.Count) {
					return refuse.Input("%s[%d] overlaps with an earlier range", what, i)
				}
			}
		}
	}
	return nil
}

func overlap(a, countA, b, countB uint32) bool {
	return uint64(a) < uint64(b)+uint64(countB) && uint64(b) < uint64(a)+uint64(countA)
}
